"""Similarity to a reference text: chrF, BLEU, ROUGE."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, Literal

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer._columns import column_of, require_column

Metric = Literal["chrf", "chrf++", "bleu", "rouge1", "rouge2", "rougeL", "rougeLsum"]


@register("rollout_scorer", "reference")
class ReferenceScorer:
    """Similarity of a response to the reference in a column of its row, 0 to 1.

    By sacrebleu (chrF, Popović 2015; chrF++ with words; sentence BLEU with exponential smoothing, Post 2018), as a fraction of 1, and
    rouge-score (F1; Lin 2004), with their defaults. Needs the extra `metrics`.

    Args:
        column: name of the column with the reference, a text or a list of several: chrF and ROUGE take the most similar one, BLEU all
            of them together. A row without a value is left to the other scorers.
        metric: chrf and bleu compare characters and words with any script, the ROUGE metrics words of English.
    """

    def __init__(self, *, column: str = "reference", metric: Metric = "chrf") -> None:
        self.column = column
        self.similarity = similarity(metric)

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that the task has the column. Raises ConfigError."""
        require_column(names, self.column, "reference")

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]; None for a row without a reference."""
        pairs = zip(rollout.responses, column_of(rollout, self.column, "reference"), strict=True)
        return [None if value is None or value == [] else self.similarity(response, _texts(value)) for response, value in pairs]


def similarity(metric: Metric) -> Callable[[str, Sequence[str]], float]:
    """A function from a response and its references to the metric, 0 to 1.

    Raises:
        ConfigError: the extra `metrics` isn't installed.
    """
    try:
        if metric.startswith("rouge"):
            with redirect_stderr(sys.__stderr__):  # absl keeps the present stream, and closes another than this one
                from rouge_score.rouge_scorer import RougeScorer
                from rouge_score.tokenizers import DefaultTokenizer

            # The default, but that absl logs no line and so adds no handler to the root logger.
            rouge = RougeScorer([metric], tokenizer=DefaultTokenizer(use_stemmer=False))
            return lambda response, references: float(rouge.score_multi(references, response)[metric].fmeasure)
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as cause:
        raise ConfigError("rollout_scorer=reference needs sacrebleu and rouge-score: pip install 'rlhf-lightning[metrics]'") from cause
    scorer: Any = BLEU(effective_order=True) if metric == "bleu" else CHRF(word_order=2 if metric == "chrf++" else 0)
    return lambda response, references: float(scorer.sentence_score(response, list(references)).score) / 100


def _texts(value: Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
