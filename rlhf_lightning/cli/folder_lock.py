"""Check and lock the folder of a run or sweep before Hydra writes into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from rlhf_lightning.checkpoint.lock import check_free, lock_folder
from rlhf_lightning.cli.arguments import check_command
from rlhf_lightning.cli.user_errors import raise_as_exit
from rlhf_lightning.config.overrides import escape_references, quote_value
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.output_folder import check_run, check_sweep, fd_path, make_unused
from rlhf_lightning.training import launch

CLOCKS = ("${started", "${now")


class FolderLock(Callback):
    """Checks and locks the folder when Hydra's run or sweep starts; rank 0 does so for all processes.

    Exits with code 2 for a folder that can't be written or that another process has.
    """

    stack: ClassVar[ExitStack | None] = None
    only_check: ClassVar[bool] = False
    """Check the folder and the command, make nothing and exit with code 0 (`--check`)."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._acquire(config, "run", check_run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._acquire(config, "sweep", check_sweep)

    @classmethod
    @contextmanager
    def release_at_exit(cls) -> Iterator[None]:
        """Release the locks at the end of the block; Hydra calls its callbacks only without an error."""
        before = cls.stack
        try:
            with ExitStack() as cls.stack:
                yield
        finally:
            cls.stack = before

    def _acquire(self, config: DictConfig, mode: str, check: Callable[[DictConfig, Path], None]) -> None:
        if self.stack is None:
            return
        with raise_as_exit():  # Hydra would turn an error of a callback into a warning
            folder = Path(config.hydra[mode].dir)
            if self.only_check:
                self._check_only(config, mode, folder, check)
            if not launch.detect_launch().rank():
                folder = self._unused_folder(config, mode, folder)
                check_free(folder)  # first: other checks fail in a folder in use, for a reason that misleads
                check(config, folder)
                if mode == "run" and resume.is_resumed(folder) and (folder / saved_config.FILE).is_file():
                    resume.check_settings(config, folder, lambda text: None)  # before Hydra writes this command's overrides there
                self.stack.enter_context(lock_folder(folder))
                check(config, folder)  # again: another process may have had the lock meanwhile
            launch.export_command(folder=os.path.abspath(folder))
            self._store(config, mode, folder)

    def _check_only(self, config: DictConfig, mode: str, folder: Path, check: Callable[[DictConfig, Path], None]) -> NoReturn:
        check_free(folder)
        check(config, folder)
        if mode == "run" and resume.is_resumed(folder) and (folder / saved_config.FILE).is_file():
            resume.check_settings(config, folder, lambda text: None)
        check_command(config, mode)
        raise SystemExit(0)

    def _unused_folder(self, config: DictConfig, mode: str, folder: Path) -> Path:
        """The folder; if it is named by the time and another run began at that time, the next free name."""
        raw: Any = OmegaConf.to_container(config.hydra[mode], resolve=False)
        by_time = any(clock in str(raw["dir"]) for clock in CLOCKS)
        starts = launch.detect_launch()
        together = starts.is_external or starts.world is not None or OmegaConf.select(config, "trainer.num_nodes", default=1) != 1
        if not by_time or together or resume.is_resumed(folder):
            return folder
        try:
            return make_unused(folder)
        except OSError as cause:
            raise ConfigError(f"{folder} can't be made ({cause.strerror}): name a folder that can be written (hydra.{mode}.dir)") from cause

    def _store(self, config: DictConfig, mode: str, folder: Path) -> None:
        """Set Hydra's folder, under a path that its configuration can hold."""
        path = fd_path(folder) or folder
        if str(path) != config.hydra[mode].dir:
            with open_dict(config.hydra):
                config.hydra[mode].dir = str(path)
                # The jobs of a sweep are composed of these.
                config.hydra.overrides.hydra.append(f"hydra.{mode}.dir={quote_value(str(path))}")
        if "${" in os.getcwd():
            config.hydra.runtime.cwd = escape_references(os.getcwd())
