"""A saved reward model as a scorer: the same numbers, from the texts."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.storage.folder import save_reward_model
from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer

PROMPTS, RESPONSES = ["Review of a lamp:\n", "It", "The kettle"], ["It is a quiet fan.", " costs", " boils water quickly."]


@pytest.fixture
def model(tiny_of, tmp_path) -> RewardModel:
    tiny_of("llama").save(tmp_path / "policy")
    torch.manual_seed(0)
    trunk, tokenizer = load_trunk(str(tmp_path / "policy"))
    model = RewardModel(ComposedScore(trunk, last, LinearHead(trunk.config.hidden_size)), tokenizer, 64).eval()
    model.normalise(PROMPTS, RESPONSES)
    save_reward_model(model, tmp_path / "rm", {"head": "linear", "head_settings": {}, "pooling": "last"})
    return model


def test_scores_are_those_of_the_model_that_was_saved(model, scored_of, tmp_path):
    scorer = RewardModelScorer(path=str(tmp_path / "rm"))
    rollout = scored_of(torch.ones(3, 2), prompts=PROMPTS, responses=RESPONSES)  # other tokens: texts are what is scored
    scores = scorer(rollout)
    torch.testing.assert_close(scores, model.score_texts(PROMPTS, RESPONSES), rtol=0, atol=1e-5)
    assert scores.std() > 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scorer(rollout), scores)


def test_the_model_is_frozen(model, tmp_path):
    scorer = RewardModelScorer(path=str(tmp_path / "rm"))
    assert not any(parameter.requires_grad for parameter in scorer.model.parameters())
    assert not any(module.training for module in scorer.model.modules())


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(DataError, match="reward model: no folder"):
        RewardModelScorer(path=str(tmp_path / "nowhere"))
