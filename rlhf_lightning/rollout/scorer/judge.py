"""Scores from a language model with a rubric."""

from __future__ import annotations

from rlhf_lightning.flow import Rollout
from rlhf_lightning.judge.judge import Judge
from rlhf_lightning.judge.local_model import LocalModel
from rlhf_lightning.judge.settings import JudgeSettings, check_judge
from rlhf_lightning.registry import register


@register("rollout_scorer", "judge", needs=("judge",), check=check_judge)
class JudgeScorer:
    """The rating of a language model of the section `judge`, on a server or run here.

    The expected value over the probabilities of the digits of judge.rating_scale (Liu et al. 2023, "G-Eval"). Equal responses are asked
    once: the answers are in judge.cache. A response without an answer has no score.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.judge = Judge(settings)

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]."""
        if isinstance(self.judge.model, LocalModel):
            self.judge.model.device = rollout.prompt_ids.device
        return self.judge.rate(list(zip(rollout.prompts, rollout.responses, strict=True)))
