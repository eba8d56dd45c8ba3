"""A file is the old one or the new one, and nothing stays beside it."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from rlhf_lightning.config import atomic_write
from rlhf_lightning.config.atomic_write import remove_temporaries, write_atomic, write_folder


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "page.html"
    write_atomic(path, "old\n")

    def fails(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(atomic_write.os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_bytes() == b"old\n"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_who_may_read_it(tmp_path: Path, private: bool, mode: int) -> None:
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", "text", private=private)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def one(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "one").write_text("1")

    def two(folder: Path) -> None:
        (folder / "two").write_text("2")

    def breaks(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    target = tmp_path / "above" / "model"
    write_folder(target, one)
    with pytest.raises(OSError, match="disk full"):
        write_folder(target, breaks)
    assert (target / "deep" / "one").read_text() == "1"
    assert [file.name for file in target.parent.iterdir()] == ["model"]
    write_folder(target, two)
    assert [file.name for file in target.iterdir()] == ["two"]
    assert [file.name for file in target.parent.iterdir()] == ["model"]
    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "never", breaks)
    assert [file.name for file in tmp_path.iterdir()] == ["above"]


def write_model(text: str):
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(text)
        (folder / "model.safetensors").write_text(text)

    return write


def content(folder: Path) -> set[str]:
    return {file.read_text() for file in folder.iterdir()}


CALLS = ("open", "fsync", "rename", "mkdir", "rmdir", "unlink")


def write_and_die(folder: Path, dies_at: int, can_exchange: bool) -> int:
    """Replace a folder in a child process that ends at a call of the file system; returns its exit code, 0 where it was done before."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == dies_at:
                    os._exit(9)
                return real(*args, **kwargs)

            return call

        atomic_write.exchange = counted(atomic_write.exchange if can_exchange else lambda one, other: False)
        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        write_folder(folder, write_model("new"))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("can_exchange", [True, False], ids=["renameat2", "two renames"])
def test_a_kill_at_any_call_leaves_the_old_folder_or_the_new_one(tmp_path: Path, can_exchange: bool) -> None:
    codes, contents = [], set()
    for dies_at in itertools.count(1):
        top = tmp_path / str(dies_at)
        write_folder(top / "policy", write_model("old"))
        codes.append(write_and_die(top / "policy", dies_at, can_exchange))
        if can_exchange:
            assert len(content(top / "policy")) == 1
        remove_temporaries(top)
        assert [path.name for path in top.iterdir()] == ["policy"]
        assert sorted(path.name for path in (top / "policy").iterdir()) == ["config.json", "model.safetensors"]
        contents |= content(top / "policy")
        if codes[-1] == 0:
            break
    assert set(codes) == {9, 0}
    assert contents == {"old", "new"}
    assert len(codes) > 10


def test_a_reader_meanwhile_always_finds_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    write_folder(folder, write_model("0"))
    missing, is_over = 0, threading.Event()

    def read() -> None:
        nonlocal missing
        while not is_over.is_set():
            missing += not os.path.lexists(folder / "config.json")

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(25):
        write_folder(folder, write_model(str(number)))
    is_over.set()
    reader.join()
    assert missing == 0


def test_what_a_kill_left_is_known_by_its_name_and_nothing_else_goes(tmp_path: Path) -> None:
    users = [".new-idea", ".old-policy", ".policy-abcdefgh", "new-x.12", ".hidden/.newest.1"]
    ours = [".new-report.html.12", "round_1/.new-policy.7/model.safetensors", "logs/sft/.new-metrics.csv.99"]
    for name in (*users, *ours, ".old-sft.5/config.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (outside / ".new-x.1").mkdir(parents=True)
    (tmp_path / "link").symlink_to(outside)
    assert sorted(remove_temporaries(tmp_path)) == [".new-metrics.csv.99", ".new-policy.7", ".new-report.html.12", ".old-sft.5"]
    assert (outside / ".new-x.1").is_dir()
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted([*users, "sft/config.json"])


def test_what_another_made_is_not_deleted_with_the_folder(tmp_path: Path) -> None:
    policy, shared = tmp_path / "policy", tmp_path / "shared"
    shared.mkdir()
    (shared / "weights").write_text("precious")
    policy.mkdir()
    (policy / "config.json").write_text("old")
    (policy / "model-00001-of-00002.safetensors").write_text("old")
    write_folder(policy, write_model("new"))
    assert [path.name for path in tmp_path.glob("policy*")] == ["policy"]
    shutil.rmtree(policy)
    policy.mkdir()
    (policy / "notes.txt").write_text("precious")
    write_folder(policy, write_model("new"))
    assert (tmp_path / "policy_before_1" / "notes.txt").read_text() == "precious"
    shutil.rmtree(policy)
    policy.symlink_to(shared)
    write_folder(policy, write_model("new"))
    assert (tmp_path / "policy_before_2").is_symlink()
    assert (shared / "weights").read_text() == "precious"
    assert content(policy) == {"new"}
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "file", write_model("new"))
    assert (tmp_path / "file").read_text() == "precious"
