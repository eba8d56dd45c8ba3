"""A run's or a sweep's folder belongs to one command at a time, from before Hydra writes into it; and it must be one to write into."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from rlhf_lightning.checkpoint.lock import check_free, lock_folder
from rlhf_lightning.cli import error_messages
from rlhf_lightning.config.overrides import escape_references, quote_value
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.runtime import resume, saved_config
from rlhf_lightning.runtime.output_folder import check_run, check_sweep, make_unused, stand_in
from rlhf_lightning.training import launch

CLOCKS = ("${started", "${now")


class FolderLock(Callback):
    """Checks the folder and takes its lock where Hydra's run or sweep starts; ends the program with 2 where the folder isn't one to write
    into, or another process has it. Of several processes of one run the first does so for all."""

    stack: ClassVar[ExitStack | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._take(config, "run", check_run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._take(config, "sweep", check_sweep)

    @classmethod
    @contextmanager
    def released(cls) -> Iterator[None]:
        """What is taken within the block is given back at its end, however it ends: Hydra tells its callbacks of good ends only."""
        before = cls.stack
        try:
            with ExitStack() as cls.stack:
                yield
        finally:
            cls.stack = before

    def _take(self, config: DictConfig, mode: str, check: Callable[[DictConfig, Path], None]) -> None:
        if self.stack is None:
            return
        try:
            folder = Path(config.hydra[mode].dir)
            if not launch.this_launch().rank():
                folder = self._unused(config, mode, folder)
                check_free(folder)  # of all that is wrong with a folder in use, this is the reason
                check(config, folder)
                if mode == "run" and resume.is_resumed(folder) and (folder / saved_config.FILE).is_file():
                    resume.check_settings(config, folder, lambda text: None)  # before Hydra writes this command's words there
                self.stack.enter_context(lock_folder(folder))
                check(config, folder)  # what another process has left that had the lock meanwhile
            launch.hand_on(folder=os.path.abspath(folder))
            self._store(config, mode, folder)
        except UserError as error:
            sys.exit(error_messages.tell(error))  # Hydra would turn an error of a callback into a warning

    def _unused(self, config: DictConfig, mode: str, folder: Path) -> Path:
        """The folder, or the next free one beside it where its name is the time, at which another run has begun, too."""
        raw: Any = OmegaConf.to_container(config.hydra[mode], resolve=False)
        by_time = any(clock in str(raw["dir"]) for clock in CLOCKS)
        starts = launch.this_launch()
        together = starts.outside or starts.world is not None or OmegaConf.select(config, "trainer.num_nodes", default=1) != 1
        if not by_time or together or resume.is_resumed(folder):
            return folder
        try:
            return make_unused(folder)
        except OSError as cause:
            raise ConfigError(f"{folder} can't be made ({cause.strerror}): name a folder that can be written (hydra.{mode}.dir)") from cause

    def _store(self, config: DictConfig, mode: str, folder: Path) -> None:
        """Let Hydra write into the folder that was chosen, under a name that it can hold."""
        path = stand_in(folder) or folder
        if str(path) != config.hydra[mode].dir:
            with open_dict(config.hydra):
                config.hydra[mode].dir = str(path)
                # The jobs of a sweep are composed of these.
                config.hydra.overrides.hydra.append(f"hydra.{mode}.dir={quote_value(str(path))}")
        if "${" in os.getcwd():
            config.hydra.runtime.cwd = escape_references(os.getcwd())
