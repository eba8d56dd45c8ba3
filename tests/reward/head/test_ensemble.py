"""Several heads: what they say together, what each is trained on, and where they agree on 0."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.head.ensemble import EnsembleHead
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead


@pytest.fixture
def phi() -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("coef", [0.0, 0.5, 2.0])
def test_the_score_is_the_mean_less_coef_deviations(phi, coef):
    head = EnsembleHead(5, members=3, coef=coef)
    weights = [member.weight.weight[0].detach() for member in head.members]
    each = [[float(row @ w) for w in weights] for row in phi]
    for row, score in zip(each, head(phi).scores.tolist(), strict=True):
        mean = sum(row) / 3
        deviation = math.sqrt(sum((s - mean) ** 2 for s in row) / 3)
        assert score == pytest.approx(mean - coef * deviation, abs=1e-5)
    assert torch.allclose(head(phi).members, torch.tensor(each).T, atol=1e-5)


def test_the_worst_member_s_score(phi):
    head = EnsembleHead(5, members=4, aggregation="worst")
    assert torch.equal(head(phi).scores, torch.stack([member(phi) for member in head.members]).amin(0))


@pytest.mark.parametrize(("member", "kind"), [("linear", LinearHead), ("mlp", MLPHead)])
def test_members_start_apart_and_as_they_start_alone(member, kind):
    torch.manual_seed(0)
    head = EnsembleHead(64, members=8, member=member, hidden=32)
    assert [type(m) for m in head.members] == [kind] * 8
    first, second = ([p.detach() for p in m.parameters() if p.dim() > 1] for m in head.members[:2])
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.manual_seed(0)
    alone = kind(64) if member == "linear" else kind(64, hidden=32)
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), head.members[0].state_dict().values(), strict=True))
    if member == "linear":
        assert torch.cat(first + second).std().item() == pytest.approx(1 / math.sqrt(65), rel=0.2)


def test_each_member_has_a_view_of_its_own_with_the_gradient_that_it_would_have_alone(phi):
    head = EnsembleHead(5, members=3)
    views = list(head(phi).views())
    assert [view.members for view in views] == [None] * 3
    for member, view in zip(head.members, views, strict=True):
        weight = member.weight.weight
        (found,) = torch.autograd.grad(view.scores.square().sum(), weight, retain_graph=True)
        (alone,) = torch.autograd.grad(member(phi).square().sum(), weight)
        assert torch.allclose(found, alone)
        others = [m.weight.weight for m in head.members if m is not member]
        unseen = torch.autograd.grad(view.scores.sum(), others, allow_unused=True, materialize_grads=True, retain_graph=True)
        assert not any(gradient.any() for gradient in unseen)


def test_members_that_agree_have_a_finite_gradient(phi):
    head = EnsembleHead(5, members=2)
    head.members[1].load_state_dict(head.members[0].state_dict())
    scored = head(phi)
    assert torch.allclose(scored.scores, scored.members[0], atol=2e-6)
    scored.scores.sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head.parameters())


def test_a_level_is_taken_off_before_members_are_compared(phi):
    """A constant that comparisons can't see is no disagreement once it is the level."""
    head = EnsembleHead(5, members=2, coef=1.0)
    with torch.no_grad():
        head.members[1].weight.weight.copy_(head.members[0].weight.weight)
        head.members[1].weight.bias = torch.nn.Parameter(torch.tensor([3.0]))
    apart = head(phi)
    assert torch.allclose(apart.scores, apart.members.mean(0) - 1.5, atol=1e-5)
    head.level.copy_(torch.tensor([0.0, 3.0]))
    assert torch.allclose(head(phi).scores, head.members[0](phi), atol=1e-5)
    assert "level" in head.state_dict()
