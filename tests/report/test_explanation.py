"""The page of coloured texts: escaped, self-contained, readable in both schemes; its tables and JSON."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from rlhf_lightning.report.explanation import (
    LEVELS,
    ExplainedCase,
    color_words,
    count_agreements,
    explanation_json,
    explanation_metrics,
    explanation_page,
    strongest_words,
    words_table,
)
from rlhf_lightning.reward.explain.cases import Case
from rlhf_lightning.reward.explain.explanation import Explanation, FeatureDifference, Occlusion, PairExplanation, Trajectory, WordShare
from rlhf_lightning.reward.regression.feature_score import Reason

EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)>" \x1b[31m [bold]'


def shares(part: str, text: str, *values: float) -> list[WordShare]:
    found = [(match.start(), match.end(), match[0]) for match in re.finditer(r"\S+", text)]
    return [WordShare(part, start, end, word, value) for (start, end, word), value in zip(found, values, strict=True)]


def side(prompt: str, response: str, score: float, **fields) -> Explanation:
    words = shares("prompt", prompt, *[0.1] * len(prompt.split())) + shares("response", response, *fields.pop("values"))
    known = {"gap": 2e-4, "steps": 32, "is_complete": True, "baseline_score": 0.0, "agreement": 0.75}
    return Explanation(
        prompt=prompt, response=response, score=score, words=words, occlusions=[Occlusion(0, 1, 0.2)],
        trajectory=Trajectory([0, 1, 2], [0.0, 0.5, score]), **{**known, **fields},
    )  # fmt: skip


GOOD = side("The lamp:", "a good lamp", 1.25, values=(0.01, 0.9, -0.2))
BAD = side("The lamp:", "bad lamp", -0.5, values=(-0.8, 0.1), is_complete=False, gap=0.2)
PAIR = ExplainedCase(
    Case("f.jsonl:1", "pair", "The lamp:", ("a good lamp", "bad lamp")),
    PairExplanation(
        first=GOOD, second=BAD, features=[FeatureDifference("length: log words", 1.4, 1.1, 0.3)], is_exact=False, unexplained=1.45
    ),
)
DISAGREES = ExplainedCase(PAIR.case, PairExplanation(first=BAD, second=GOOD, features=[], is_exact=False, unexplained=None))
ALONE = ExplainedCase(Case("", "rating", EVIL, (EVIL,)), side(EVIL, EVIL, 0.3, values=[0.5] * len(EVIL.split()), agreement=None))
BY_FEATURES = ExplainedCase(
    Case("", "thumbs", "p", ("x",)),
    side("p", "x", 0.3, values=[0.3], gap=None, steps=None, is_complete=None, agreement=None, bias=0.1,
         reasons=[Reason("length: log words", 0.7, 1.0, 0.2)]),
)  # fmt: skip
CASES = [PAIR, DISAGREES, ALONE]


class Outline(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def test_every_text_is_escaped_and_nothing_is_loaded_or_run():
    page = explanation_page("Why <b>", EVIL, CASES, None)
    outline = Outline(page)
    assert not {"script", "img", "b>"} & set(outline.tags)
    assert not {name for name in outline.names if name.startswith("on") or name in ("src", "style")}
    assert html.escape(EVIL.split()[0]) in page.replace("&#34;", "&quot;")
    assert "\x1b" not in page
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page
    assert ".up.l5" in style
    assert ".card" in style


def test_words_have_the_shade_of_their_share():
    words = shares("response", "a good lamp", 0.01, 0.9, -0.2)
    assert color_words("a good lamp", words, 0.9) == (
        'a <span class="up l5" title="+0.900">good</span> <span class="down l2" title="-0.200">lamp</span>'
    )
    assert color_words("a good lamp", words, 0.0) == "a good lamp"
    assert color_words("a\nb", [WordShare("response", 1, 2, "\n", -1.0)], 1.0) == 'a<span class="down l5" title="-1.000">↵\n</span>b'


def test_both_sides_of_a_pair_share_one_scale():
    page = explanation_page("t", "m", [PAIR], None)
    assert '<span class="up l5" title="+0.900">good</span>' in page
    assert '<span class="down l5" title="-0.800">bad</span>' in page
    assert '<span class="up l1" title="+0.100">lamp</span>' in page


def test_the_page_says_who_agrees_and_what_not_to_trust():
    page = explanation_page("t", "m", CASES, None)
    assert "The model agrees, by 1.75." in page
    assert "The model prefers the other, by 1.75." in page
    assert "gap 0.2 after 32 gradients (too large: raise stage.max_steps)" in page
    assert "agrees with occlusion 0.75" in page
    assert "it leaves +1.45 of +1.75 unexplained" in page
    assert page.count("<svg viewBox") > 3
    assert count_agreements(CASES) == (1, 2)


def test_a_features_model_s_page_shows_its_reasons_and_says_what_the_colours_are():
    page = explanation_page("t", "m", [BY_FEATURES], None)
    assert "together they are the score" in page
    assert "length: log words" in page
    assert "what the score loses without it" in page
    assert "integrated" not in page


def test_repeated_words_are_summed_by_sign():
    found = side("", "good bad good bad bad", 1.0, values=(0.2, -0.4, 0.3, 0.1, -0.1))
    assert strongest_words(found, 1) == [("good", "+0.50")]
    assert strongest_words(found, -1) == [("bad", "-0.40")]
    table = words_table([ExplainedCase(Case("", "rating", "", ("x",)), found), PAIR])
    assert [row[0] for row in table.rows] == ["1: good bad good…", "2 preferred: a good lamp", "2 other: bad lamp"]
    assert table.rows[0][2:4] == ["good +0.50", "bad -0.40"]


def test_json_holds_all_and_metrics_the_worst_gap():
    told = explanation_json("m", [*CASES, BY_FEATURES], None)
    again = json.loads(json.dumps(told))
    assert again["cases"][0]["texts"][0]["words"][3]["contribution"] == 0.9
    assert again["cases"][3]["texts"][0]["reasons"][0]["name"] == "length: log words"
    metrics = {metric.label: metric.after for metric in explanation_metrics(CASES, None)}
    assert metrics["Texts explained"] == 5
    assert metrics["Largest completeness gap"] == 0.2
    assert metrics["Gradients agree with occlusion"] == pytest.approx(0.75)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_every_shade_and_shades_rise(scheme):
    """WCAG 2.2: at least 4.5 to 1."""
    folder = resources.files("rlhf_lightning.report")
    plain, own = ((folder / name).read_text() for name in ("page.css", "explanation.css"))
    place = 0 if scheme == "light" else 1
    ink = re.findall(r"--ink: (#\w{6})", plain)[place]
    for kind in ("up", "down"):
        shades = [luminance(re.findall(rf"--{kind}{level}: (#\w{{6}})", own)[place]) for level in range(1, LEVELS + 1)]
        for shade in shades:
            low, high = sorted((shade, luminance(ink)))
            assert (high + 0.05) / (low + 0.05) >= 4.5
        assert shades == sorted(shades, reverse=scheme == "light")
