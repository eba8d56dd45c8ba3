"""A record of any kind comes back as it went: through its own format, and through the file that keeps feedback."""

from __future__ import annotations

import json
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Comment, Edit, Feedback, Judgement, Message, Ranking, Rating, Skip, SpanLabel, Spans, Thumbs

KINDS = ("rating", "ranking", "edit", "thumbs", "spans", "comment", "skip")
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00") | st.sampled_from('"\\\r\n\u2028\u0085\ufeff🙂')
anything = st.text(letters, max_size=6)
texts = st.text(letters, min_size=1, max_size=12).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)
places = st.integers(0, 10**20)
zones = st.none() | st.just(UTC) | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=texts)
prompts = st.just("") | texts | st.lists(messages, min_size=1, max_size=3).map(tuple)


@st.composite
def stretches(draw: st.DrawFn, text: str) -> dict[str, int]:
    start = draw(st.integers(0, len(text) - 1))
    return {"start": start, "end": draw(st.integers(start + 1, len(text)))}


@st.composite
def judgements(draw: st.DrawFn, kind: str, responses: tuple[str, ...]) -> Judgement:
    if kind == "rating":
        low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers).filter(lambda ends: min(ends) < max(ends))))
        return Rating(value=value, scale=(low, high), aspect=draw(st.none() | anything), turn=draw(st.none() | places))
    if kind == "ranking":
        ranks = tuple(draw(st.none() | st.integers(-(10**20), 10**20)) for _ in responses)
        return Ranking(ranks=ranks, margin=draw(st.none() | numbers), all_bad=draw(st.booleans()))
    if kind == "spans":
        marks = draw(st.lists(stretches(responses[0]), max_size=3))
        labels = st.none() | anything
        return Spans(spans=tuple(SpanLabel(**mark, value=draw(st.floats(-1, 1)), label=draw(labels)) for mark in marks))
    if kind == "comment":
        return Comment(text=draw(anything), **(draw(stretches(responses[0])) if draw(st.booleans()) else {}))
    if kind == "skip":
        return Skip(reason=draw(st.none() | anything), flagged=draw(st.booleans()))
    return Edit() if kind == "edit" else Thumbs(up=draw(st.booleans()))


@st.composite
def records(draw: st.DrawFn) -> Feedback:
    kind = draw(st.sampled_from(KINDS))
    count = {"ranking": draw(st.integers(2, 4)), "skip": draw(st.integers(1, 4)), "edit": 2}.get(kind, 1)
    responses = tuple(draw(texts) for _ in range(count))
    names = st.none() | anything

    def for_each(of: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | st.tuples(*[of] * count))

    return Feedback(
        prompt=draw(prompts),
        responses=responses,
        judgement=draw(judgements(kind, responses)),
        models=for_each(names),
        positions=for_each(st.integers(-5, 5)),
        annotator=draw(names),
        time=draw(st.none() | st.datetimes(timezones=zones)),
        seconds=draw(st.none() | st.floats(0, 1e300)),
        weight=draw(st.floats(0, 1e300)),
        selected_by=draw(names),
        source=draw(names),
        origin=draw(names),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(records(), min_size=1, max_size=5), st.booleans())
def test_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, given_records: list[Feedback], escaped: bool) -> None:
    """Equal as records and as lines; time zones too, which equal times may differ in. Letters may stand as \\u escapes."""
    lines = [record.model_dump_json() for record in given_records]
    file = tmp_path_factory.getbasetemp() / "records.jsonl"
    file.write_text("\n".join(json.dumps(json.loads(line)) if escaped else line for line in lines), encoding="utf-8", newline="")
    back = read_feedback(jsonl(path=str(file)), [RecordFormat()]).feedback
    assert back == given_records
    assert [record.model_dump_json() for record in back] == lines


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=5))
def test_nothing_is_lost_in_the_store(tmp_path_factory: pytest.TempPathFactory, given_records: list[Feedback]) -> None:
    kept = FeedbackFile.write(given_records, tmp_path_factory.getbasetemp() / "kept.jsonl")
    assert list(kept) == given_records
    assert [kept[i] for i in range(len(kept))] == given_records
    assert [record.model_dump_json() for record in kept] == [record.model_dump_json() for record in given_records]


def test_the_file_of_the_store_is_read_by_the_records_format(tmp_path: Path) -> None:
    chat = (Message(role="system", content="Be short."), Message(role="user", content="Hi"))
    record = Feedback(prompt=chat, responses=("x\ny",), judgement=Spans(spans=(SpanLabel(start=1, end=3, value=-1),)), origin="a:1")
    FeedbackFile.write([record, record], tmp_path / "kept.jsonl")
    assert read_feedback(jsonl(path=str(tmp_path / "kept.jsonl")), [RecordFormat()]).feedback == [record, record]
