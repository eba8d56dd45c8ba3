"""A journal of answers: what was added is there after any end of the process."""

from __future__ import annotations

import os

import pytest

from rlhf_lightning.checkpoint.journal import Journal
from rlhf_lightning.errors import DataError


def test_a_torn_line_is_skipped_and_ended(tmp_path):
    path = tmp_path / "folder" / "answers.jsonl"
    journal = Journal(path)
    journal.add("a", {"x": 1})
    journal.add("b", None)
    with path.open("a") as file:
        file.write('{"key": "c", "val')
    resumed = Journal(path)
    assert ("a" in resumed, resumed["a"], resumed["b"], "c" in resumed) == (True, {"x": 1}, None, False)
    resumed.add("c", [2])
    assert Journal(path)["c"] == [2]


def test_a_killed_process_keeps_what_it_added(tmp_path):
    path = tmp_path / "answers.jsonl"
    child = os.fork()
    if child == 0:
        journal = Journal(path)
        for i in range(100):
            journal.add(str(i), i)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert [Journal(path)[str(i)] for i in range(100)] == list(range(100))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        Journal(tmp_path / "rows.jsonl")
