"""The report: its JSON, its page and its tables."""

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pydantic
import pytest
from rich.console import Console

from rlhf_lightning.report import formatting
from rlhf_lightning.report.page import curves_of_rounds, mark_changes, page, write_page
from rlhf_lightning.report.report import (
    Curve,
    FeedbackCount,
    Metric,
    Report,
    RoundResult,
    Sample,
    Series,
    StageTime,
    Target,
)
from rlhf_lightning.report.terminal import print_report
from rlhf_lightning.statistics.intervals import Interval, paired_interval, proportion_interval

EVIL = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> \x1b[31m [bold]"
UTILITY = Metric(
    label="Utility on held-out prompts",
    before=Interval(0.341, 0.317, 0.365, 256),
    after=Interval(0.644, 0.621, 0.667, 256),
    change=Interval(0.303, 0.283, 0.323, 256),
)
ACCURACY = Metric(label="Reward-model accuracy", after=proportion_interval(334, 400), ceiling=0.872, unit="%")
FULL = Report(
    title="Kinder stories",
    command=["python", "train.py", "run_name=my run"],
    seed=1,
    config_yaml="seed: 1\nstage:\n  rounds: 2\n",
    finished="2025-11-23 13:20",
    target=Target("utility of at least 0.6", True),
    metrics=[UTILITY, ACCURACY, Metric(label="KL", before=0.0, after=9.02, unit="nats per response", digits=2, better=None)],
    rounds=[
        RoundResult(number=0, utility=Interval(0.34, 0.32, 0.36, 256), kl=0.0),
        RoundResult(
            number=1,
            collected=400,
            remaining=371,
            accuracy=proportion_interval(301, 400),
            ceiling=0.87,
            utility=Interval(0.6, 0.5, 0.7, 256),
        ),
        RoundResult(number=2, collected=400, remaining=382, accuracy=proportion_interval(334, 400), ceiling=0.87, score=1.25, kl=9.02),
    ],
    curves=[Curve("Score", "update", "", [Series("score", [1, 2, 3], [0.1, 0.2, 0.4])])],
    samples=[
        Sample(prompt=EVIL, before="Max was sad. He cried.", after="Max was happy. He cried.", score_before=-0.3, score_after=1.2),
        Sample(prompt="p", before=EVIL, after="x\ud800\x00y"),
    ],
    feedback=[FeedbackCount("rating", 480, 455, "17 duplicates"), FeedbackCount("edit", 0, 0)],
    seconds=[StageTime("PPO", 141.7), StageTime("evaluation", 8.4)],
    notes=["3 updates were left out."],
    versions={"torch": "2.13"},
)
BARE = Report(title="A reward model", command=["train"], seed=0)


class Outline(HTMLParser):
    """What a browser would find: tags, attributes and the text by section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> set[str]:
        return {value for name, value in self.attributes if name == "id" and not value.endswith("-title")}


def report_of(text: str) -> Report:
    return pydantic.TypeAdapter(Report).validate_python(json.loads(text))


def printed(report: Report, path: Path | None = None) -> str:
    file = io.StringIO()
    print_report(report, path, Console(file=file))
    return file.getvalue()


@pytest.mark.parametrize("report", [FULL, BARE])
def test_json_gives_the_same_report(report: Report) -> None:
    text = report.to_json()
    assert text.isascii()
    assert report_of(text) == report
    assert report_of(text).to_json() == report_of(report_of(text).to_json()).to_json()


def test_json_is_strict_and_keeps_what_is_not_finite() -> None:
    metric = Metric(label="f", before=math.nan, after=Interval(1.0, -math.inf, math.inf, 1))
    numbers = [np.float32(0.5), math.inf]
    text = dataclasses.replace(BARE, metrics=[metric], curves=[Curve("c", "update", "", [Series("s", [1, 2], numbers)])]).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = report_of(text)
    assert isinstance(again.metrics[0].before, float)
    assert math.isnan(again.metrics[0].before)
    assert again.metrics[0].after == metric.after
    assert again.curves[0].series[0].ys == [0.5, math.inf]


def test_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    path = write_page(FULL, tmp_path / "new" / "report.html")
    html = path.read_text(encoding="utf-8")
    outline = Outline(html)
    assert not {"script", "img", "link", "iframe", "object", "embed", "form", "base"} & set(outline.tags)
    names = {name for name, _ in outline.attributes}
    assert not {name for name in names if name.startswith("on")} | {"src", "srcset", "style"} & names
    assert all(value.startswith("#") for name, value in outline.attributes if name.endswith("href"))
    assert not re.search(r"url\(|@import", html)
    assert EVIL.replace("\x1b", "␛") in outline.text
    assert "x?␀y" in outline.text
    assert outline.tags.count("html") == outline.tags.count("body") == outline.tags.count("h1") == 1
    assert report_of((tmp_path / "new" / "report.json").read_text()) == FULL
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json"]


def test_policy_lets_in_the_one_style_and_nothing_else() -> None:
    html = page(FULL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_parts_show_where_they_hold_something() -> None:
    parts = {"metrics", "notes", "rounds", "curves", "samples", "feedback", "time", "how"}
    assert Outline(page(FULL)).ids() == parts
    assert Outline(page(BARE)).ids() == {"how"}
    assert Outline(page(dataclasses.replace(BARE, command=[]))).ids() == set()
    anchors = {value.removeprefix("#") for name, value in Outline(page(FULL)).attributes if name == "href"}
    assert anchors == parts
    for field, part in [
        ("metrics", "metrics"),
        ("rounds", "rounds"),
        ("curves", "curves"),
        ("samples", "samples"),
        ("seconds", "time"),
    ]:
        assert Outline(page(dataclasses.replace(FULL, **{field: []}))).ids() == parts - {part}


def test_page_says_the_metrics() -> None:
    text = Outline(page(FULL)).text
    for said in (
        "0.341",
        "0.644",
        "+0.303",
        "0.283 to 0.323",
        "better",
        "83.5 %",
        "Ceiling 87.2 %",
        "9.02",
        "2 min 30 s",
        "Target met",
    ):
        assert said in text
    assert "python train.py 'run_name=my run'" in text
    worse = dataclasses.replace(UTILITY, change=Interval(-0.3, -0.4, -0.2, 9))
    unclear = dataclasses.replace(UTILITY, change=Interval(0.1, -0.1, 0.3, 9))
    assert (worse.verdict, unclear.verdict, ACCURACY.verdict) == ("worse", "no clear change", "")
    assert dataclasses.replace(worse, better="lower").verdict == "better"


def test_tables_and_plots_are_named_for_those_who_cannot_see() -> None:
    outline = Outline(page(FULL))
    assert outline.tags.count("table") == outline.tags.count("caption") == 5
    labels = [value for name, value in outline.attributes if name == "aria-label"]
    assert any(label.startswith("Score by update. score: 0.1 at 1, 0.4 at 3;") for label in labels)
    assert ("lang", "en") in outline.attributes


def test_page_survives_a_run_that_diverged() -> None:
    wild = Metric(label="w", before=math.nan, after=Interval(math.nan, math.nan, math.nan, 3), change=math.inf, unit="%")
    curve = Curve("c", "update", "", [Series("s", [1, 2], [math.nan, 1e300])])
    text = Outline(page(dataclasses.replace(BARE, metrics=[wild], curves=[curve], seconds=[StageTime("PPO", 0.0)]))).text
    assert "not finite" in text
    assert "2 of 2 values are not finite" in text
    assert "not finite" in printed(dataclasses.replace(BARE, metrics=[wild]))


def test_rounds_become_curves_where_two_measured() -> None:
    utility, accuracy, kl = curves_of_rounds(FULL.rounds)
    assert utility.series[0] == Series("after the round", [0.0, 1.0], [0.34, 0.6], [0.32, 0.5], [0.36, 0.7])
    assert (accuracy.unit, accuracy.levels[0].at) == ("%", 0.87)
    assert kl.series[0].ys == [0.0, 9.02]
    assert kl.series[0].lows == []
    moving = [dataclasses.replace(result, ceiling=0.8 + 0.01 * result.number) for result in FULL.rounds]
    assert [series.label for series in curves_of_rounds(moving)[1].series] == ["after the round", "ceiling"]
    assert curves_of_rounds(FULL.rounds[:1]) == []


def test_changed_words_are_marked_and_nothing_is_lost() -> None:
    before, after, compared = mark_changes("Max was <sad>. He cried.", "Max was happy. He\ncried a lot.")
    assert compared
    assert before == "Max was <del>&lt;sad&gt;.</del> He <del>cried.</del>"
    assert after == "Max was <ins>happy.</ins> He\n<ins>cried a lot.</ins>"
    for texts in [
        ("", ""),
        ("  a\n\nb ", "b  c\t"),
        ("犬は好き", "猫は好き"),
        ("one two", "three four"),
        ("a " * 3001, "a " * 3000),
    ]:
        went, came, _ = mark_changes(*texts)
        assert (Outline(went).text, Outline(came).text) == texts
    assert mark_changes("犬は好き", "猫は好き")[1] == "<ins>猫</ins>は好き"
    assert mark_changes("one two", "three four") == ("one two", "three four", False)


def test_terminal_table_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    later = dataclasses.replace(FULL, seconds=[StageTime("PPO", 999.9)])
    first, second = printed(FULL), printed(later)
    assert first == printed(FULL)
    assert first != second
    assert first.split("seconds")[0].rstrip() == second.split("seconds")[0].rstrip()
    assert "\x1b" not in first
    assert max(map(len, first.splitlines())) <= 100
    narrow = io.StringIO()
    print_report(FULL, console=Console(file=narrow, force_terminal=True, color_system=None, width=50))
    assert {"0.341", "0.365]", "0.303", "0.323]", "256"} <= set(re.findall(r"[\d.]+\]?", narrow.getvalue()))
    for said in (
        "0.341 [0.317, 0.365]",
        "0.644 [0.621, 0.667]",
        "+0.303 [0.283, 0.323]",
        "83.5 % [79.5, 86.8]",
        "87.2 %",
        "9.02",
        "95 %",
    ):
        assert said in first
    for said in ("Target met: utility of at least 0.6", "Note: 3 updates were left out.", "141.7", "150.1"):
        assert said in first
    path = tmp_path / ("deep" * 30) / "report.html"
    assert printed(FULL, path).splitlines()[-1] == f"Report: {path}"


def test_terminal_prints_labels_as_they_are() -> None:
    text = printed(dataclasses.replace(BARE, metrics=[Metric(label="[bold]x[/bold]\x1b[2J", after=1.0)], notes=["[red]a"]))
    assert "[bold]x[/bold]" in text
    assert "[red]a" in text
    assert "\x1b" not in text
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_report(dataclasses.replace(FULL, notes=["è"]), console=Console(file=file))
    file.flush()
    assert b"Note: ?" in file.buffer.getvalue()  # type: ignore[attr-defined]


def test_numbers_and_durations_read_well() -> None:
    share = Metric(label="s", before=0.701, after=0.835, unit="%")
    assert (formatting.number(share, share.after), formatting.change(share), formatting.bounds(share, 0.8)) == (
        "83.5 %",
        "+13.4 points",
        "",
    )
    assert formatting.decimal(-0.0004, 3) == "0.000"
    assert formatting.change(Metric(label="z", before=1.0, after=1.0)) == "0.000"
    assert formatting.change(Metric(label="z", after=1.0)) == "-"
    assert formatting.bounds(UTILITY, Interval(1.0, -math.inf, math.inf, 1)) == ""
    said = [formatting.duration(s) for s in (0.421, 9.996, 59.94, 59.96, 252.3, 3599.6, 3780, 360000)]
    assert said == ["0.42 s", "10.0 s", "59.9 s", "1 min 00 s", "4 min 12 s", "1 h 00 min", "1 h 03 min", "100 h 00 min"]


def test_a_change_is_the_difference_where_none_is_given() -> None:
    assert Metric(label="f", before=Interval(1.0, 0.0, 2.0, 3), after=4.0).difference == 3.0
    assert Metric(label="f", after=4.0).difference is None
    change = paired_interval([1.0, 2.0, 3.0], [2.0, 3.0, 5.0])
    assert Metric(label="f", before=2.0, after=3.0, change=change).difference == change
