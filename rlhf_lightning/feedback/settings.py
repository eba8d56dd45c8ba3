"""The `feedback` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rlhf_lightning.registry import section


@section("feedback")
@dataclass
class FeedbackSettings:
    """Settings of reading and weighting feedback.

    Attributes:
        on_bad: a bad line stops the run ("refuse") or is quarantined with its reason ("quarantine").
        max_bad_fraction: with "quarantine", a higher fraction of bad lines stops the run too.
        annotator_weights: "reliability" multiplies each judgement's weight by its annotator's reliability (mean 1), "none" doesn't.
        comment_weight: weight of the rating derived from a written comment; 0 leaves comments out of the reward model.
    """

    on_bad: Literal["refuse", "quarantine"] = "refuse"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    annotator_weights: Literal["none", "reliability"] = "none"
    comment_weight: Annotated[float, Field(ge=0)] = 0.25
