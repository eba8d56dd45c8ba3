"""Weights that are known are found again; ratings alone give numpy's least squares."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating
from rlhf_lightning.reward.feature import ngrams, readability, sentiment  # noqa: F401  (registers them)
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating
from rlhf_lightning.reward.loss.ordinal import Ordinal
from rlhf_lightning.reward.loss.plackett_luce import PlackettLuce
from rlhf_lightning.reward.regression import solver
from rlhf_lightning.reward.regression.collation import collate_plain
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.fitting import FACTORS, PENALTIES, CrossValidation, Penalties, fit_feature_score, prompt_folds
from rlhf_lightning.reward.regression.solver import Gradient, solve
from rlhf_lightning.reward.regression.sparse import CentredMatrix, build_matrix

FEATURES = {"readability": {}, "sentiment": {}}
WORDS = [
    "good",
    "great",
    "awful",
    "bad",
    "interesting",
    "extraordinarily",
    "seventh",
    "letters",
    "table",
    "simple",
    "we",
    "go",
    "to",
    "horrible",
]


def losses() -> list[nn.Module]:
    return [BradleyTerry(), PlackettLuce(), GaussianRating()]


def response(rng: random.Random) -> str:
    return ". ".join(" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 3)))


def prepared(texts: Sequence[tuple[str, str]]) -> tuple[FeatureScore, Tensor]:
    score = FeatureScore(FEATURES)
    score.prepare(texts)
    return score, score.phi(texts)


def simulated(kind: str, count: int, truth: Tensor) -> list[Feedback]:
    """Judgements whose likelihood is that of the losses, at weights `truth` on the features standardised over all texts."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    size = {"pair": 2, "edit": 2, "ranking": 4, "rating": 1}[kind]
    rows = [(f"p{i}", tuple(response(rng) for _ in range(size))) for i in range(count)]
    texts = list(dict.fromkeys((prompt, text) for prompt, responses in rows for text in responses))
    score, phi = prepared(texts)
    assert len(score.names) == len(truth)
    utility = dict(zip(texts, (phi @ truth).tolist(), strict=True))
    found = []
    for prompt, responses in rows:
        own = torch.tensor([utility[prompt, text] for text in responses], dtype=torch.float64)
        # Gumbel noise makes an order of Plackett and Luce.
        noisy = own - torch.log(-torch.log(torch.rand(size, generator=generator, dtype=torch.float64)))
        order = noisy.argsort(descending=True).tolist()
        if kind == "edit":
            found.append(Feedback(prompt=prompt, responses=(responses[order[1]], responses[order[0]]), judgement=Edit()))
        elif kind == "rating":
            value = float(own[0] + 0.5 * torch.randn(1, generator=generator, dtype=torch.float64))
            found.append(Feedback(prompt=prompt, responses=responses, judgement=Rating(value=value, scale=(-50.0, 50.0))))
        else:
            ranks = tuple(order.index(i) for i in range(size))
            found.append(Feedback(prompt=prompt, responses=responses, judgement=Ranking(ranks=ranks)))
    return found


@pytest.mark.parametrize(("kind", "count", "bound"), [("pair", 3000, 0.12), ("edit", 3000, 0.12), ("ranking", 2500, 0.08)])
def test_known_weights_are_found_again(kind, count, bound):
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    score = FeatureScore(FEATURES)
    fit_feature_score(score, standardise(simulated(kind, count, truth)), losses(), l2=0.0)
    assert torch.cosine_similarity(score.weight, truth, dim=0) > 0.99
    assert (score.weight - truth).abs().max() < bound


def test_known_weights_are_found_again_from_ratings():
    """z-scores have another unit: the direction is known, and the unit is one over the deviation of all ratings."""
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    feedback = simulated("rating", 3000, truth)
    score = FeatureScore(FEATURES)
    fit_feature_score(score, standardise(feedback), losses(), l2=0.0)
    unit = np.std([r.judgement.value for r in feedback if isinstance(r.judgement, Rating)])
    assert torch.cosine_similarity(score.weight, truth, dim=0) > 0.99
    assert (score.weight * unit - truth).abs().max() < 0.1


