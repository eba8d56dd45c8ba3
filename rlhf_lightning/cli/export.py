"""`rlhf-lightning export REWARD_MODEL TARGET`: a reward model for pipelines and vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.config.redaction import safe_message
from rlhf_lightning.errors import ConfigError


def export(args: Sequence[str]) -> None:
    """Write a reward model as a plain sequence classifier. Raises UserError."""
    if len(args) != 2 or any(argument.startswith("-") for argument in args):
        raise ConfigError("write `rlhf-lightning export REWARD_MODEL TARGET`, as in `export runs/REWARD/reward_model classifier`")
    from rlhf_lightning.reward.storage.export import export_reward_model

    export_reward_model(args[0], Path(args[1]))
    print(safe_message(args[1]))
