"""Similarity of responses to reference texts, by several metrics at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer.reference import ReferenceScorer

Metric = Literal["chrf", "chrf++", "bleu", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum"]


@register("evaluation_metric", "reference")
class ReferenceMetrics:
    """Similarity of a response to the reference in a column of its prompt's row.

    Each is 0 to 1, but TER starts at 0 and less of it is better. As rollout_scorer=reference, sentence by sentence; NaN for a row
    without a reference. Train one metric and look at another: a policy learns what it is scored by. Needs the extra `metrics`.

    Args:
        column: name of the column with the reference, a text or a list of several.
        metrics: by sacrebleu chrf, chrf++, bleu and ter (translation edit rate, Snover et al. 2006); by rouge-score rouge1, rouge2,
            rougeL and rougeLsum.
    """

    def __init__(self, task: Task, *, column: str = "reference", metrics: tuple[Metric, ...] = ("chrf", "bleu")) -> None:
        if not metrics:
            raise ConfigError("evaluation_metric.reference.metrics is empty: name some, as [chrf,bleu]")
        self.column = column
        self.scorers: dict[str, Callable[[Rollout], list[float | None]]] = {
            name: TranslationEditRate(column) if name == "ter" else ReferenceScorer(column=column, metric=name) for name in metrics
        }

    def __call__(self, rollout: Rollout) -> dict[str, Tensor]:
        """Values [B] by metric."""
        return {name: _tensor(scorer(rollout)) for name, scorer in self.scorers.items()}


class TranslationEditRate:
    """TER of responses, by sacrebleu."""

    def __init__(self, column: str) -> None:
        try:
            from sacrebleu.metrics import TER
        except ImportError as cause:
            raise ConfigError("evaluation_metric=reference needs sacrebleu: pip install 'rlhf-lightning[metrics]'") from cause
        self.column, self.metric = column, TER()

    def __call__(self, rollout: Rollout) -> list[float | None]:
        rows = zip(rollout.responses, rollout.columns.get(self.column, [None] * len(rollout.responses)), strict=True)
        return [None if value in (None, [], "") else self._rate(response, value) for response, value in rows]

    def _rate(self, response: str, value: str | Sequence[str]) -> float:
        references = [value] if isinstance(value, str) else list(value)
        return float(self.metric.sentence_score(response, references).score) / 100


def _tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
