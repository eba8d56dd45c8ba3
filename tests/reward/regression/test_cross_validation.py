"""Folds by prompt, and penalties of blocks by what was left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating
from rlhf_lightning.reward.regression.collation import collate_plain
from rlhf_lightning.reward.regression.cross_validation import FACTORS, PENALTIES, CrossValidation, Penalties, prompt_folds
from rlhf_lightning.reward.regression.sparse import CentredMatrix, build_matrix

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
