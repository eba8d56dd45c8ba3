"""The ledger: its lines, its errors, and rounds that are redone or dropped."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.rounds.ledger import FILE, Ledger, drop, read, redo, summary


@pytest.fixture
def folder(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.commit(0, "sft", training="sft")
    for number in (1, 2, 3):
        for step in ("sampled", "judged", "reward", "policy"):
            ledger.commit(number, step, judgements=10)
        (tmp_path / f"round_{number}").mkdir()
        (tmp_path / "checkpoints" / f"ppo_{number}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"reward_{number}_watching").mkdir()
    (tmp_path / "result.json").write_text("{}")
    return tmp_path


def test_a_finished_step_is_not_computed_again(folder):
    ledger, calls = Ledger(folder), []
    for step in ("policy", "evaluated", "evaluated"):
        ledger.do(3, step, lambda step=step: calls.append(step) or {"value": 1})
    assert calls == ["evaluated"]
    assert Ledger(folder).entry(3, "evaluated")["value"] == 1
    assert Ledger(folder).entry(3, "evaluated")["seconds"] >= 0


def test_a_redone_round_takes_the_later_ones_with_it(folder):
    assert redo(folder, 2) == [2, 3]
    ledger = Ledger(folder)
    assert [ledger.entry(number, "policy") is None for number in (1, 2, 3)] == [False, True, True]
    assert [ledger.attempt(number) for number in (1, 2, 3)] == [1, 2, 2]
    assert list(ledger.numbers(3)) == [1, 2, 3]
    names = {path.name for path in folder.iterdir()} | {path.name for path in (folder / "checkpoints").iterdir()}
    assert {"round_1", "round_2_before_1", "round_3_before_1", "ppo_1", "reward_1_watching"} <= names
    assert not {"round_2", "round_3", "result.json", "ppo_2", "reward_3_watching"} & names


def test_a_dropped_round_is_skipped_and_replaced(folder):
    drop(folder, 1)
    ledger = Ledger(folder)
    assert ledger.dropped_rounds == [1]
    assert list(ledger.numbers(2)) == [2, 3]
    assert (folder / "round_1").is_dir()
    assert [row["state"] for row in summary(read(folder))] == ["sft", "dropped", "to be redone", "to be redone"]


def test_no_such_round(folder):
    with pytest.raises(ConfigError, match="no round 7; there are: 1, 2, 3"):
        redo(folder, 7)


def test_a_broken_line_is_named(folder):
    with (folder / FILE).open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=rf"{FILE}:14: .*round"):
        read(folder)
