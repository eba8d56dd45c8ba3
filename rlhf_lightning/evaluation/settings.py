"""The `evaluation` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from rlhf_lightning.registry import section


@section("evaluation")
@dataclass
class EvaluationSettings:
    """Settings of a policy's measurement.

    Attributes:
        responses: total number, over the held-out prompts in turn; the interval narrows with its root.
        batch_size: responses sampled at a time.
        samples: shown side by side in the report.
    """

    responses: PositiveInt = 256
    batch_size: PositiveInt = 64
    samples: PositiveInt = 12
