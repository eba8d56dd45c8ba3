"""Where Hydra looks for sweepers, and nowhere else: `hydra/sweeper=optuna`."""

from __future__ import annotations

from rlhf_lightning.cli.sweep.optuna import OptunaSearch


class OptunaSweeper(OptunaSearch):
    """The search under a name that Hydra accepts."""
