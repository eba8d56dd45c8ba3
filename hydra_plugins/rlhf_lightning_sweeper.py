"""`hydra/sweeper=optuna`, in the one package where Hydra looks for sweepers."""

from __future__ import annotations

from rlhf_lightning.cli.sweep.optuna import OptunaSearch


class OptunaSweeper(OptunaSearch):
    """The search under a name that Hydra accepts."""
