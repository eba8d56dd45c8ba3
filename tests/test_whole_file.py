"""A file is the old one or the new one, and nothing stays beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rlhf_lightning import whole_file
from rlhf_lightning.whole_file import write_folder, write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "page.html"
    write_whole(path, "old\n")

    def fails(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(whole_file.os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_bytes() == b"old\n"
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_who_may_read_it(tmp_path: Path, private: bool, mode: int) -> None:
    mask = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", "text", private=private)
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
