"""The files that a run reads, told from its configuration, and whether they still are what they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

BUDGET = 256 * 2**20
"""Bytes that are read of one input at most: half a second."""
PIECE = 2**20
PLACES = ("path", "file", "folder", "prompts", "demonstrations", "model", "reference", "scorer", "backbone", "corpus")
"""What the name of a setting has in it that may name a file without a folder before it."""
MANY = 10_000
"""Files of a folder or pattern that are looked at, by their names."""


def inputs_of(settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Every file, folder and glob pattern that the settings name and that is there, with a digest of its content.

    A digest is the SHA-256 of names, sizes and contents. Of an input of more than `BUDGET` bytes the contents are read at evenly spread
    places, first and last included: another length is always noticed there, one changed letter may not be. What is on the Hub isn't looked
    at, nor hidden files, links that lead nowhere, other runs' folders.

    Args:
        settings: flat, by dotted names, with all references resolved.
        folder: the run's own, whose files are no inputs.
    """
    own = folder.resolve()
    found: dict[str, str] = {}
    for key, value in settings.items():
        for text in _texts(value):
            if text not in found and _may_be_a_place(key, text) and (files := files_of(text, own)) is not None:
                found[text] = digest(files)
    return dict(sorted(found.items()))


def changed(before: Mapping[str, str], folder: Path) -> list[str]:
    """What is no longer as it was, said."""
    told = []
    for text, known in before.items():
        files = files_of(text, folder.resolve())
        if files is None:
            told.append(f"{text} is gone")
        elif digest(files) != known:
            told.append(f"{text} has another content")
    return told


def files_of(text: str, own: Path) -> dict[str, Path] | None:
    """The files of an input by their names in it; None where nothing is there, or it is the run's own."""
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return None if own in path.resolve().parents else {"": path}
        if path.is_dir():
            return None if own in (path.resolve(), *path.resolve().parents) else dict(_below(path, own))
        if any(letter in text for letter in "*?["):
            files = [Path(name) for name in sorted(glob(text, recursive=True))[:MANY]]
            return {str(file): file for file in files if file.is_file() and own not in file.resolve().parents} or None
    except (OSError, ValueError):  # no name that a file could have, or one that may not be looked at
        return None
    return None


def _below(folder: Path, own: Path) -> Iterator[tuple[str, Path]]:
    taken = 0
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and not _of_a_run(Path(place) / name, own))
        for name in sorted(names):
            file = Path(place) / name
            if name.startswith(".") or not file.is_file():
                continue
            taken += 1
            if taken > MANY:
                return
            yield file.relative_to(folder).as_posix(), file


def _of_a_run(folder: Path, own: Path) -> bool:
    return folder.resolve() == own or (folder / "begun.json").is_file()


def digest(files: Mapping[str, Path]) -> str:
    """The SHA-256 of files, which share `BUDGET`."""
    whole = hashlib.sha256()
    pieces = max(2, BUDGET // PIECE // max(1, len(files)))
    for name, file in files.items():
        size = file.stat().st_size
        whole.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= pieces * PIECE:
                whole.update(hashlib.file_digest(handle, "sha256").digest())
                continue
            for number in range(pieces):
                handle.seek(number * (size - PIECE) // (pieces - 1))
                whole.update(handle.read(PIECE))
    return whole.hexdigest()


def _may_be_a_place(key: str, text: str) -> bool:
    names = key.lower().split(".")
    return os.sep in text or any(place in names[-1] for place in PLACES)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
