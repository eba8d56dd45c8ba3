"""Load plugins: files in plugin folders, and the entry points of installed packages."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import stat
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from rlhf_lightning.errors import ConfigError

ENTRY_POINTS = "rlhf_lightning.plugins"
VARIABLE = "RLHF_PLUGINS"
FLAG = "--plugins"
NAMESPACE = "plugins"
PRESETS = "conf"


def take_flag(args: Sequence[str]) -> list[str]:
    """Move the folders of `--plugins FOLDER` from the arguments into RLHF_PLUGINS.

    Child processes, whatever their working folder, load the same plugins.

    Raises:
        ConfigError: the flag without a folder, or with a missing one.
    """
    others, new, rest = [], [], iter(args)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag != FLAG:
            others.append(argument)
            continue
        folder = Path(value if equals else next(rest, "")).expanduser()
        if not folder.name or not folder.is_dir():
            raise ConfigError(f"{FLAG} {value or folder}: no such folder; give a folder that holds .py files of plugins")
        new.append(folder.absolute())
    folders = [*new, *_named_folders()]
    if folders:
        os.environ[VARIABLE] = os.pathsep.join(str(folder) for folder in folders)
    return others


def plugin_folders() -> list[Path]:
    """plugins/ of the working folder, then the folders of RLHF_PLUGINS, each once."""
    folders = [Path.cwd() / "plugins", *_named_folders()]
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def _named_folders() -> list[Path]:
    return [Path(name).expanduser().absolute() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def plugin_files(folder: Path) -> list[Path]:
    """The plugins of a folder: its .py files, without tests and shared code (`_*.py`)."""
    return [file for file in sorted(folder.glob("*.py")) if not file.name.startswith(("_", ".", "test_", "conftest."))]


def load(folders: Sequence[Path]) -> Iterator[str]:
    """Import the files of these folders as modules `plugins.<name>`, then the installed entry points.

    Yields:
        A message for each plugin that is left out, right after it failed.
    """
    sys.modules.setdefault(NAMESPACE, types.ModuleType(NAMESPACE)).__dict__.setdefault("__path__", [])
    missing = [folder for folder in folders if folder in _named_folders() and not folder.is_dir()]
    yield from (f"{VARIABLE} names {folder}, which is no folder" for folder in missing)
    for folder in folders:
        for file in plugin_files(folder):
            complaint = _unsafe(file, folder in _named_folders()) or _load_file(file)
            if complaint:
                yield complaint
    for entry in _entry_points():
        try:
            entry.load()
        except (Exception, SystemExit) as cause:
            package = f"{entry.dist.name} {entry.dist.version} ({entry.value})" if entry.dist else entry.value
            root = _root_of(entry.module)
            line = _line_of(cause, root) if root else ""
            yield f"plugin package {package} is left out: {_one_line(cause)}{line and f' ({line})'}"


def unregister_failed(components: dict[tuple[str, str], Any]) -> None:
    """Remove the components that a module registered before its import failed.

    Args:
        components: registry entries by group and name.
    """
    for (group, name), component in list(components.items()):
        if component.target.__module__ not in sys.modules:
            del components[group, name]
            del ConfigStore.instance().repo[group][f"{name}.yaml"]


def _unsafe(file: Path, is_named: bool) -> str:
    """The reason not to run a plugin that others may have written; "" for a safe one.

    Unsafe are files that anyone may write to, and other users' files in the working folder's plugins/. Root, as in a container, runs all.
    """
    for path in (file.parent, file):
        try:
            status = path.stat()
        except OSError:  # a broken link: importing it fails with a message
            return ""
        if status.st_mode & stat.S_IWOTH:
            return f"plugin {file} is left out: anyone may write to {path}, and what it holds would be run; `chmod o-w {path}` first"
        if not is_named and os.geteuid() not in (0, status.st_uid) and status.st_uid != 0:
            return f"plugin {file} is left out: {path} is another user's, and would be run; name the folder by {FLAG} if you trust it"
    return ""


def preset_folders(folders: Sequence[Path]) -> list[Path]:
    """The preset folders of plugins: conf/ in a plugin folder, and next to the module of an entry point."""
    parents = list(folders)
    for entry in _entry_points():
        module = sys.modules.get(entry.module)
        if module is not None and module.__file__ and module.__package__:  # a module without a package shares its folder with others
            parents.append(Path(module.__file__).parent)
    return [parent / PRESETS for parent in parents if (parent / PRESETS).is_dir()]


def packages() -> Mapping[str, str]:
    """Name and version of the installed plugin packages, by top-level module."""
    return {entry.module.split(".")[0]: f"{entry.dist.name} {entry.dist.version}" for entry in _entry_points() if entry.dist}


def _entry_points() -> importlib.metadata.EntryPoints:
    """The entry points of plugins, read again when a folder of packages has changed."""
    return _entry_points_of(tuple((path, os.stat(path).st_mtime_ns) for path in map(os.path.abspath, sys.path) if os.path.isdir(path)))


@functools.lru_cache(maxsize=1)
def _entry_points_of(folders: tuple[tuple[str, int], ...]) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _load_file(file: Path) -> str:
    """Import a plugin. Returns the message for one that is left out; "" for a loaded one."""
    name = f"{NAMESPACE}.{file.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None:
        other = Path(str(loaded.__file__))
        return "" if other.samefile(file) else f"plugin {file} is left out: {other} has the same file name; rename one of them"
    _open_namespace(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:  # a script that is no plugin may exit
        del sys.modules[name]
        position, inner = _line_of(cause, file) or str(file), _line_of(cause, file.parent)
        return f"plugin {position} is left out: {_one_line(cause)}{f' ({inner})' if inner not in ('', position) else ''}"
    setattr(sys.modules[NAMESPACE], file.stem, module)
    return ""


def _open_namespace(folder: Path) -> None:
    """Add a folder to the package `plugins`, so that one plugin can import another."""
    paths = sys.modules[NAMESPACE].__path__
    if str(folder) not in paths:
        paths.append(str(folder))


def _one_line(cause: BaseException) -> str:
    text = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return f"{type(cause).__name__}: {' '.join(text.split())}"


def _line_of(cause: BaseException, root: Path) -> str:
    """The innermost "file:line" of an error within a file or folder; "" if it was raised elsewhere."""
    frames: list[tuple[str | None, int | None]] = []
    trace = cause.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    if isinstance(cause, SyntaxError):
        frames.append((cause.filename, cause.lineno))
    lines = [f"{file}:{line}" for file, line in frames if file and (Path(file) == root or root in Path(file).parents)]
    return lines[-1] if lines else ""


def _root_of(module: str) -> Path | None:
    """The folder of an installed package, or the file of a single module."""
    spec = importlib.util.find_spec(module.split(".")[0])
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
