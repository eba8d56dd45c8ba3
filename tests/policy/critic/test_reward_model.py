"""policy_critic=reward_model: the critic's value of a whole response is the reward model's normalised score of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.policy.critic.reward_model import reward_model
from rlhf_lightning.reward.storage.folder import load_reward_model
from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer

TEXTS = [("The lamp:", " a good lamp."), ("The kettle:", " bad, bad kettle"), ("It", "")]


@pytest.fixture
def policy(world):
    return causal([], path=str(world.policy))


@torch.no_grad()
def test_the_critic_begins_as_the_reward_model(world, policy):
    scorer = RewardModelScorer(path=str(world.reward_model))
    critic = reward_model(policy, scorer, warmup=3)
    assert critic.warmup == 3
    tokens = scorer.model.tokenise(TEXTS)
    ends = tokens.lengths.cumsum(0) - 1
    values = critic.head(text_vectors(critic.trunk, tokens)[ends]).squeeze(-1)
    assert torch.allclose(values, scorer.model(tokens), atol=1e-5)
    assert values.std() > 1e-3


def test_it_learns_and_the_scorer_stays(world, policy):
    scorer = RewardModelScorer(path=str(world.reward_model))
    before = {name: value.clone() for name, value in scorer.model.state_dict().items()}
    critic = reward_model(policy, scorer)
    assert all(parameter.requires_grad for parameter in critic.parameters())
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 1.0
    assert all(torch.equal(value, before[name]) for name, value in scorer.model.state_dict().items())


def test_what_no_critic_can_begin_as_is_refused(world, policy):
    with pytest.raises(ConfigError, match="reward_head=linear and reward_pooling=last"):
        reward_model(policy, lambda rollout: torch.zeros(len(rollout)))
    model = load_reward_model(str(world.reward_model))
    model.metadata["pooling"] = "mean"
    with pytest.raises(ConfigError, match="policy_critic=separate"):
        reward_model(policy, SimpleNamespace(model=model))
    other = tiny(["quite other texts"], layers=1, width=16, heads=2, vocabulary=260, positions=32)
    with pytest.raises(ConfigError, match="another tokenizer"):
        reward_model(other, RewardModelScorer(path=str(world.reward_model)))


@pytest.mark.slow
def test_a_run_with_it_learns_the_critic_first(world, command):
    outcome = command(*world.ppo("policy_critic=reward_model", "policy_critic.warmup=1", "ppo.ptx_coef=0.1"))
    assert outcome.code == 0, outcome.error
    lexicon = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files}/lexicon.tsv"]
    refused = command(*world.ppo("policy_critic=reward_model", *lexicon))
    assert refused.code == 2
    assert "policy_critic=reward_model starts as the reward model, but rollout_scorer=[lexicon]" in refused.error
