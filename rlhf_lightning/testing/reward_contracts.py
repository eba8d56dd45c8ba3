"""Contracts of the reward model's components, preference losses and adapters."""

from __future__ import annotations

import torch

from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.regression.family import as_family
from rlhf_lightning.testing.trial import Trial, judgement_batch, small_model


def reward_pooling(trial: Trial) -> None:
    """Pool each text into one vector, to which padding adds nothing."""
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    pool = trial.make(4) if trial.is_class else trial.make()
    phi = pool(hidden, mask)
    assert phi.shape == (2, 4)
    assert torch.equal(phi, pool(torch.where(mask[:, :, None] == 1, hidden, 9.0), mask)), "padding changes a text's vector"


def reward_head(trial: Trial) -> None:
    """Score each text, with a gradient for each weight."""
    head = trial.make(8)
    scores = head(torch.randn(5, 8))
    assert scores.shape == (5,)
    scores.sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())


def tuning(trial: Trial) -> None:
    """Leave a weight to train, of a frozen model."""
    model = small_model().model.requires_grad_(False)
    tuned = trial.make()(model)
    assert any(weight.requires_grad for weight in (tuned if isinstance(tuned, torch.nn.Module) else model).parameters())


def reward_feature(trial: Trial) -> None:
    """Return the numbers that the family names, for an empty response too."""
    texts = [("The lamp:", "a good lamp. It is quiet."), ("The fan:", ""), ("The fan:", "a good fan")]
    family = as_family(trial.component.name, trial.make())
    family.fit(texts)
    assert all(len(row) == len(family.names) for row in family.rows(texts))


def reward_loss(trial: Trial) -> None:
    """Cost less where the scores are in the judgement's order."""
    loss = trial.make()
    batch = judgement_batch(Feedback(prompt="The lamp:", responses=("good", "bad"), judgement=Ranking(ranks=(0, 1))))
    right, weights = loss(ScoredBatch(scores=torch.tensor([1.0, 0.0])), batch)
    wrong, _ = loss(ScoredBatch(scores=torch.tensor([0.0, 1.0])), batch)
    assert right.shape == weights.shape == (1,)
    assert right < wrong


def preference_loss(trial: Trial) -> None:
    """Cost less where the policy prefers the better answer."""
    loss = trial.make()
    more, less = (Answers(torch.tensor([log_prob]), torch.tensor([4]), torch.tensor([-5.0])) for log_prob in (-4.9, -5.1))
    right, wrong = loss(Compared(more, less)), loss(Compared(less, more))
    assert right.shape == (1,)
    assert right < wrong
    assert loss.rewards(more).shape == (1,)


CONTRACTS = {
    "reward_pooling": reward_pooling, "reward_head": reward_head, "reward_tuning": tuning, "reward_feature": reward_feature,
    "reward_loss": reward_loss, "preference_loss": preference_loss, "policy_tuning": tuning,
}  # fmt: skip
