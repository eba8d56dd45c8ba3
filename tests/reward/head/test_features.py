"""The option reward_head=features: its settings reach the fit."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import component_of, make
from rlhf_lightning.reward.head.features import FeaturesHead
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry

PAIRS = [
    Feedback(prompt=f"p{i}", responses=("short " * (i % 3 + 1), "much longer words " * (i % 4 + 2)), judgement=Ranking(ranks=(1, 0)))
    for i in range(30)
]


def test_it_learns_and_explains():
    head = make("reward_head", "features", {}, {"length": {}, "repetition": {}})
    assert isinstance(head, FeaturesHead)
    done = head.fit(standardise(PAIRS), [BradleyTerry()])
    assert done.l2 in done.tried
    scores = head.score.score_texts(["new", "new"], ["short", "much longer words and more of them"])
    assert scores[1] > scores[0]
    bias, reasons = head.score.explain("new", "short")
    assert bias + sum(reason.contribution for reason in reasons) == pytest.approx(scores[0].item(), abs=1e-6)


def test_settings_reach_the_fit():
    strong, weak = (FeaturesHead({"length": {}}, l2=l2) for l2 in (10.0, 0.01))
    assert [head.fit(standardise(PAIRS), [BradleyTerry()]).l2 for head in (strong, weak)] == [10.0, 0.01]
    assert strong.score.weight.norm() < weak.score.weight.norm()
    stepwise = FeaturesHead({"length": {}}, l2=0.1, solver="gradient", epochs=1, batch_size=8)
    exact = FeaturesHead({"length": {}}, l2=0.1)
    for head in (stepwise, exact):
        head.fit(standardise(PAIRS), [BradleyTerry()])
    assert not torch.allclose(stepwise.score.weight, exact.score.weight)


def test_it_asks_for_texts_and_refuses_bad_settings():
    registry.load_components()
    node = {"_target_": "rlhf_lightning.reward.head.features.FeaturesHead"}
    assert component_of(node).needs == {"texts"}
    with pytest.raises(ConfigError, match="l2"):
        make("reward_head", "features", {"l2": -1}, {"length": {}})
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        FeaturesHead({"lenght": {}})
