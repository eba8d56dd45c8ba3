"""At any instant of a save the newest whole checkpoint can be read; what isn't whole is never used, and never passed over in silence."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.checkpoint.manifest import Checkpoint, read, verify
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.errors import ConfigError, DataError, UserError

CALLS = {os: ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "scandir"), io: ("open",)}
"""Everything by which a save touches the disk."""


def writing(step: int) -> Callable[[Path], None]:
    """A checkpoint of two files, one in a folder, whose content says the step."""

    def write(folder: Path) -> None:
        (folder / "weights").write_bytes(bytes([step]) * 5000)
        (folder / "shards").mkdir()
        (folder / "shards" / "0").write_text(f"shard of {step}")

    return write


def content(checkpoint: Checkpoint | None) -> int:
    """The step that both files of a checkpoint say."""
    assert checkpoint is not None
    weights = (checkpoint.folder / "weights").read_bytes()
    assert weights == bytes([checkpoint.step]) * 5000
    assert (checkpoint.folder / "shards" / "0").read_text() == f"shard of {checkpoint.step}"
    return checkpoint.step


def store_of(folder: Path, *steps: int, keep: int = 2, log: Callable[[str], None] = print) -> CheckpointStore:
    store = CheckpointStore(folder, keep, log)
    store.prepare()
    for step in steps:
        store.save(step, writing(step))
    return store


def folders(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.is_dir())


def dies_before(call: int, work: Callable[[], None]) -> bool:
    """Run `work` in a process that ends at once before its n-th call that touches the disk; whether it got that far."""
    child = os.fork()
    if child == 0:
        made = 0

        def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def touch(*args: Any, **kwargs: Any) -> Any:
                nonlocal made
                made += 1
                if made == call:
                    os._exit(9)
                return real(*args, **kwargs)

            return touch

        for module, names in CALLS.items():
            for name in names:
                setattr(module, name, counted(name, getattr(module, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("keep", [1, 2])
def test_killed_at_any_touch_of_the_disk_the_newest_whole_one_is_found(tmp_path, keep):
    """Opening, before each fsync, before and after each rename, before the index, within the pruning."""
    call, found = 0, []
    while True:
        call += 1
        folder = tmp_path / str(call)
        store = store_of(folder, 1, 2, keep=keep)
        died = dies_before(call, lambda store=store: store.save(3, writing(3)))  # type: ignore[misc]
        again = CheckpointStore(folder, keep)
        again.prepare()
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing is left after the next start"
        found.append(content(again.newest()))
        again.save(4, writing(4))
        assert content(again.newest()) == 4
        assert len(folders(again)) == keep
        if not died:
            break
    assert call > 20
    assert found == sorted(found)
    assert set(found) == {2, 3}


def test_killed_in_the_middle_of_a_write_the_one_before_is_found(tmp_path):
    def torn(folder: Path) -> None:
        with (folder / "weights").open("wb") as file:
            file.write(b"half")
            file.flush()
            os._exit(9)

    store = store_of(tmp_path, 1, keep=1)
    child = os.fork()
    if child == 0:
        store.save(2, torn)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    said: list[str] = []
    again = store_of(tmp_path, log=said.append)
    assert content(again.newest()) == 1
    assert said == [f"{tmp_path}: removed leftovers of an interrupted save (.new-step_2)"]


def test_steps_count_and_neither_names_nor_times_do(tmp_path):
    store = store_of(tmp_path, 9, 10, 100, keep=9)
    for age, name in enumerate(("step_100", "step_10", "step_9")):
        os.utime(tmp_path / name, (1_000_000 + age, 1_000_000 + age))
    assert content(store.newest()) == 100
    (tmp_path / "step_100").rename(tmp_path / "a")
    assert content(store.newest()) == 100


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.integers(1, 200), min_size=1, max_size=6), keep=st.integers(1, 3))
def test_as_many_as_requested_stay_and_the_largest_step_is_newest(tmp_path_factory, steps, keep):
    """In whatever order steps are saved, also one again: the last save of the largest step."""
    folder = tmp_path_factory.mktemp("store")
    store = store_of(folder, *steps, keep=keep)
    newest = store.newest()
    assert content(newest) == max(steps)
    assert newest is not None
    largest = [place for place, step in enumerate(steps) if step == max(steps)][-1]
    assert keep <= len(folders(store)) + max(0, keep - len(steps)) <= keep + 1
    if largest == len(steps) - 1:
        assert newest.serial == max(read(folder / name).serial for name in folders(store))


def harmed(path: Path) -> dict[str, Callable[[], Any]]:
    whole = path.read_bytes()
    middle = len(whole) // 2
    return {
        "truncated": lambda: path.write_bytes(whole[:-1]),
        "flipped": lambda: path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :]),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
    }


@pytest.mark.parametrize("name", ["weights", "shards/0", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "gone"])
def test_any_damage_to_any_file_is_noticed_and_named(tmp_path, name, harm):
    said: list[str] = []
    store = store_of(tmp_path, 1, 2, log=said.append)
    harmed(tmp_path / "step_2" / name)[harm]()
    assert content(store.newest()) == 1
    assert len(said) == 1
    assert f"{tmp_path / 'step_2' / name} " in said[0]
    assert said[0].endswith("step_1 is complete and is used")
    harmed(tmp_path / "step_1" / name)[harm]()
    with pytest.raises(DataError, match="none is complete") as told:
        store.newest()
    assert f"{tmp_path / 'step_1' / name} " in str(told.value)


def test_every_byte_of_a_manifest_is_guarded(tmp_path):
    store_of(tmp_path, 1)
    path = tmp_path / "step_1" / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 16):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                read(tmp_path / "step_1")
                verify(tmp_path / "step_1")
            except Exception as damaged:
                assert type(damaged).__name__ == "DamagedCheckpoint"  # noqa: PT017
            else:
                assert json.loads(path.read_text()) == json.loads(whole), "a byte between the words"


def test_one_that_was_taken_away_is_missed(tmp_path):
    said: list[str] = []
    store = store_of(tmp_path, 1, 2, log=said.append)
    shutil.rmtree(tmp_path / "step_2")
    assert content(store.newest()) == 1
    assert said == [f"checkpoint damaged: {tmp_path / 'step_2'} is missing; step_1 is complete and is used"]
    shutil.rmtree(tmp_path / "step_1")
    with pytest.raises(DataError, match="none is complete"):
        store.newest()


def test_a_damaged_index_doesn_t_hide_a_whole_checkpoint(tmp_path):
    said: list[str] = []
    store = store_of(tmp_path, 1, 2, log=said.append)
    (tmp_path / "index.json").write_text("{")
    assert content(store.newest()) == 2
    assert "index.json can't be read" in said[0]
    for name in folders(store):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(DataError, match="none is complete"):
        store.newest()


def test_a_damaged_step_can_be_saved_again_and_damaged_ones_go(tmp_path):
    store = store_of(tmp_path, 1, 2)
    (tmp_path / "step_2" / "weights").write_bytes(b"")
    again = CheckpointStore(tmp_path)
    assert content(again.newest()) == 1
    again.save(2, writing(2))
    assert content(again.newest()) == 2
    assert folders(store) == ["step_1", "step_2.3"]


def test_an_empty_or_missing_folder_has_none(tmp_path):
    assert CheckpointStore(tmp_path / "nothing").newest() is None
    assert store_of(tmp_path).newest() is None


def test_an_error_in_a_save_leaves_nothing_of_it(tmp_path):
    store = store_of(tmp_path, 1)

    def bug(folder: Path) -> None:
        writing(2)(folder)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        store.save(2, bug)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "step_1"]


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "replace"])
def test_an_error_of_the_disk_leaves_what_stood_and_says_path_and_bytes(tmp_path, monkeypatch, call):
    store = store_of(tmp_path, 1, keep=1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match="No space left on device") as told:
            store.save(2, writing(2))
    assert str(tmp_path) in str(told.value)
    again = store_of(tmp_path, keep=1)
    assert content(again.newest()) == 1
    assert folders(again) == ["step_1"]


def test_a_disk_that_is_nearly_full_is_reported_once(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100_000, 92_000, 8_000))
    store_of(tmp_path, 1, 2, 3, log=said.append)
    assert said == [f"{tmp_path}: 8,000 bytes are free and a checkpoint takes 5,010: less than two more fit"]


def test_a_place_that_can_not_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(ConfigError, match=r"hydra\.run\.dir"):
            CheckpointStore(place).prepare()


def test_the_store_loads_without_torch_and_lightning():
    script = "import sys, rlhf_lightning.checkpoint.store, rlhf_lightning.checkpoint.lock; print({'torch', 'lightning'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env).stdout == "set()\n"
