"""The `feedback` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rlhf_lightning.registry import section


@section("feedback")
@dataclass
class FeedbackSettings:
    """How feedback is read and weighed.

    Attributes:
        on_bad: a bad line stops the run ("refuse") or is set aside with its reason ("quarantine").
        max_bad_fraction: with "quarantine", more bad lines than this share of all are refused after all.
        annotator_weights: "reliability" multiplies each judgement's weight by how reliable its annotator proves (mean 1), "none" doesn't.
        comment_weight: how much the rating drawn from a written comment counts; 0 leaves comments out of the reward model.
    """

    on_bad: Literal["refuse", "quarantine"] = "refuse"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    annotator_weights: Literal["none", "reliability"] = "none"
    comment_weight: Annotated[float, Field(ge=0)] = 0.25
