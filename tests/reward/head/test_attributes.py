"""A score for each aspect, and their mixture."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.head.attributes import AttributesHead

ASPECTS = [None, "help", "truth", "length"]
PHI = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_the_total_is_the_weighted_sum_and_stands_first():
    head = AttributesHead(5, ASPECTS, weights={"truth": 2.0, "length": -0.5})
    with torch.no_grad():
        head.bias.copy_(torch.tensor([9.0, 0.3, -0.2]))
    w = [column.weight.weight[0].detach() for column in head.columns]
    for row, total, aspects in zip(PHI, head(PHI).scores.tolist(), head(PHI).aspects.tolist(), strict=True):
        each = [float(row @ w[0]) + 9.0, float(row @ w[1]) + 0.3, float(row @ w[2]) - 0.2]
        assert aspects == pytest.approx([total, *each], abs=1e-5)
        assert total == pytest.approx(2 * each[1] - 0.5 * each[2], abs=1e-5)
    assert head(PHI).aspects.shape == (6, 4)
    assert [name for name, _ in head.named_parameters()].count("mixture") == 0
    assert head.named_weights() == {"help": 0.0, "truth": 2.0, "length": -0.5}


def test_the_start():
    torch.manual_seed(0)
    head = AttributesHead(9999, ASPECTS)
    assert head.named_weights() == pytest.approx({"help": 1 / 3, "truth": 1 / 3, "length": 1 / 3})
    assert not head.bias.any()
    for column in head.columns:
        assert column.weight.weight.std().item() == pytest.approx(1 / math.sqrt(10_000), rel=0.05)


def test_a_rating_of_an_aspect_trains_its_own_column_and_comparisons_the_mixture(batch_with):
    index = torch.tensor
    ratings = batch_with(ratings={"item": index([0, 1, 2, 3]), "aspect": index([1, 1, 0, 0])}).ratings
    head = AttributesHead(5, [None, "truth", "help"])
    scored = head(PHI)
    found = scored.of_aspect(ratings.item, ratings.aspect)
    assert torch.equal(found[:2], scored.aspects[:2, 1])
    assert torch.equal(found[2:], scored.scores[2:4])
    parameters = {"own": head.columns[0].weight.weight, "other": head.columns[1].weight.weight, "mixture": head.mixture}
    for said, touched in (
        (found[:2].square().sum(), {"own"}),
        (found[2:].square().sum(), {"own", "other", "mixture"}),
        (scored.scores[0] - scored.scores[1], {"own", "other", "mixture"}),
    ):
        gradients = torch.autograd.grad(said, list(parameters.values()), materialize_grads=True, retain_graph=True, allow_unused=True)
        assert {name for name, gradient in zip(parameters, gradients, strict=True) if gradient.any()} == touched


def test_a_known_mixture_is_recovered_from_ratings_and_comparisons():
    """Aspects from their ratings, the weights from the probabilities of comparisons of the total, one of them negative."""
    torch.manual_seed(0)
    phi, true = torch.randn(200, 4), torch.randn(4, 2)
    totals = phi @ true @ torch.tensor([1.5, -0.7])
    one, other = torch.randint(200, (2, 500))
    probabilities = torch.sigmoid(totals[one] - totals[other])
    head = AttributesHead(4, [None, "a", "b"])
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scored = head(phi)
        difference = scored.scores[one] - scored.scores[other]
        loss = binary_cross_entropy_with_logits(difference, probabilities) + (scored.aspects[:, 1:] - phi @ true).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert head.named_weights() == pytest.approx({"a": 1.5, "b": -0.7}, abs=0.01)


@pytest.mark.parametrize(
    ("aspects", "weights", "message"),
    [
        ([None], None, r"ratings of named aspects, and this feedback has none: .*feedback_format=\[attributes\]"),
        (ASPECTS, {"thruth": 1.0}, r"reward_head\.weights\.thruth: .*did you mean 'truth'\?; rated were: help, truth, length"),
        (ASPECTS, {"help": 0.0}, "gives no aspect a weight"),
        (ASPECTS, {}, "gives no aspect a weight"),
    ],
)
def test_what_can_not_be_mixed_is_refused(aspects, weights, message):
    with pytest.raises(ConfigError, match=message):
        AttributesHead(5, aspects, weights=weights)
