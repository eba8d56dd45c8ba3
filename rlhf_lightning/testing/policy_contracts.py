"""Contracts of rollouts, advantages and the policy's losses."""

from __future__ import annotations

import torch

from rlhf_lightning.policy.model import Critic
from rlhf_lightning.testing.trial import Trial, experience, scored_rollout, small_model


def rollout_sampler(trial: Trial) -> None:
    """Sample one response per prompt, within the limit, with its tokens' log-probabilities."""
    model = small_model()
    rollout = trial.make(max_new_tokens=4)(model, model.encode_prompts(["The lamp:", "The fan:"], 4))
    assert len(rollout.responses) == 2
    assert rollout.response_ids.shape == rollout.response_mask.shape == rollout.sampled_log_probs.shape
    assert rollout.response_mask.sum(1).max() <= 4
    assert (rollout.sampled_log_probs <= 0).all()


def rollout_scorer(trial: Trial) -> None:
    """Score each response; with a lexicon's words, the good above the bad."""
    responses = ["a good lamp", "a lamp", "a bad lamp"]
    if trial.has("path"):
        (trial.folder / "lexicon.tsv").write_text("good\t2.0\nbad\t-2.0\n")
        scores = trial.make(path=str(trial.folder / "lexicon.tsv"))(scored_rollout(responses))
        assert scores[0] > scores[1] > scores[2]
    else:
        scores = trial.make()(scored_rollout(responses))
    assert len(scores) == len(responses)


def rollout_shaping(trial: Trial) -> None:
    """Keep rewards finite and on the response's tokens."""
    scored = scored_rollout()
    shaped = trial.make()(scored)
    assert torch.isfinite(shaped.rewards).all()
    assert (shaped.rewards[scored.response_mask == 0] == 0).all()


def advantage(trial: Trial) -> None:
    """Estimate an advantage for each token of a response, and 0 elsewhere."""
    scored = scored_rollout()
    estimate = trial.make()(scored)
    assert estimate.advantages.shape == scored.rewards.shape
    assert torch.isfinite(estimate.advantages).all()
    assert (estimate.advantages[scored.response_mask == 0] == 0).all()


def policy_critic(trial: Trial) -> None:
    """Make a critic of the policy's width."""
    critic = trial.make(small_model(), lambda rollout: rollout.scores)()
    assert isinstance(critic, Critic)
    assert critic.head(torch.randn(3, 16)).shape == (3, 1)


def policy_loss(trial: Trial) -> None:
    _check_per_token(trial, "old_log_probs")


def policy_value_loss(trial: Trial) -> None:
    _check_per_token(trial, "values")


def _check_per_token(trial: Trial, field: str) -> None:
    """Check for a loss per token, finite gradients, and none outside the mask."""
    record = experience()
    inputs = getattr(record, field).clone().requires_grad_()
    per_token, metrics = trial.make()(record, inputs)
    assert per_token.shape == record.response_mask.shape
    per_token.sum().backward()
    assert torch.isfinite(inputs.grad).all()
    assert (inputs.grad[record.response_mask == 0] == 0).all(), "a token outside the mask has a gradient"
    assert all(value.numel() == 1 for value in metrics.values())


def policy_correction(trial: Trial) -> None:
    """Weigh each token by a number that isn't negative."""
    record = experience()
    weights, metrics = trial.make()(record)
    assert weights.shape == record.response_mask.shape
    assert (weights >= 0).all()
    assert all(torch.isfinite(value).all() for value in metrics.values())


def policy_kl(trial: Trial) -> None:
    """Shape the rewards, or add a loss per token."""
    penalty, record = trial.make(), experience()
    assert penalty.shape_rewards(record).rewards.shape == record.response_mask.shape
    in_loss = penalty.per_token_loss(record, record.old_log_probs)
    assert in_loss is None or in_loss[0].shape == record.response_mask.shape


def policy_reduction(trial: Trial) -> None:
    """Reduce what the mask covers to one number."""
    reduce = trial.make()
    per_token, mask = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert reduce(per_token, mask).shape == ()
    assert reduce(per_token, mask) == reduce(per_token * mask, mask)


def policy_kl_control(trial: Trial) -> None:
    """Start at the coefficient, and never make it negative."""
    control = trial.make(coef=0.1)
    assert control.value() == 0.1
    for kl in (0.0, 100.0):
        control.update(kl, 8)
        assert control.value() >= 0


CONTRACTS = {
    contract.__name__: contract
    for contract in (
        rollout_sampler, rollout_scorer, rollout_shaping, advantage, policy_critic, policy_loss, policy_value_loss, policy_correction,
        policy_kl, policy_reduction, policy_kl_control,
    )
}  # fmt: skip