def ratings(count: int = 60) -> list[Feedback]:
    rng = random.Random(3)
    texts = [("p", response(rng)) for _ in range(count // 2)]
    return [
        Feedback(
            prompt=prompt, responses=(text,), judgement=Rating(value=rng.randint(0, 10), scale=(0, 10)), weight=rng.choice([0.5, 1.0, 3.0])
        )
        for prompt, text in texts + texts
    ]


@pytest.mark.parametrize("dense", [1000, 0], ids=["cholesky", "conjugate gradients"])
@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_ratings_alone_are_least_squares(l2, dense, monkeypatch):
    """Ridge as ordinary least squares with a row for each weight's penalty, the intercept free."""
    monkeypatch.setattr(solver, "DENSE", dense)
    judged = standardise(ratings())
    score = FeatureScore(FEATURES)
    fit_feature_score(score, judged, losses(), l2=l2)
    batch, texts = collate_plain(judged)
    phi, width = score.phi(texts)[batch.ratings.item], len(score.names)
    root = (batch.ratings.weight / batch.ratings.weight.sum()).sqrt()
    rows = torch.cat([torch.cat([phi, torch.ones(len(phi), 1)], 1) * root[:, None], torch.eye(width, width + 1) * l2**0.5])
    target = torch.cat([batch.ratings.z_score * root, torch.zeros(width)])
    solution = np.linalg.lstsq(rows.numpy(), target.numpy(), rcond=None)[0]
    np.testing.assert_allclose(score.weight.numpy(), solution[:-1], atol=1e-8)
    assert score.bias == pytest.approx(solution[-1], abs=1e-8)


def test_features_that_say_the_same_are_no_trouble_without_a_penalty():
    judged = standardise(ratings(8))
    score = FeatureScore(FEATURES | {"ngrams": {"min_texts": 1}})
    fit_feature_score(score, judged, losses(), l2=0.0)
    assert score.weight.isfinite().all()


def test_by_gradient_the_same_weights():
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    for judged in (standardise(simulated("pair", 1000, truth)), standardise(ratings())):
        exact, stepwise = FeatureScore(FEATURES), FeatureScore(FEATURES)
        fit_feature_score(exact, judged, losses(), l2=0.01)
        slowly = Gradient(epochs=max(80, 30_000 // len(judged)), batch_size=50, learning_rate=0.02)
        fit_feature_score(stepwise, judged, losses(), l2=0.01, solver="gradient", gradient=slowly)
        torch.testing.assert_close(stepwise.weight, exact.weight, atol=0.02, rtol=0)
        assert stepwise.bias == pytest.approx(exact.bias, abs=0.02)


def test_kinds_are_learned_together():
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    together = [r for kind in ("pair", "ranking", "rating") for r in simulated(kind, 600, truth)]
    chosen = losses()
    score = FeatureScore(FEATURES)
    fit_feature_score(score, standardise(together), chosen, l2=1e-4)
    assert torch.cosine_similarity(score.weight, truth, dim=0) > 0.98
    _, texts = collate_plain(standardise(together))
    assert score._scores(texts).mean().item() == pytest.approx(0, abs=1e-9)
    assert chosen[2].log_slope.item() == 0  # the losses given are not trained


def test_weights_of_judgements_count():
    """A judgement of weight 2 is the judgement twice; one of weight 0 isn't there."""
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    records = simulated("pair", 200, truth)
    heavy = [record.model_copy(update={"weight": 2.0}) for record in records[:50]] + records[50:]
    twice = records[:50] + records
    one, other = FeatureScore(FEATURES), FeatureScore(FEATURES)
    fit_feature_score(one, standardise(heavy), losses(), l2=0.01)
    fit_feature_score(other, standardise(twice), losses(), l2=0.01)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-5, rtol=0)


def test_the_penalty_is_chosen_by_what_was_left_out(monkeypatch):
    """Noise wants a strong penalty, plenty of clear judgements a weak one; the choice is the least of the losses tried."""
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    features = {"ngrams": {"min_texts": 2}, **FEATURES}
    noise, clear = FeatureScore(features), FeatureScore(features)
    at_random = fit_feature_score(noise, standardise(simulated("pair", 150, 0 * truth)), losses())
    informed = fit_feature_score(clear, standardise(simulated("pair", 1500, 3 * truth)), losses())
    assert at_random.l2 > informed.l2
    for done in (at_random, informed):
        assert done.tried[done.l2] == min(done.tried.values())
        assert list(done.tried) == list(PENALTIES[: len(done.tried)])


def test_the_same_judgements_in_another_order_give_the_same_weights():
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    records = simulated("pair", 300, truth)
    one, other, again = FeatureScore(FEATURES), FeatureScore(FEATURES), FeatureScore(FEATURES)
    done = [fit_feature_score(score, standardise(r), losses()) for score, r in ((one, records), (other, records[::-1]), (again, records))]
    assert done[0].l2 == done[1].l2
    torch.testing.assert_close(one.weight, other.weight, atol=1e-5, rtol=0)
    assert torch.equal(one.weight, again.weight)


def test_feedback_that_says_nothing_is_refused():
    approved = Feedback(prompt="p", responses=("same", "same"), judgement=Edit())
    with pytest.raises(DataError, match="no judgement"):
        fit_feature_score(FeatureScore(FEATURES), standardise([approved]), losses())


@pytest.mark.parametrize("rating_loss", [GaussianRating(), Ordinal(levels=101, off_level="round")])
def test_a_learned_slope_does_not_escape_the_penalty(rating_loss: nn.Module) -> None:
    """At 100 times the penalty the ratings' fit shrinks, where a slope of thousands would restore it from tiny weights."""
    truth = torch.tensor([1.0, -0.5, 0.8, 0.6, 0.4, -1.0], dtype=torch.float64)
    batch, texts = collate_plain(standardise([*simulated("rating", 200, truth), *simulated("pair", 200, truth)]))
    score = FeatureScore(FEATURES)
    matrix = CentredMatrix(score.prepare(texts), score.centre)
    rating_scale = []
    for l2 in (10.0, 1000.0):
        penalty = torch.full((matrix.width,), l2, dtype=torch.float64)
        weight, fitted = solve(matrix, batch, [BradleyTerry(), rating_loss], penalty, torch.zeros_like(penalty))
        rating_scale.append(float(fitted[1].log_slope.detach().exp() * weight.norm()))
    assert rating_scale[1] < rating_scale[0] / 50


FEW, MANY = 3, 40


def test_folds_have_no_prompt_in_common():
    texts = [(f"p{i % 7}", f"r{i}") for i in range(40)]
    masks = prompt_folds(texts, 3)
    assert torch.stack(masks).sum(0).tolist() == [1] * 40
    sides = [{texts[i][0] for i in mask.nonzero().flatten().tolist()} for mask in masks]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 7
    one_prompt = prompt_folds([("p", f"r{i}") for i in range(9)], 3)
    assert [int(mask.sum()) for mask in one_prompt] == [3, 3, 3]


def search(informative: str, count: int = 150) -> tuple[CrossValidation, Penalties]:
    """Ratings that go by one of two blocks: a few strong features, and many of a small deviation each."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(count, FEW)), rng.normal(size=(count, MANY)) * 3 / MANY**0.5
    utility = few.sum(1) if informative == "few" else many @ rng.normal(size=MANY)
    values = utility / utility.std() + rng.normal(size=count) / 2
    records = [
        Feedback(prompt=f"p{i}", responses=(f"r{i}",), judgement=Rating(value=float(value), scale=(-50, 50)))
        for i, value in enumerate(values)
    ]
    batch, texts = collate_plain(standardise(records))
    rows = [[(0, few[int(response[1:])]), (FEW, many[int(response[1:])])] for _, response in texts]
    matrix = CentredMatrix(build_matrix(rows, FEW + MANY), torch.zeros(FEW + MANY, dtype=torch.float64))
    blocks = {"many": torch.arange(FEW, FEW + MANY)}
    validation = CrossValidation(matrix, batch, [GaussianRating()], prompt_folds(texts, 3), blocks)
    return validation, validation.choose()


def test_a_block_that_explains_nothing_is_penalised_and_one_that_explains_all_is_not():
    _, useless = search("few")
    _, useful = search("many")
    assert useless.factors["many"] > 1 >= useful.factors["many"]
    assert useless.l2 * useless.factors["many"] > useful.l2 * useful.factors["many"]


@pytest.mark.parametrize("informative", ["few", "many"])
def test_no_neighbour_on_the_grids_has_a_lower_loss(informative):
    validation, chosen = search(informative)
    lowest = validation.best_loss
    assert validation._loss(chosen) == pytest.approx(lowest, rel=1e-4)
    at, block_at = PENALTIES.index(chosen.l2), FACTORS.index(chosen.factors["many"])
    neighbours = [Penalties(PENALTIES[i], chosen.factors) for i in (at - 1, at + 1) if 0 <= i < len(PENALTIES)]
    neighbours += [Penalties(chosen.l2, {"many": FACTORS[i]}) for i in (block_at - 1, block_at + 1) if 0 <= i < len(FACTORS)]
    assert all(validation._loss(neighbour) > lowest * (1 - 1e-4) for neighbour in neighbours)
    assert chosen.tried[chosen.l2] >= lowest * (1 - 1e-9)


def test_a_penalty_for_each_feature():
    penalties = Penalties(0.5, {"block": 0.1})
    assert penalties.per_feature({"block": torch.tensor([1, 3])}, 4).tolist() == pytest.approx([0.5, 0.05, 0.5, 0.05])
    assert str(penalties) == "penalty 0.5, that of block x 0.1"
    assert str(Penalties(0.5)) == "penalty 0.5"
