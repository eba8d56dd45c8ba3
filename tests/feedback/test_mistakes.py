"""Mistakes of users: one short message that names the file and the setting to change, or what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.registry import make

N = 12
PROMPTS = [f"What is thing {i}?" for i in range(N)]
MAX_LINES = 6


def table(*columns: str, delimiter: str = ",", encoding: str = "utf-8", **values: Any) -> bytes:
    """A table with these columns: a value or a function of the row."""
    names = columns or ("prompt", "response", "rating")
    cells = {"prompt": lambda i: PROMPTS[i], "response": lambda i: f"It is thing {i}.", "rating": lambda i: 1 + i % 5} | values
    rows = [[str(cells[name](i) if callable(cells[name]) else cells[name]) for name in names] for i in range(N)]
    return "".join(delimiter.join(row) + "\n" for row in [list(names), *rows]).encode(encoding)


def rows(**fields: Any) -> bytes:
    """JSON Lines with a prompt and these fields; None leaves the prompt out."""
    return "".join(json.dumps({"prompt": PROMPTS[i]} | fields) + "\n" for i in range(N)).encode()


PAIR = {"chosen": "good text", "rejected": "bad text"}
RATED = {"response": "a text", "rating": 3}
RATING = ("rating", {"scale": (1, 5)})
CSV: dict[str, Any] = {"numbers": ("rating",)}
Mistake = tuple[str, dict[str, Any], bytes, tuple[str, dict[str, Any]], str]
MISTAKES: dict[str, Mistake] = {
    "numbers not declared": ("csv", {}, table(), RATING, "feedback_source.csv.numbers"),
    "semicolons": ("csv", CSV, table(delimiter=";"), RATING, "prompt;response;rating"),
    "tabs": ("csv", CSV, table(delimiter="\t"), RATING, "numbers"),
    "decimal commas": ("csv", CSV | {"delimiter": ";"}, table(delimiter=";", rating="3,5"), RATING, "feedback_source.csv.decimal"),
    "Latin letters": ("csv", CSV, table(response="é", encoding="cp1252"), RATING, "feedback_source.csv.encoding=cp1252"),
    "UTF-16": ("csv", CSV, table(encoding="utf-16"), RATING, "feedback_source.csv.encoding=utf-16"),
    "the wrong encoding": ("csv", CSV | {"encoding": "utf-16"}, table(response="éé"), RATING, "feedback_source.csv.encoding"),
    "a column twice": ("csv", {}, table("prompt", "response", "rating", "rating"), RATING, "rename one"),
    "a column without a name": ("csv", {}, table().replace(b"response", b"", 1), RATING, "column 2"),
    "an open quote": ("csv", CSV, table(response='"It is'), RATING, "quote"),
    "text after a quote": ("csv", CSV, table(response='"It" is'), RATING, "feedback_source.csv.delimiter"),
    "a cell too few": ("csv", CSV, table().replace(b",3\n", b"\n"), RATING, "2 cells"),
    "a cell too many": ("csv", CSV, table(response="Well, it is."), RATING, "4 cells"),
    "words as ratings": ("csv", CSV, table(rating="good"), RATING, "rating must be a number"),
    "a fraction of stars": ("csv", CSV, table(rating="4/5"), RATING, "rating must be a number"),
    "other column names": ("csv", {}, table("prompt", "response", "stars", stars=3), RATING, "stars"),
    "a column that isn't there": ("csv", {"numbers": ("stars",)}, table(), RATING, "feedback_source.csv"),
    "yes for true": ("csv", {"booleans": ("label",)}, table("prompt", "response", "label", label="yes"), ("thumbs", {}), "true or false"),
    "labels in words": ("csv", {}, table("prompt", "response", "label", label="up"), ("thumbs", {}), "feedback_format.thumbs.up"),
    "true as text": ("csv", {}, table("prompt", "response", "label", label="true"), ("thumbs", {}), "feedback_format.thumbs.up"),
    "a date of a spreadsheet": (
        "csv", CSV, table("prompt", "response", "rating", "time", time="31.01.2025 12:00"), RATING, "time must be a time"),
    "a list that isn't one": ("csv", {"lists": ("response",)}, table(), RATING, "JSON list"),
    "a header alone": ("csv", {}, b"prompt,response,rating\n", RATING, "feedback_source.csv.path"),
    "an empty file": ("csv", {}, b"", RATING, "feedback_source.csv.path"),
    "a column in two lists": ("csv", {"numbers": ("rating",), "lists": ("rating",)}, table(), RATING, "feedback_source.csv"),
    "a quote as delimiter": ("csv", {"delimiter": '"'}, table(), RATING, "feedback_source.csv.delimiter"),
    "a workbook as CSV": ("csv", {}, b"PK\x03\x04rest", RATING, "feedback_source=xlsx"),
    "CSV as a workbook": ("xlsx", {}, table(), RATING, "feedback_source=csv"),
    "a workbook as JSON Lines": ("jsonl", {}, b"PK\x03\x04rest", RATING, "feedback_source=xlsx"),
    "CSV as JSON Lines": ("jsonl", {}, table(), RATING, "feedback_source=csv"),
    "an array as JSON Lines": ("jsonl", {}, json.dumps([PAIR]).encode(), ("pairwise", {}), "feedback_source=json"),
    "JSON Lines as an array": ("json", {}, rows(**PAIR), ("pairwise", {}), "feedback_source=jsonl"),
    "an array in an object": ("json", {}, json.dumps({"data": [PAIR]}).encode(), ("pairwise", {}), "taken out"),
    "Parquet as JSON Lines": ("jsonl", {}, b"PAR1rest", RATING, "feedback_source=hub"),
    "Python's quotes": ("jsonl", {}, b"{'prompt': 'a'}\n", RATING, "not JSON"),
    "a cut line": ("jsonl", {}, rows(**PAIR)[:-20], ("pairwise", {}), "not JSON"),
    "a number that is none": ("jsonl", {}, b'{"prompt": "a", "response": "b", "rating": NaN}\n', RATING, "rating"),
    "a key twice": ("jsonl", {}, b'{"prompt": "a", "prompt": "b"}\n', RATING, "twice"),
    "a field of another name": ("jsonl", {}, rows(better="a text", worse="b text"), ("pairwise", {}), "better"),
    "half of a pair": ("jsonl", {}, rows(chosen="a text"), ("pairwise", {}), "rejected"),
    "a mistyped field": ("jsonl", {}, rows(promt="x", **PAIR), ("pairwise", {}), "ignore_fields"),
    "a mistyped setting's field": ("jsonl", {}, rows(**PAIR), ("pairwise", {"chosen": "choosen"}), "did you mean 'choosen'"),
    "the wrong format": ("jsonl", {}, rows(**PAIR), RATING, "feedback_format"),
    "an empty response": ("jsonl", {}, rows(chosen="a text", rejected=""), ("pairwise", {}), "rejected is empty"),
    "a prompt that is null": ("jsonl", {}, rows(prompt=None, **PAIR), ("pairwise", {}), "prompt is null"),
    "a system message beside": ("jsonl", {}, rows(system="Be brief.", **PAIR), ("pairwise", {}), "system"),
    "no scale": ("jsonl", {}, rows(**RATED), ("rating", {}), "feedback_format.rating.scale=[LOWEST,HIGHEST]"),
    "a scale upside down": ("jsonl", {}, rows(**RATED), ("rating", {"scale": (5, 1)}), "feedback_format.rating.scale"),
    "a scale too short": ("jsonl", {}, rows(response="a text", rating=9), RATING, "off the scale 1 to 5"),
    "a number in quotes": ("jsonl", {}, rows(response="a text", rating="4"), RATING, "feedback_source.csv.numbers"),
    "true as a rating": ("jsonl", {}, rows(response="a text", rating=True), RATING, "rating must be a finite number"),
    "fewer places than responses": ("jsonl", {}, rows(responses=["a", "b"], ranking=[1]), ("ranking", {}), "1 places for 2"),
    "places in words": ("jsonl", {}, rows(responses=["a", "b"], ranking=["first", "second"]), ("ranking", {}), "ranking[0]"),
    "an unknown verdict": (
        "jsonl", {}, rows(response_1="a", response_2="b", verdict="left"), ("verdict", {}), "feedback_format.verdict.first_wins"),
    "an unknown label": ("jsonl", {}, rows(response="a text", label="+"), ("thumbs", {}), "feedback_format.thumbs.up"),
    "a margin below 0": ("jsonl", {}, rows(margin=-1, **PAIR), ("pairwise", {}), "margin"),
    "seconds below 0": ("jsonl", {}, rows(seconds=-1, **PAIR), ("pairwise", {}), "seconds"),
    "an unknown role": (
        "jsonl", {}, rows(messages=[{"role": "bot", "content": "x"}], rating=3), ("rating", {"messages": "messages", "scale": (1, 5)}),
        "role"),
    "a judged user": (
        "jsonl", {}, rows(messages=[{"role": "user", "content": "x", "rating": 3}]), ("dialogue", {"scale": (1, 5)}), "the user's"),
    "a rename of nothing": ("jsonl", {"rename": {"x": "y"}}, rows(**PAIR), ("pairwise", {}), "feedback_source.NAME.rename"),
    "an explode of nothing": ("jsonl", {"explode": ("answers",)}, rows(**PAIR), ("pairwise", {}), "answers"),
    "a file that isn't there": ("jsonl", {"path": "absent.jsonl"}, b"", ("pairwise", {}), "feedback_source.jsonl.path"),
    "a URL": ("jsonl", {"path": "https://example.org/a.jsonl"}, b"", ("pairwise", {}), "feedback_source.jsonl.path"),
}  # fmt: skip


def read(source: str, settings: dict[str, Any], form: str, format_settings: dict[str, Any]) -> None:
    rows_of = make("feedback_source", source, settings)
    read_feedback(rows_of(), [make("feedback_format", form, format_settings)])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_short_message_with_its_remedy(mistake: str, tmp_path: Path):
    source, settings, content, (form, format_settings), remedy = MISTAKES[mistake]
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(source, {"path": str(file), **settings}, form, format_settings)
    message = str(error.value)
    assert remedy in message
    assert len(message.splitlines()) <= MAX_LINES
    assert not any(word in message for word in ("OmegaConf", "pydantic", "Traceback", "object at 0x"))
