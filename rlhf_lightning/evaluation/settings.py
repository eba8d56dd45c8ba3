"""The `evaluation` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from rlhf_lightning.registry import section

LARGE = 50_000_000
"""Parameters from which a model answers FEW prompts by default."""
MANY, FEW = 256, 64


@section("evaluation")
@dataclass
class EvaluationSettings:
    """Measurement on held-out data, before and after a policy's training, and during any training.

    Attributes:
        every: steps (of PPO: updates) between evaluations during a training, which log evaluation/score, evaluation/kl, evaluation/loss,
            evaluation/accuracy and samples; null: none.
        completions_every: updates of PPO between tables of their responses (terminal, samples.csv, logger); null: none.
        responses: total number, over the held-out prompts in turn; the interval narrows with its root. null: 256, and 64 for a model of 50
            million parameters or more.
        batch_size: responses sampled at a time.
        samples: shown side by side in the report, and in each table of samples.
    """

    every: PositiveInt | None = None
    completions_every: PositiveInt | None = None
    responses: PositiveInt | None = None
    batch_size: PositiveInt = 64
    samples: PositiveInt = 12

    def count(self, model: nn.Module) -> int:
        """Number of responses of a model."""
        is_large = sum(parameter.numel() for parameter in model.parameters()) >= LARGE
        return self.responses or (FEW if is_large else MANY)
