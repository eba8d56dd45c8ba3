"""The `evaluation` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from rlhf_lightning.registry import section


@section("evaluation")
@dataclass
class EvaluationSettings:
    """How a policy is measured.

    Attributes:
        responses: drawn in all, over the held-out prompts in turn; the interval narrows with the root of it.
        batch_size: responses drawn at a time.
        samples: shown side by side in the report.
    """

    responses: PositiveInt = 256
    batch_size: PositiveInt = 64
    samples: PositiveInt = 12
