"""Rewrite a command's arguments: plugin folders, `~`, resume=, --config-path, flags last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rlhf_lightning.cli.feedback_files import expand_feedback_files
from rlhf_lightning.cli.foreign_terms import reject_foreign_flags
from rlhf_lightning.cli.named_options import expand_named_options
from rlhf_lightning.config.command_paths import expand_home
from rlhf_lightning.config.overrides import FLAGS_WITH_VALUE, check_arguments, quote_comparisons
from rlhf_lightning.config.plugins import take_flag
from rlhf_lightning.config.presets import list_presets, preset_file, root
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import saved_config
from rlhf_lightning.runtime.output_folder import check_working_folder
from rlhf_lightning.runtime.resume import expand_resume
from rlhf_lightning.training import launch

PRESETS = ("trainer", "logger")
"""Groups whose options may replace those of a saved configuration: how the run is carried out."""
_PATH_FLAGS = ("--config-path", "-cp")
_FOLDER_FLAGS = (*_PATH_FLAGS, "--config-dir", "-cd")
_STORED = "saved_run"
"""The name of a saved configuration in Hydra's store: its folder may have a name that Hydra can't read."""


def parse_args(argv: Sequence[str]) -> list[str]:
    """Expand `~` and feedback_source=FILE, quote comparisons and take plugin folders out.

    A process that Lightning started gets the arguments of the process that started it.

    Raises:
        ConfigError: --plugins without a folder.
    """
    arguments = [quote_comparisons(argument) for argument in expand_home(take_flag(argv))]
    return expand_named_options(expand_feedback_files(launch.inherited_overrides(arguments)))


def hydra_args(args: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them, and those that this command's child processes inherit.

    Raises:
        UserError: an argument that Hydra couldn't read, or a run that can't be resumed.
    """
    reject_foreign_flags(args)
    check_arguments(args)
    check_working_folder()
    launch.export_command(words=list(args))
    args = absolute_config_path(expand_resume(args))
    return move_flags_last([*launch.rank_overrides(), *store_saved_config(args)])


def absolute_config_path(args: Sequence[str]) -> list[str]:
    """The arguments with the folder of --config-path or --config-dir as an absolute path.

    Hydra looks for the first beside the program, and takes a name that begins with a dash for a flag.
    """
    absolute = list(args)
    for i, argument in enumerate(absolute):
        flag, equals, path = argument.partition("=")
        if flag in _FOLDER_FLAGS and equals and Path(path).is_dir():
            absolute[i] = f"{flag}={Path(path).resolve()}"
        elif argument in _FOLDER_FLAGS and i + 1 < len(absolute) and Path(absolute[i + 1]).is_dir():
            absolute[i + 1] = str(Path(absolute[i + 1]).resolve())
    return absolute


def store_saved_config(args: Sequence[str]) -> list[str]:
    """Replace `--config-path RUN` by the name of that run's configuration in Hydra's store.

    Hydra writes the path of a configuration into the configuration itself, and not every name fits there. `trainer=...` and
    `logger=...` replace the saved presets; another path is left to Hydra.

    Raises:
        ConfigError: a folder that is no run's, with a name that Hydra can't read.
        DataError: the run's configuration can't be read.
    """
    rest, folder = _without_path(args)
    named = any(argument.partition("=")[0] in ("--config-name", "-cn") for argument in args)
    if named or folder is None or not saved_config.is_saved(folder):
        _check_folder_names(args)
        return list(args)
    content, presets = saved_config.load(folder), list_presets()
    others = []
    for argument in rest:
        group, _, option = argument.partition("=")
        if group in PRESETS and option in presets.get(group, {}):
            content[group] = OmegaConf.merge(root().get(group, {}), OmegaConf.load(preset_file(group, option)))
        else:
            others.append(argument)
    ConfigStore.instance().store(name=_STORED, node=content)
    return [*others, "--config-name", _STORED]


def move_flags_last(args: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags after the overrides: it takes no flag between two overrides.

    Lightning puts one there for the processes that it starts of a command with --config-path.
    """
    is_flag = [argument.startswith("-") or before in FLAGS_WITH_VALUE for before, argument in zip(["", *args], args, strict=False)]
    return [argument for argument, flag in sorted(zip(args, is_flag, strict=True), key=lambda pair: pair[1])]


def _without_path(args: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without --config-path, and its folder."""
    rest, folder, remaining = [], None, iter(args)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag in _PATH_FLAGS and (equals or flag == argument):
            folder = Path(value if equals else next(remaining, ""))
        else:
            rest.append(argument)
    return rest, folder


def _check_folder_names(args: Sequence[str]) -> None:
    for before, argument in zip(["", *args], args, strict=False):
        flag, _, value = argument.partition("=")
        path = value if flag in _FOLDER_FLAGS else argument if before in _FOLDER_FLAGS else ""
        if "${" in path or (path.endswith((".yaml", ".yml")) and Path(path).is_dir()):
            raise ConfigError(f"{path}: Hydra can't read configurations in a folder of this name (no ${{, no .yaml at its end): rename it")
