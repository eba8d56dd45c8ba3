"""The settings of stage=rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf_lightning.rounds.target import Target

Training = Literal["ppo", "preference", "sft_best"]
"""How the policy learns: PPO and its like, a preference loss, or fine-tuning on the best sample of each prompt."""


@dataclass(frozen=True)
class RoundsSettings:
    """The settings of stage=rounds (stage/rounds.py)."""

    target: Target
    max_rounds: int
    prompts: int
    responses: int
    questions: int | None
    comparisons: int
    train: Training
    warm_reward: bool
    age_decay: float
    learn_edits: bool
    watched_feedback: float
    stop_at_peak: bool
