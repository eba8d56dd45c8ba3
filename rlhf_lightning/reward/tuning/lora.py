"""Low-rank adapters beside the trunk's frozen weights."""

from __future__ import annotations

import warnings
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register


@register("reward_tuning", "lora")
def lora(
    trunk: nn.Module,
    *,
    rank: PositiveInt = 16,
    alpha: PositiveFloat = 32.0,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    targets: tuple[str, ...] = ("all-linear",),
) -> None:
    """Low-rank adapters W + alpha/rank · B·A are trained, with the head (Hu et al. 2021); peft makes them.

    They start as no change (B = 0) and are merged into the weights after the training, so that the saved folder is a plain one.

    Args:
        rank: of the adapters; alpha: they count alpha/rank. dropout: on what the adapters read.
        targets: names of the linear layers that get one (["q_proj", "v_proj"]), or ["all-linear"].

    Raises:
        ConfigError: peft isn't installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as cause:
        raise ConfigError(f"reward_tuning=lora needs more packages: pip install 'rlhf-lightning[lora]' ({cause})") from cause
    chosen = "all-linear" if tuple(targets) == ("all-linear",) else list(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # GPT-2's Conv1D: peft sets it right by itself
            inject_adapter_in_model(config, trunk)
    except ValueError as cause:
        raise ConfigError(f"reward_tuning.targets={list(targets)}: {cause}") from cause
