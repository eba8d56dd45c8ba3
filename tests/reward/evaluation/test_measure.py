"""Parts by prompt, scores that must not depend on their company, and how far models agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.reward.evaluation import measure as module
from rlhf_lightning.reward.evaluation.measure import batch_change, log_odds, reward_agreements, sample_texts, split_by_prompt
from rlhf_lightning.reward.model import RewardModel


def pair(prompt: str, one: str = "a", two: str = "b") -> Feedback:
    return Feedback(prompt=prompt, responses=(one, two), judgement=Ranking(ranks=(0, 1)))


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_parts_keep_a_prompt_together_and_lose_nothing(size):
    judged = standardise([pair(f"prompt {i * 7 % 11}", f"text {i}") for i in range(40)])
    parts = list(split_by_prompt(judged, size))
    seen = [{record.feedback.prompt for record in part} for part in parts]
    assert all(not one & other for one, other in itertools.combinations(seen, 2))
    assert sorted(record.index for part in parts for record in part) == list(range(40))
    assert all(len(part) >= min(size, 40) for part in parts[:-1])
    assert all(len(part) < size + 4 for part in parts)
    assert list(split_by_prompt(judged[:0], size)) == []


class Neighbours:
    """A broken model: a text's score knows how many others are in the batch."""

    def score_texts(self, prompts: Sequence[object], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        return torch.tensor([len(text) + 0.01 * min(batch_size, len(responses)) for text in responses])


def test_a_model_that_looks_at_its_neighbours_is_found_out(tiny_of):
    texts = [("p", "x" * i) for i in range(1, 9)]
    assert batch_change(Neighbours(), texts) == pytest.approx(0.05, abs=1e-5)
    assert batch_change(Neighbours(), []) == 0


def test_a_real_model_scores_alike_in_any_company(tiny_of):
    from rlhf_lightning.reward.head.linear import LinearHead
    from rlhf_lightning.reward.net import ComposedScore
    from rlhf_lightning.reward.pooling.last import last

    made = tiny_of("llama")
    torch.manual_seed(0)
    model = RewardModel(ComposedScore(made.model.base_model, last, LinearHead(32)), made.tokenizer, 64)
    model.deviation.fill_(0.5)
    texts = [("The kettle", " boils" * (i % 7) + f" {i}") for i in range(20)]
    model.eval()
    with torch.no_grad():
        assert 0 <= batch_change(model, texts) < 1e-4
        raw = model.raw_scores(model.tokenise(texts)).scores.double()
        found = log_odds(model, texts)
    assert torch.allclose(found - found[0], raw - raw[0], atol=1e-5)


def test_the_texts_compared_are_whole_prompts(monkeypatch):
    judged = standardise([pair(f"prompt {i % 30}", f"text {i}", f"other {i}") for i in range(90)])
    assert sorted(sample_texts(judged)) == sorted(judged.texts())
    monkeypatch.setattr(module, "SAMPLED_TEXTS", 20)
    found = sample_texts(judged, seed=1)
    prompts = {prompt for prompt, _ in found}
    assert len(found) == 24, "four prompts of six texts are the first to reach twenty"
    assert set(found) == {text for text in judged.texts() if text[0] in prompts}
    assert found == sample_texts(judged, seed=1)
    assert prompts != {prompt for prompt, _ in sample_texts(judged, seed=2)}


def test_agreement_of_models_is_scipys_and_the_share_of_equal_orders():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    texts = [(f"prompt {i % 9}", f"text {i}") for i in range(50)]
    columns = {name: torch.tensor(rng.integers(0, 12, 50) + 3.0 * (np.arange(50) % 9)) for name in ("a", "b", "c")}
    found = reward_agreements(columns, texts)
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for one in found:
        a, b = columns[one.first].numpy(), columns[one.second].numpy()
        assert one.spearman == pytest.approx(stats.spearmanr(a, b).statistic)
        assert one.kendall == pytest.approx(stats.kendalltau(a, b).statistic)
        pairs = [(i, j) for i, j in itertools.combinations(range(50), 2) if texts[i][0] == texts[j][0]]
        assert one.same_order == pytest.approx(np.mean([np.sign(a[i] - a[j]) == np.sign(b[i] - b[j]) for i, j in pairs]))
    alone = reward_agreements({"a": columns["a"][:9], "b": columns["a"][:9]}, texts[:9])[0]
    assert (alone.same_order, alone.spearman, alone.texts) == (None, pytest.approx(1), 9)
