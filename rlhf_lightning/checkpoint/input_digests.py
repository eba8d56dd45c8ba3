"""Digests of a run's input files, and the files that have changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from glob import glob
from pathlib import Path

BUDGET = 256 * 2**20
"""Most bytes read of one input: half a second."""
PIECE = 2**20
MAX_FILES = 10_000
"""Most files of a folder or pattern that are read, in the order of their names."""
RUN_FILE = "begun.json"
"""A file that every run's folder has."""


def input_digests(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """A digest of every file, folder and glob pattern of `paths` that exists.

    A digest is the SHA-256 of names, sizes and contents. Of an input of more than `BUDGET` bytes only evenly spread pieces are read, first
    and last included: another length is always noticed, one changed letter may not be. Skipped are names of the Hub, hidden files, broken
    links, and the folders of other runs.

    Args:
        folder: the run's own, whose files are no inputs.
    """
    run_folder = folder.resolve()
    files = {path: input_files(path, run_folder) for path in sorted(set(paths))}
    return {path: digest(content) for path, content in files.items() if content is not None}


def changed_inputs(before: Mapping[str, str], folder: Path) -> list[str]:
    """Describe each input that has changed since its digest was taken."""
    changes = []
    for path, recorded in before.items():
        files = input_files(path, folder.resolve())
        if files is None:
            changes.append(f"{path} is missing")
        elif digest(files) != recorded:
            changes.append(f"{path} was modified")
    return changes


def input_files(name: str, run_folder: Path) -> dict[str, Path] | None:
    """The files of an input by their relative names; None where nothing exists, or it is the run's own."""
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return None if run_folder in path.resolve().parents else {"": path}
        if path.is_dir():
            return None if run_folder in (path.resolve(), *path.resolve().parents) else dict(_walk(path, run_folder))
        if any(letter in name for letter in "*?["):
            files = [Path(match) for match in sorted(glob(name, recursive=True))[:MAX_FILES]]
            return {str(file): file for file in files if file.is_file() and run_folder not in file.resolve().parents} or None
    except (OSError, ValueError):  # not a valid file name, or not permitted
        return None
    return None


def _walk(folder: Path, run_folder: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for top, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and not _is_run(Path(top) / name, run_folder))
        for name in sorted(names):
            file = Path(top) / name
            if name.startswith(".") or not file.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                return
            yield file.relative_to(folder).as_posix(), file


def _is_run(folder: Path, run_folder: Path) -> bool:
    return folder.resolve() == run_folder or (folder / RUN_FILE).is_file()


def digest(files: Mapping[str, Path]) -> str:
    """The SHA-256 of files, which share `BUDGET`."""
    total = hashlib.sha256()
    pieces = max(2, BUDGET // PIECE // max(1, len(files)))
    for name, file in files.items():
        size = file.stat().st_size
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= pieces * PIECE:
                total.update(hashlib.file_digest(handle, "sha256").digest())
                continue
            for number in range(pieces):
                handle.seek(number * (size - PIECE) // (pieces - 1))
                total.update(handle.read(PIECE))
    return total.hexdigest()
