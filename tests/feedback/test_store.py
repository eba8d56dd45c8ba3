"""Feedback in a file: the same records, by index, slice and in a row; whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_lightning.feedback import store
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Feedback, Message, Thumbs


def records(count: int) -> list[Feedback]:
    # A carriage return and a line separator in a text must not end a line of the file.
    texts = [f"text {i} \r\n\u2028 \x85 schön 🙂" for i in range(count)]
    return [Feedback(prompt=(Message(role="user", content=t),), responses=(t,), judgement=Thumbs(up=True)) for t in texts]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_it_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(store, "READ_CHUNK", 3)
    given = records(count)
    kept = FeedbackFile.write(iter(given), tmp_path / "f.jsonl")
    assert (len(kept), list(kept), list(kept)) == (count, given, given)
    assert [kept[i] for i in range(-count, count)] == given + given
    assert kept[2:5] == given[2:5]
    with pytest.raises(IndexError):
        kept[count]


def test_the_file_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaking() -> Iterator[Feedback]:
        yield from records(3)
        raise RuntimeError("the rows end in an error")

    with pytest.raises(RuntimeError):
        FeedbackFile.write(breaking(), tmp_path / "f.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_kept_has_no_name(tmp_path: Path) -> None:
    kept = FeedbackFile.write(records(3), tmp_path / "f.jsonl", keep=False)
    assert list(tmp_path.iterdir()) == []
    assert list(kept) == records(3)
