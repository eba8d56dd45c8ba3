"""Pooling and head: made with what they need, called with what they read, and the same after saving, for every head and pooling."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from torch import nn

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.flow import Edit, Feedback, Judgement, Ranking, Rating
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.registry import components, load_components
from rlhf_lightning.reward.components import (
    apply_head,
    build_losses,
    head_arguments,
    judgements_of_annotators,
    needs_of,
    pool,
    pooling_arguments,
    response_mask,
)
from rlhf_lightning.reward.head.attributes import AttributesHead
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.head.token import TokenHead
from rlhf_lightning.reward.pooling.attention import AttentionPooling
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.pooling.response_mean import response_mean
from rlhf_lightning.reward.storage.folder import load_reward_model, save_reward_model

load_components()
HEADS = [component.name for component in components("reward_head") if "texts" not in component.needs]
POOLINGS = [component.name for component in components("reward_pooling")]
TOKENS = PackedTokens.of([[1, 2, 3, 4], [1, 2]], [1, 1])
HIDDEN = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def test_parts_are_made_with_what_they_need():
    assert head_arguments("linear", 8, [None, "a"]) == (8,)
    assert head_arguments("attributes", 8, [None, "a"]) == (8, [None, "a"])
    assert head_arguments("gated", 8, [None]) == (8,)  # a plugin's
    assert [pooling_arguments(name, 8) for name in ("last", "attention")] == [(), (8,)]
    with pytest.raises(ConfigError, match="no option reward_head=nothing"):
        head_arguments("nothing", 8, [None])


def test_needs_are_read_from_what_is_made():
    assert needs_of(TokenHead(3)) == {"tokens"}
    assert needs_of(AttributesHead(3, [None, "a"])) == {"aspects"}
    assert needs_of(response_mean) == needs_of(functools.partial(response_mean)) == {"response"}
    assert needs_of(nn.Linear(3, 1)) == needs_of(lambda hidden, mask: hidden) == needs_of(AttentionPooling(3)) == frozenset()


def test_the_response_begins_where_the_tokens_say():
    assert response_mask(MASK, TOKENS).tolist() == [[0, 1, 1, 1], [0, 1, 0, 0]]
    assert response_mask(MASK, PackedTokens.of([[1, 2, 3, 4], [1, 2]], [4, 0])).tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    assert response_mask(MASK.bool(), TOKENS).tolist() == response_mask(MASK, TOKENS).bool().tolist()
    assert torch.equal(response_mask(MASK, PackedTokens.of([[1, 2, 3, 4], [1, 2]])), MASK)


def test_a_head_reads_the_pooled_vector_or_the_tokens():
    linear, token = LinearHead(3), TokenHead(3, reduction="sum")
    assert torch.equal(apply_head(last, linear, HIDDEN, MASK, TOKENS), linear(HIDDEN[[0, 1], [3, 1]]))
    assert torch.allclose(pool(response_mean, HIDDEN, MASK, TOKENS), torch.stack([HIDDEN[0, 1:].mean(0), HIDDEN[1, 1]]))
    assert torch.equal(pool(mean, HIDDEN, MASK, TOKENS), mean(HIDDEN, MASK))
    scored = apply_head(last, token, HIDDEN, MASK, TOKENS)
    values = token.value(HIDDEN)
    assert torch.allclose(scored.scores, torch.stack([values[0, 1:].sum(), values[1, 1]]))
    assert torch.allclose(scored.tokens, torch.cat([torch.zeros(1), values[0, 1:], torch.zeros(1), values[1, 1:2]]))


def words(world, head: str, pooling: str = "last") -> list[str]:
    return world.reward(
        *(world.aspects if head == "attributes" else []), f"reward_head={head}", f"reward_pooling={pooling}", "reward.learning_rate=1e-2"
    )


def by_default(i: int, j: int, head: str, pooling: str) -> bool:
    """Each head and each pooling at least once, and each pooling with the head of tokens, which may read what was not pooled."""
    return (pooling != "cls" and (head == "token" or (i + j) % 4 == 0)) or (head, pooling) in {("token", "cls"), ("linear", "cls")}


@pytest.mark.parametrize(
    ("head", "pooling"),
    [
        pytest.param(head, pooling, marks=[pytest.mark.full] * (not by_default(i, j, head, pooling)))
        for i, head in enumerate(HEADS)
        for j, pooling in enumerate(POOLINGS)
    ],
)
@torch.no_grad()
def test_every_head_on_every_pooling_is_trained_and_comes_back(command, world, head, pooling):
    outcome = command(*words(world, head, pooling))
    if pooling == "cls" and head != "token":
        assert outcome.code == 2
        assert "reward_pooling=cls reads the first token" in outcome.error
        return
    assert outcome.code == 0, outcome.error
    folder = outcome.folder / "reward_model"
    card = json.loads((folder / "reward_model.json").read_text())
    assert (card["head"], card["pooling"]) == (head, pooling)
    model = load_reward_model(str(folder)).eval()
    texts = [("The lamp:", " a good lamp."), ("The fan:", " bad, bad fan"), ("The tent:", "")]
    together = model.score_texts(*zip(*texts, strict=True))
    alone = torch.cat([model.score_texts([prompt], [response]) for prompt, response in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std() > 1e-4
    save_reward_model(model, outcome.folder / "again", model.metadata if model.metadata else card)
    again = load_reward_model(str(outcome.folder / "again")).eval()
    assert torch.equal(again.score_texts(*zip(*texts, strict=True)), together)
    if pooling == "attention" and head != "token":
        assert model.net.pooling.query.any()
        assert torch.equal(again.net.pooling.query, model.net.pooling.query)


@pytest.mark.parametrize(
    ("family", "pooling", "head"),
    [("bert", "cls", "token"), ("bert", "attention", "ensemble"), ("t5", "response_mean", "ensemble"), ("t5", "last", "token")],
)
def test_encoders_and_encoder_decoders_take_heads_and_poolings(command, world, family, pooling, head):
    outcome = command(*words(world, head, pooling), *world.reader(family))
    assert outcome.code == 0, outcome.error
    model = load_reward_model(str(outcome.folder / "reward_model")).eval()
    one, other = model.score_texts(["The lamp:"] * 2, [" a good lamp.", " bad, bad lamp"]).tolist()
    assert one != other


LIKE_LINEAR = ("linear", "mlp", "gated")
"""Heads of one vector: every other test of stage=ppo has a reward model with reward_head=linear."""


@pytest.mark.parametrize("head", [pytest.param(head, marks=[pytest.mark.full] * (head in LIKE_LINEAR)) for head in HEADS])
def test_a_policy_is_tuned_against_every_head(command, world, head):
    reward = command(*words(world, head))
    assert reward.code == 0, reward.error
    outcome = command(*world.ppo(f"rollout_scorer.reward_model.path={reward.folder / 'reward_model'}"))
    assert outcome.code == 0, outcome.error


def test_the_settings_of_a_head_come_back(command, world):
    given = [
        "reward_head.members=3",
        "reward_head.member=mlp",
        "reward_head.hidden=8",
        "reward_head.bootstrap=true",
        "reward_head.coef=0.3",
    ]
    ensemble = command(*words(world, "ensemble"), *given)
    assert ensemble.code == 0, ensemble.error
    head = load_reward_model(str(ensemble.folder / "reward_model")).net.head
    assert (len(head.members), head.bootstrap, head.coef) == (3, True, 0.3)
    assert isinstance(head.members[0], MLPHead)
    assert head.level.any()
    mixed = command(*words(world, "attributes"), "reward_head.weights={truth: 2.0, length: -1.0}")
    assert mixed.code == 0, mixed.error
    assert load_reward_model(str(mixed.folder / "reward_model")).net.head.named_weights() == {"length": -1.0, "truth": 2.0}


def test_a_mixture_of_what_was_not_rated_is_refused(command, world):
    unknown = command(*words(world, "attributes"), "reward_head.weights={thruth: 2.0}")
    assert unknown.code == 2
    assert "reward_head.weights.thruth" in unknown.error
    none = command(*world.reward("reward_head=attributes"))
    assert none.code == 2
    assert "reward_head=attributes learns from ratings of named aspects, and this feedback has none" in none.error


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
