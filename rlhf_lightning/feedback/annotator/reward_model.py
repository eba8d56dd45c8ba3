"""A gold reward model judges instead of people, for experiments."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Feedback, Prompt, Ranking
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import register


@register("feedback_annotator", "reward_model")
class GoldRewardModel:
    """Rankings by the scores of a gold reward model instead of people (Gao et al. 2022).

    Args:
        path: folder or Hub name of the reward model.
        temperature: ranks by score + temperature * Gumbel noise; at 1 pairs follow the Bradley-Terry model, at 0 the scores.
        error_rate: share of rankings that are random, whatever the scores.
        seed: random seed of noise and errors.
    """

    kinds: ClassVar[tuple[AnnotationKind, ...]] = ("ranking",)

    def __init__(
        self,
        context: AnnotatorContext,
        *,
        path: ModelPath,
        temperature: NonNegativeFloat = 0.0,
        error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0,
        seed: int = 0,
    ) -> None:
        if context.load_scorer is None:
            raise ConfigError("feedback_annotator=reward_model needs a run: use it in a command")
        self._score = context.load_scorer(path)
        self._temperature, self._error_rate, self._seed = temperature, error_rate, seed

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Rank each group's distinct responses; equal texts share a rank."""
        ranked = [(prompt, tuple(responses)) for prompt, responses in groups if len(responses) > 1] if "ranking" in kinds else []
        texts = list(dict.fromkeys((prompt, text) for prompt, responses in ranked for text in responses))
        score_of = dict(zip(texts, self._score(*map(list, zip(*texts, strict=True))), strict=True)) if texts else {}
        feedback = []
        for i, (prompt, responses) in enumerate(ranked):
            rng = random.Random(f"{self._seed}: round {number} {'' if tuple(kinds) == ANNOTATION_KINDS else 'alone '}ranking {i}")
            is_error = rng.random() < self._error_rate
            distinct = list(dict.fromkeys(responses))
            noise = {text: -math.log(-math.log(rng.random() or 0.5)) for text in distinct}
            value = {t: noise[t] if is_error else float(score_of[prompt, t]) + self._temperature * noise[t] for t in distinct}
            levels = sorted(set(value.values()), reverse=True)
            ranks = tuple(levels.index(value[text]) for text in responses)
            feedback.append(
                Feedback(
                    prompt=prompt, responses=responses, judgement=Ranking(ranks=ranks), annotator="reward model", origin="reward_model"
                )
            )
        return feedback
