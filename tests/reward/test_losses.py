"""What a loss is given of the judgements: annotators' counts of its own kinds, the number of aspects."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.flow import Edit, Feedback, Judgement, Ranking, Rating
from rlhf_lightning.reward.losses import build_losses, judgements_of_annotators


def by(annotator: str | None, judgement: Judgement, *responses: str) -> Feedback:
    return Feedback(prompt="p", responses=responses, judgement=judgement, annotator=annotator)


@pytest.fixture
def judged() -> Judgements:
    rating = {aspect: Rating(value=1, scale=(0, 2), aspect=aspect) for aspect in (None, "clarity", "style")}
    return standardise(
        [
            by("ann", Ranking(ranks=(0, 1)), "a", "b"),
            by(None, Ranking(ranks=(0, 1)), "a", "b"),
            by("bob", rating["clarity"], "a"),
            by("ann", Edit(), "a", "c"),
            by("bob", rating["style"], "a"),
            by("ann", rating[None], "a"),
            by("ann", Ranking(ranks=(0, 1, 2)), "a", "b", "c"),
        ]
    )


def test_judgements_are_counted_by_annotator_and_kind(judged):
    assert judged.annotators == (None, "ann", "bob")
    assert judgements_of_annotators(judged, ("pair", "edit")).tolist() == [1, 2, 0]
    assert judgements_of_annotators(judged, ("rating",)).tolist() == [0, 1, 2]
    assert judgements_of_annotators(judged, ("thumbs",)).tolist() == [0, 0, 0]


def test_each_loss_gets_what_it_needs(judged):
    registry.load_components()
    nodes = {
        c.name: {"_target_": c.path, **({"annotator_noise": "learned"} if c.name in ("bradley_terry", "gaussian_rating") else {})}
        for c in registry.components("reward_loss")
        if c.target.__module__.startswith("rlhf_lightning.")
    }
    losses = dict(zip(nodes, build_losses(nodes, judged), strict=True))
    assert losses["bradley_terry"].errors.annotator_logit.judgements.tolist() == [1, 2, 1]  # at least 1, for a share of the prior
    assert losses["gaussian_rating"].annotator_log_spread.judgements.tolist() == [1, 1, 2]
    assert losses["gaussian_rating"].log_slope.shape == losses["ordinal"].log_slope.shape == (3,)
    assert list(losses["spans"].parameters()) == []


def test_a_loss_that_needs_something_else_is_refused(judged, monkeypatch):
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    greedy = registry.Component("reward_loss", "greedy", nn.Identity, object, frozenset(["moon"]))
    registry._components["reward_loss", "greedy"] = greedy
    with pytest.raises(ConfigError, match="reward_loss=greedy needs moon; a reward loss may need annotators, aspects"):
        build_losses({"greedy": {"_target_": greedy.path}}, judged)


def test_a_loss_s_own_parameters_have_their_own_learning_rate_and_no_decay():
    from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
    from rlhf_lightning.reward.loss.thumbs import LogisticThumbs
    from rlhf_lightning.reward.module import RewardModule
    from rlhf_lightning.reward.settings import RewardSettings

    model = nn.Linear(2, 1)
    settings = RewardSettings(learning_rate=1e-5, loss_learning_rate=0.02)
    thumbs = LogisticThumbs()
    groups = RewardModule(model, [BradleyTerry(), thumbs], settings, steps=10).configure_optimizers()["optimizer"].param_groups
    assert [(group["initial_lr"], group["weight_decay"]) for group in groups] == [(1e-5, 0.01), (0.02, 0.0)]
    assert [id(p) for p in groups[1]["params"]] == [id(thumbs.threshold)]
    alone = RewardModule(nn.Linear(2, 1), [BradleyTerry()], settings, steps=10).configure_optimizers()["optimizer"].param_groups
    assert len(alone) == 1
    assert all(isinstance(p, torch.Tensor) for p in alone[0]["params"])
