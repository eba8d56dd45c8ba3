"""Where a user's own components come from: files in folders of plugins, and installed packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import stat
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rlhf_lightning.errors import ConfigError

ENTRY_POINTS = "rlhf_lightning.plugins"
VARIABLE = "RLHF_PLUGINS"
FLAG = "--plugins"
NAMESPACE = "plugins"
PRESETS = "conf"


def take_flag(words: Sequence[str]) -> list[str]:
    """A command's words without `--plugins FOLDER`. The folders go into RLHF_PLUGINS, as absolute paths: processes that this one starts,
    wherever they stand, load the same plugins.

    Raises:
        ConfigError: the flag without a folder, or with one that isn't there.
    """
    left, given, rest = [], [], iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            left.append(word)
            continue
        folder = Path(value if equals else next(rest, "")).expanduser()
        if not folder.name or not folder.is_dir():
            raise ConfigError(f"{FLAG} {value or folder}: no such folder; give a folder that holds .py files of plugins")
        given.append(folder.absolute())
    folders = [*given, *_named_folders()]
    if folders:
        os.environ[VARIABLE] = os.pathsep.join(str(folder) for folder in folders)
    return left


def plugin_folders() -> list[Path]:
    """plugins/ of the working folder, then those that RLHF_PLUGINS names, each once."""
    folders = [Path.cwd() / "plugins", *_named_folders()]
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def _named_folders() -> list[Path]:
    return [Path(name).expanduser().absolute() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def plugin_files(folder: Path) -> list[Path]:
    """The plugins of a folder: its .py files, without those that begin with "_" (code that plugins share) and tests."""
    return [file for file in sorted(folder.glob("*.py")) if not file.name.startswith(("_", ".", "test_", "conftest."))]


def load(folders: Sequence[Path]) -> Iterator[str]:
    """Import the files of these folders as modules `plugins.<name>`, then the installed entry points.

    Yields:
        What is to be said of each that is left out, right after it failed.
    """
    sys.modules.setdefault(NAMESPACE, types.ModuleType(NAMESPACE)).__dict__.setdefault("__path__", [])
    missing = [folder for folder in folders if folder in _named_folders() and not folder.is_dir()]
    yield from (f"{VARIABLE} names {folder}, which is no folder" for folder in missing)
    for folder in folders:
        for file in plugin_files(folder):
            complaint = _unsafe(file, folder in _named_folders()) or _load_file(file)
            if complaint:
                yield complaint
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except (Exception, SystemExit) as cause:
            package = f"{entry.dist.name} {entry.dist.version} ({entry.value})" if entry.dist else entry.value
            root = _root_of(entry.module)
            place = _place(cause, root) if root else ""
            yield f"plugin package {package} is left out: {_said(cause)}{place and f' ({place})'}"


def _unsafe(file: Path, is_named: bool) -> str:
    """Why a plugin that others may have written isn't run; '' for one that is.

    Anyone may write to it or its folder, or it is in the working folder's plugins/ and another user's. Root, as in a container, runs all.
    """
    for path in (file.parent, file):
        try:
            status = path.stat()
        except OSError:  # a link that leads nowhere: importing it says so
            return ""
        if status.st_mode & stat.S_IWOTH:
            return f"plugin {file} is left out: anyone may write to {path}, and what it holds would be run; `chmod o-w {path}` first"
        if not is_named and os.geteuid() not in (0, status.st_uid) and status.st_uid != 0:
            return f"plugin {file} is left out: {path} is another user's, and would be run; name the folder by {FLAG} if you trust it"
    return ""


def preset_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of presets that plugins bring: conf/ in a folder of plugins, and in the folder of an entry point's module."""
    places = list(folders)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        module = sys.modules.get(entry.module)
        if module is not None and module.__file__ and module.__package__:  # a module of no package stands among strangers
            places.append(Path(module.__file__).parent)
    return [place / PRESETS for place in places if (place / PRESETS).is_dir()]


def packages() -> Mapping[str, str]:
    """For each top-level module of an installed plugin package the package and its version."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.module.split(".")[0]: f"{entry.dist.name} {entry.dist.version}" for entry in entries if entry.dist}


def _load_file(file: Path) -> str:
    """'' where the plugin is loaded, else why it is left out."""
    name = f"{NAMESPACE}.{file.stem}"
    known = sys.modules.get(name)
    if known is not None:
        other = Path(str(known.__file__))
        return "" if other.samefile(file) else f"plugin {file} is left out: {other} has the same file name; rename one of them"
    _open_namespace(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:  # a script that is no plugin may end the program
        del sys.modules[name]
        own, place = _place(cause, file) or str(file), _place(cause, file.parent)
        return f"plugin {own} is left out: {_said(cause)}{f' ({place})' if place not in ('', own) else ''}"
    setattr(sys.modules[NAMESPACE], file.stem, module)
    return ""


def _open_namespace(folder: Path) -> None:
    """Make `plugins` a package of this folder's files too, so that one plugin imports from another."""
    paths = sys.modules[NAMESPACE].__path__
    if str(folder) not in paths:
        paths.append(str(folder))


def _said(cause: BaseException) -> str:
    text = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return f"{type(cause).__name__}: {' '.join(text.split())}"


def _place(cause: BaseException, root: Path) -> str:
    """Where below `root`, a file or folder, it went wrong, "file:line"; '' where it went wrong elsewhere."""
    places: list[tuple[str | None, int | None]] = []
    trace = cause.__traceback__
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    if isinstance(cause, SyntaxError):
        places.append((cause.filename, cause.lineno))
    found = [f"{file}:{line}" for file, line in places if file and (Path(file) == root or root in Path(file).parents)]
    return found[-1] if found else ""


def _root_of(module: str) -> Path | None:
    """The folder of an installed package, or the file of a module that stands alone."""
    spec = importlib.util.find_spec(module.split(".")[0])
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
