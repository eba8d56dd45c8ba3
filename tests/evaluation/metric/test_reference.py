"""Similarity to references: the libraries' own numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.evaluation.metric.reference import ReferenceMetrics
from rlhf_lightning.task.reviews import Reviews

RESPONSES = ["the cat sat on the mat", "a dog runs", "nothing alike"]
REFERENCES = ["the cat sat on a mat", ["a dog ran", "the dog runs fast"], None]


def test_values_are_those_of_sacrebleu_and_rouge_score(scored_of):
    pytest.importorskip("sacrebleu")
    rollout = dataclasses.replace(scored_of(torch.ones(3, 3, dtype=torch.long)), responses=RESPONSES, columns={"reference": REFERENCES})
    values = ReferenceMetrics(Reviews(), metrics=("chrf", "bleu", "ter", "rougeL"))(rollout)
    # Imported after the package did: absl, which rouge-score imports, keeps the stream of that moment and closes it later.
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import metrics

    rouge = RougeScorer(["rougeL"])
    references = [[REFERENCES[0]], REFERENCES[1]]
    for name, metric in (("chrf", metrics.CHRF()), ("bleu", metrics.BLEU(effective_order=True)), ("ter", metrics.TER())):
        expected = [metric.sentence_score(text, refs).score / 100 for text, refs in zip(RESPONSES, references, strict=False)]
        assert values[name][:2].tolist() == pytest.approx(expected, abs=1e-9)
    expected = [rouge.score_multi(refs, text)["rougeL"].fmeasure for text, refs in zip(RESPONSES, references, strict=False)]
    assert values["rougeL"][:2].tolist() == pytest.approx(expected, abs=1e-9)
    assert all(math.isnan(column[2]) for column in values.values())


def test_no_metric_is_refused():
    with pytest.raises(ConfigError, match="metrics"):
        ReferenceMetrics(Reviews(), metrics=())
