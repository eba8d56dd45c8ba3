"""Text of data is shown literally: as a function, and through whole stages whose every field is hostile."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from rlhf_lightning.config.display import (
    SafeRecord,
    csv_cell,
    literal,
    markdown,
    markdown_code,
    message,
    missing_secret,
    safe_message,
    visible,
    without_secret,
    without_secrets,
)

HOSTILE = [
    "[/b]", "[bold]x[/bold]", "[/", "[link=https://evil.example]x[/link]", ":smiley:", "[red",  # rich
    "\x1b[31mred", "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07", "\x1b]0;title\x07", "\x9b31m", "\x90q\x9c", "a\rb", "a\x08b", "\x7f",
    "a\u202eb", "\u2066x\u2069", "\u200fx", "a\u2028b", "x\ud800y",  # direction, separators, surrogates
    "=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", " =1", "=HYPERLINK(\"https://evil.example\")", "\uff1d1",  # spreadsheets
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</title><b>", "\"'><svg/onload=1>", "&lt;b&gt;", "{{7*7}}{% raw %}",
    "[x](javascript:alert(1))", "![x](https://evil.example/x.png)", "<https://evil.example>", "https://evil.example", "me@evil.example",
    "# heading", "---\nlicense: mit\n---", "| a | b |", "a|b", "\\|<b>", "`", "``x```", "`|`", "\\`|<i>", "[x]: https://evil.example",
    "***", "x\nerror: forged", "\n\n<b>",
]  # fmt: skip
IN_DATA = [text for text in HOSTILE if "\ud800" not in text]
"""Rows with lone surrogates are rejected as they are read."""
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names += [tag, *(name for name, _ in attrs)]
        assert not any("evil" in (value or "") for name, value in attrs if name in ("href", "src"))


def cells_of(line: str) -> list[str]:
    """The cells of a table's row by the rule of GitHub's Markdown: a pipe behind an escaping backslash splits nothing."""
    return re.sub(r"\\[!-/:-@\[-`{-~]", "..", line).strip().strip("|").split("|")


def uncoded(markdown_text: str) -> str:
    """What is outside of code spans, by CommonMark: a run of backticks closes at the next run of the same length."""
    out, rest = "", markdown_text
    while (start := re.search(r"(?<!\\)`+", rest)) is not None:
        end = re.compile(rf"(?<!`){start[0]}(?!`)").search(rest, start.end())
        if end is None:
            return out + rest
        out, rest = out + rest[: start.start()] + "C", rest[end.end() :]
    return out + rest


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_does_nothing(text):
    assert not ACTS.search(visible(text))
    assert "\nerror" not in message(text)
    console = Console(width=200, record=True, file=io.StringIO(), force_terminal=True)
    console.print(literal(text, console), soft_wrap=True)
    assert console.export_text().rstrip("\n") == visible(text).expandtabs().rstrip("\n")
    for write in (markdown, markdown_code):
        written = write(text)
        assert "\n" not in written
        assert len(cells_of(f"| {written} |")) == 1
        assert re.fullmatch(r"[A-Za-z0-9 _/,%+C\\|-]*", uncoded(written)), uncoded(written)
    cell = csv_cell(text)
    assert cell[0] not in "=+-@\t\r\n\uff1d"
    assert cell.endswith(text)


def test_a_plain_text_stays():
    for text in ("accuracy/all", "bradley_terry", "95 % of it, or more", "a", "Ärger über Öl"):
        assert visible(text) == csv_cell(text) == text
    assert markdown("accuracy/all") == "accuracy/all"
    assert markdown_code("gpt2") == "`gpt2`"
    assert markdown("x" * 1000) == "x" * 299 + "…" or len(markdown("x" * 1000)) < 310


@pytest.mark.parametrize("number", [-1, 0.5, None, "-1", "+0.5", "-1e-4", "-inf", ""])
def test_a_number_in_a_csv_file_stays_one(number):
    assert csv_cell(number) == number


def test_a_console_of_another_encoding_takes_every_text():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=out)
    console.print(literal("ä \u2603 \ud800", console))
    out.flush()
    assert out.buffer.getvalue().decode() == "? ? ?\n"


def pairs(file: Path) -> Path:
    rows = [
        {
            "prompt": f"{text} {i}", "chosen": f"{text} good end", "rejected": f"bad {text}", "annotator": text, "model_a": text,
            "source": text,
        }
        for i, text in enumerate(IN_DATA)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def check_outputs(outcome) -> None:
    """Nothing printed or written acts."""
    assert outcome.code == 0, outcome.error
    progress = re.sub("\r[^\r\n]*it/s\\]", "", outcome.error)  # bars of transformers
    assert not ACTS.search(outcome.out + progress)
    assert "\nerror: forged" not in outcome.out
    for page in outcome.folder.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not ACTS.search(html)
        assert not {"script", "img", "svg/onload", "onerror", "i", "link"} & set(Tags(html).names)
    for file in outcome.folder.rglob("*.csv"):
        with file.open(newline="", encoding="utf-8") as handle:
            for row in csv.reader(handle):
                assert all(csv_cell(cell) == cell for cell in row), row


@pytest.mark.parametrize("head", ["features", "linear"])
def test_a_reward_model_of_hostile_texts(command, tmp_path, head):
    file = pairs(tmp_path / "pairs.jsonl")
    words = ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]", "feedback_filter=[]"]
    if head == "features":
        words += ["reward_head=features", "reward_feature=[ngrams,character_ngrams]", "reward_feature.character_ngrams.orders=[2,3]"]
    tiny = ["backbone=tiny", "backbone.layers=1", "backbone.width=16", "backbone.heads=2", "backbone.vocabulary=300", "reward.epochs=1"]
    outcome = command("stage=reward", *words, *tiny)
    check_outputs(outcome)
    if head == "linear":
        card = (outcome.folder / "reward_model" / "README.md").read_text(encoding="utf-8")
        assert card.count("---\n") == 2
        assert [line for line in card.splitlines() if line.startswith("#")] == [
            "# A reward model", "## How to load it", "## Training data", "## Metrics on held-out feedback", "## Limits",
            "## Licence",
        ]  # fmt: skip
        assert not re.search(r"<|\]\(|evil", uncoded(card))


def test_feedback_of_hostile_annotators_is_inspected(command, tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"p{i}", "chosen": f"{i} good", "rejected": f"{i} bad", "annotator": who}
        for i in range(12)
        for who in ("[/b]", "\x1b[31mx", "<b>\u202e", "=1+1")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]", "feedback_filter=[]"]
    outcome = command("stage=inspect", *words)
    check_outputs(outcome)
    for shown in ("[/b]", "␛[31mx", "\\u202e"):
        assert shown in outcome.out


def test_samples_of_hostile_prompts(command, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{text}{i}", "response": text}) + "\n" for i, text in enumerate(IN_DATA)))
    tiny = ["backbone=tiny", "backbone.layers=1", "backbone.width=16", "backbone.heads=2", "backbone.vocabulary=300", "sft.epochs=1"]
    words = [f"task.prompts={file}", f"task.demonstrations={file}", "rollout_sampler.max_new_tokens=4", "evaluation.samples=12"]
    outcome = command("stage=sft", "task=files", *words, *tiny, "logger=csv")
    check_outputs(outcome)
    outcome = command("stage=evaluate", "task=files", *words, "backbone=causal", f"backbone.path={outcome.folder / 'policy'}", "logger=csv")
    check_outputs(outcome)
    assert (outcome.folder / "logs" / "samples.csv").is_file()


@pytest.mark.parametrize("text", ["[/b]", "\x1b]0;t\x07", "\u202e", "x\nerror: forged"])
def test_a_message_of_a_hostile_row(command, tmp_path, text):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": text, "chosen": text, "rejected": text, text: 1, "margin": text}) + "\n")
    outcome = command("stage=inspect", "feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]")
    assert outcome.code == 2
    assert not ACTS.search(outcome.error)
    assert "\nerror: forged" not in outcome.error


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("rollout_scorer.api_key=abc", "rollout_scorer.api_key=***"),
        ("+logger.WANDB_API_KEY=a=b", "+logger.WANDB_API_KEY=***"),
        ("scorer.hf_token=abc", "scorer.hf_token=***"),
        ("scorer.password=abc", "scorer.password=***"),
        ("feedback_source.path=https://host/f?token=abc", "feedback_source.path=https://host/f?token=***"),
        ("rollout_sampler.max_new_tokens=8", "rollout_sampler.max_new_tokens=8"),
        ("ppo.updates=3", "ppo.updates=3"),
        ("scorer.api_key=${oc.env:KEY}", "scorer.api_key=${oc.env:KEY}"),
        ("scorer.api_key=null", "scorer.api_key=null"),
        ("scorer.url=https://me:abc@host/x", "scorer.url=https://me:***@host/x"),
        ("scorer.url=https://host:8000/x", "scorer.url=https://host:8000/x"),
        ("-m", "-m"),
        ("redis://:abc@host:6379/0", "redis://:***@host:6379/0"),
        ("hydra.sweeper.storage=postgresql+psycopg2://u:a@b%c@db:5432/x", "hydra.sweeper.storage=postgresql+psycopg2://u:***@db:5432/x"),
        ("https://abcdefghij0123456789@host/x", "https://***@host/x"),
        ("hydra.sweeper.storage=sqlite:///runs/a@b/study.db", "hydra.sweeper.storage=sqlite:///runs/a@b/study.db"),
        ("hub.path=https://host:8000/x@main", "hub.path=https://host:8000/x@main"),
        ("judge --api-key abc --n 3", "judge --api-key *** --n 3"),
        ("rollout_scorer.command='judge --token=abc -n 3'", "rollout_scorer.command='judge --token=*** -n 3'"),
        ("rollout_scorer.command=[judge,--api-key,abc,-n,3]", "rollout_scorer.command=[judge,--api-key,***,-n,3]"),
        ("judge --api-key --verbose", "judge --api-key --verbose"),
        ("x=hf_aBcDeFgHiJ0123", "x=hf_***"),
        ("backbone.path=models/hf_llama-7b", "backbone.path=models/hf_llama-7b"),
        ("x=sk-proj-aBcDeFgHiJ0123", "x=sk-***"),
        ("backbone.path=task-sk-learn", "backbone.path=task-sk-learn"),
        ("x=ghp_aBcDeFgHiJ0123456789", "x=ghp_***"),
        ("x=AKIAIOSFODNN7EXAMPLE", "x=AKIA***"),
        ("x=eyJhbGciOiJI.eyJzdWIiOiI.abc", "x=eyJ***"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ('{"api_key": "abc", "n": 3}', '{"api_key": "***", "n": 3}'),
        ("the pad token: x", "the pad token: x"),
    ],
)
def test_a_word(word, written):
    assert without_secret(word) == written


def test_a_configuration():
    config = OmegaConf.create(
        {"scorer": {"api_key": "abc", "hf_token": "${oc.env:HF_TOKEN}", "deep": {"password": "x"}}, "max_new_tokens": 8, "keys": ["a"]}
    )
    assert without_secrets(config) == {
        "scorer": {"api_key": "***", "hf_token": "${oc.env:HF_TOKEN}", "deep": {"password": "***"}}, "max_new_tokens": 8, "keys": ["a"],
    }  # fmt: skip


def test_overrides_in_a_list_are_words_of_a_command():
    assert without_secrets(["seed=1", "+scorer.api_key=abc"]) == ["seed=1", "+scorer.api_key=***"]


def test_the_value_behind_a_flag_is_left_out():
    assert without_secrets(["--api-key", "abc", "-n", "3", "--token", "-m"]) == ["--api-key", "***", "-n", "3", "--token", "-m"]


def test_a_message_holds_no_secret_of_the_environment_or_the_command(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "hunter2hunter2")
    monkeypatch.setenv("SHORT_KEY", "a")
    words = ["scorer.api_key=swordfish1", "--token", "open-sesame", "hydra.sweeper.storage=mysql://u:p4ssw0rdX@db/x", "seed=1"]
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    text = "a hunter2hunter2 b swordfish1 c open-sesame d p4ssw0rdX e\nsk-aBcDeFgHiJ0123"
    assert safe_message(text) == "a *** b *** c *** d *** e\n  sk-***"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"scorer": {"api_key": "abc"}}, "scorer.api_key"),
        ({"scorer": {"url": "https://me:abc@host"}}, "scorer.url"),
        ({"source": {"path": "https://host/f?token=abc"}}, "source.path"),
        ({"scorer": {"api_key": "${oc.env:KEY}", "url": None}}, None),
        ({"store": "redis://:abc@host"}, "store"),
        ({"scorer": {"command": "judge --api-key abc"}}, "scorer.command"),
        ({"scorer": {"command": ["judge", "--api-key", "abc"]}}, "scorer.command"),
        ({"x": "sk-proj-aBcDeFgHiJ0123"}, "x"),
        ({"x": ["Bearer abcdef"]}, "x"),
        ({"x": '{"api_key": "abc"}'}, "x"),
        ({"task": {"prefix": "*** ", "separator": "***"}, "seed": 1}, None),
    ],
)
def test_what_was_left_out_is_missed(content, place):
    assert missing_secret(without_secrets(content)) == place


def test_a_log_record_holds_no_secret_and_no_control_character():
    record = SafeRecord("x", logging.INFO, "file", 1, "#0 : %s \x1b[31m", ("scorer.api_key=abc",), None)
    assert record.getMessage() == "#0 : scorer.api_key=*** ␛[31m"
