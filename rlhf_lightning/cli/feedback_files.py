"""`feedback_source=FILE`: the source that reads a file, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.feedback.row_reader import KINDS

SUFFIXES = (*KINDS, ".xlsx")
GROUP = "feedback_source="


def expand_feedback_files(args: Sequence[str]) -> list[str]:
    """Replace `feedback_source=FILE` by its source, path and types of columns.

    A list of files is read by one source where they are of one kind.

    Raises:
        DataError: a file that can't be opened.
        ConfigError: files of one kind that need different settings.
    """
    expanded: list[str] = []
    for argument in args:
        paths = _paths(argument)
        expanded += _overrides(paths) if paths else [argument]
    return expanded


def _paths(argument: str) -> list[str]:
    """The files that the argument names; none if it names options."""
    if not argument.startswith(GROUP):
        return []
    value = argument.removeprefix(GROUP)
    names = [name.strip().strip("'\"") for name in value.strip("[]").split(",")] if value.startswith("[") else [value]
    return names if all(_is_file(name) for name in names) else []


def _is_file(name: str) -> bool:
    return name.lower().removesuffix(".gz").endswith(SUFFIXES) or ("/" in name and Path(name).exists())


def _overrides(paths: Sequence[str]) -> list[str]:
    from rlhf_lightning.errors import ConfigError
    from rlhf_lightning.feedback.proposal.command import hydra_value
    from rlhf_lightning.feedback.proposal.detect import read_sample

    paths_of: dict[str, list[str]] = {}
    settings_of: dict[str, dict[str, object]] = {}
    for path in paths:
        sample = read_sample(path, "feedback_source")
        settings = sample.typed_settings(list(sample.types))
        if settings_of.setdefault(sample.source, settings) != settings:
            group = f"feedback_source.{sample.source}"
            raise ConfigError(f"{path} needs other settings than {paths_of[sample.source][0]}: write {group}.path and its settings")
        paths_of.setdefault(sample.source, []).append(path)
    overrides = [f"feedback_source=[{','.join(paths_of)}]"]
    for source, files in paths_of.items():
        value = {"path": files[0] if len(files) == 1 else files, **settings_of[source]}
        overrides += [f"feedback_source.{source}.{name}={hydra_value(setting)}" for name, setting in value.items()]
    return overrides
