"""The libraries' own numbers."""

from __future__ import annotations

import logging

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rollout.scorer.reference import ReferenceScorer

RESPONSES = ["the cat sat on the mat", "", "a dog", "the cat is on the mat today"]
REFERENCES = ["the cat is on the mat", "a text", ["a dog barks", "a dog"], None]


@pytest.mark.parametrize("metric", ["chrf", "chrf++", "bleu", "rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_scores_are_the_library_s(scored_of, metric):
    try:
        scorer = ReferenceScorer(metric=metric)
    except ConfigError:
        pytest.skip("the extra metrics isn't installed")
    ReferenceScorer(metric="rouge1")  # imports rouge-score as it must be, before the test does
    sacrebleu, rouge_scorer = pytest.importorskip("sacrebleu"), pytest.importorskip("rouge_score.rouge_scorer")
    tokenizer = pytest.importorskip("rouge_score.tokenizers").DefaultTokenizer()

    def expected(response: str, references: list[str]) -> float:
        if metric.startswith("rouge"):
            rouge = rouge_scorer.RougeScorer([metric], tokenizer=tokenizer)
            return max(rouge.score(reference, response)[metric].fmeasure for reference in references)
        if metric == "bleu":
            return sacrebleu.sentence_bleu(response, references).score / 100
        return sacrebleu.sentence_chrf(response, references, word_order=2 if metric == "chrf++" else 0).score / 100

    rollout = scored_of(torch.ones(4, 1), responses=RESPONSES, columns={"reference": REFERENCES})
    handlers = list(logging.root.handlers)
    scores = scorer(rollout)
    assert logging.root.handlers == handlers, "absl adds one where it logs"
    wanted = [expected(text, [ref] if isinstance(ref, str) else ref) for text, ref in zip(RESPONSES, REFERENCES[:3], strict=False)]
    assert scores[:3] == pytest.approx(wanted, abs=1e-9)
    assert scores[3] is None
    assert scores[2] == pytest.approx(1.0 if metric not in ("bleu", "rouge2") else scores[2])
