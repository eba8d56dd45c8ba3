"""A run's or a sweep's folder belongs to one command at a time, from before Hydra writes into it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from rlhf_lightning import wrong_command
from rlhf_lightning.checkpoint.lock import held
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.launch import this_launch


class FolderLock(Callback):
    """Takes the lock where Hydra's run or sweep starts; ends the program with 2 where another process has it. Of several processes of one
    run the first has it for all."""

    stack: ClassVar[ExitStack | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._take(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._take(Path(config.hydra.sweep.dir))

    @classmethod
    @contextmanager
    def given_back(cls) -> Iterator[None]:
        """What is taken within the block is given back at its end, however it ends: Hydra tells its callbacks of good ends only."""
        before = cls.stack
        try:
            with ExitStack() as cls.stack:
                yield
        finally:
            cls.stack = before

    def _take(self, folder: Path) -> None:
        if self.stack is None or this_launch().rank():
            return
        try:
            self.stack.enter_context(held(folder))
        except ConfigError as error:
            sys.exit(wrong_command.tell(error))  # Hydra would turn an error of a callback into a warning
