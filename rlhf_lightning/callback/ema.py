"""Average the weights over the training."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from rlhf_lightning.registry import register


@register("callback", "ema")
def ema(*, decay: Annotated[float, Field(gt=0, lt=1)] = 0.999, every: PositiveInt = 1) -> Any:
    """An exponential moving average of the trained weights, which is evaluated and saved in their place.

    The training goes on with the weights themselves. As torch's AveragedModel, whose copy of the frozen weights it doesn't make.

    Args:
        decay: weight of the average so far; an average reaches back about 1 / (1 - decay) updates.
        every: steps (of PPO: updates) between updates of the average.
    """
    from rlhf_lightning.callback._ema import WeightAverage

    return WeightAverage(decay, every)
