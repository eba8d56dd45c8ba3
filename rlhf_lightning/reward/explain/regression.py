"""Which features explain a reward model's scores over a data set: a linear regression, length first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.regression.family import PlainText
from rlhf_lightning.reward.regression.feature_score import FeatureScore

LENGTH = "length"
FOLDS = 10
SMALLEST = 1e-6
"""Directions of the standardised features below this share of the largest count as none."""


@dataclass(frozen=True)
class FamilyShare:
    """How much of the scores' variance a family of features explains.

    Attributes:
        alone: R² of it alone. added: by how much R² grows over the families before it. own: by how much R² falls without it.
    """

    name: str
    features: int
    alone: float
    added: float
    own: float


@dataclass(frozen=True)
class Effect:
    """One feature's part in the scores.

    Attributes:
        coefficient: deviations of the score for one deviation of the feature, the others held; shared among features that say the same.
        slope: the same in units of the score.
        correlation: with the score, Pearson's. partial: the same given all features of the other families; None where those leave nothing.
    """

    name: str
    coefficient: float
    slope: float
    correlation: float
    partial: float | None


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Scores of U texts on F standardised features, by least squares with an intercept.

    Attributes:
        r2: share of the scores' variance that the features explain. r2_adjusted: for their number. r2_left_out: on texts that the
            regression hasn't seen, by ten folds; below 0 it says less than the mean. Both None with hardly more texts than features.
        families: length first. effects: feature by feature.
        length_correlation, length_partial: of the score with the log of the response's characters, plain and given the other families.
        deviation: of the scores.
        dropped: features that don't vary over the texts.
    """

    texts: int
    r2: float
    r2_adjusted: float | None
    r2_left_out: float | None
    families: list[FamilyShare]
    effects: list[Effect]
    length_correlation: float | None
    length_partial: float | None
    deviation: float
    dropped: list[str]
    phi: FeatureScore = field(repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        """What JSON can hold."""
        own = {name: value for name, value in vars(self).items() if name != "phi"}
        return {**own, "families": [vars(one) for one in self.families], "effects": [vars(one) for one in self.effects]}


def regressed(texts: Sequence[PlainText], scores: Tensor, features: Mapping[str, Mapping[str, Any]]) -> Regression:
    """Regress a model's scores on named features of the texts.

    Features that say nearly the same (characters and words) share their effect: the smallest coefficients of all that fit as well are
    taken, so that families are better judged by their shares than features by their coefficients.

    Args:
        texts: U distinct prompts and responses. scores: [U], normalised.
        features: options of the group reward_feature with their settings. Families of sparse or unnamed features (n-grams, embeddings)
            are left out: with as many features as texts anything is explained. Length is always there, and comes first.

    Raises:
        DataError: fewer than 8 texts, or scores that are all equal or not finite.
    """
    target = scores.double()
    if len(texts) < 8:
        raise DataError(f"{len(texts)} texts are too few to say which features explain their scores; 8 are the least")
    deviation = float(target.std(correction=0))
    if not bool(target.isfinite().all()) or deviation <= 1e-12:
        raise DataError("scores that are all equal or not finite have no explanation")
    phi = FeatureScore(named_features(features))
    x = torch.from_numpy(phi.prepare(texts).toarray()) - phi.centre
    y = (target - target.mean()) / deviation
    of_family = _columns(phi)
    basis = _basis(x)
    r2 = _explained(basis, y)
    freedom = len(texts) - basis.shape[1] - 1
    coefficients = torch.linalg.lstsq(x, y[:, None], rcond=SMALLEST, driver="gelsd").solution[:, 0]
    partial = _partial(x, y, of_family)
    correlation = (x.T @ y) / len(texts)
    effects = [
        Effect(name, float(b), float(b) * deviation, float(r), p)
        for name, b, r, p in zip(phi.names, coefficients, correlation, partial, strict=True)
    ]
    length = next((i for i, name in enumerate(phi.names) if name == f"{LENGTH}: log characters"), None)
    return Regression(
        texts=len(texts),
        r2=r2,
        r2_adjusted=1 - (1 - r2) * (len(texts) - 1) / freedom if freedom > 0 else None,
        r2_left_out=_left_out(x, y) if freedom > 0 else None,
        families=_shares(x, y, of_family),
        effects=effects,
        length_correlation=None if length is None else effects[length].correlation,
        length_partial=None if length is None else effects[length].partial,
        deviation=deviation,
        dropped=phi.constant_names,
        phi=phi,
    )


def named_features(features: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Length, then those of the features that are a few numbers with names."""
    chosen = {LENGTH: features.get(LENGTH, {}), **features}
    families = FeatureScore(chosen).families
    return {name: settings for name, settings in chosen.items() if families[name].joint_deviation is None and not families[name].is_block}


def standardised_features(regression: Regression, texts: Sequence[PlainText]) -> tuple[Tensor, Tensor]:
    """The features of other texts as they are and in the regression's deviations, [U, F] both."""
    scaled = torch.from_numpy(regression.phi.scaled_features(texts).toarray())
    return scaled * regression.phi.scale, scaled - regression.phi.centre


def _columns(phi: FeatureScore) -> dict[str, list[int]]:
    """The columns of each family's features that vary."""
    kept = iter(phi.varies.tolist())
    found: dict[str, list[int]] = {}
    column = 0
    for name, family in phi.families.items():
        for _ in family.names:
            if next(kept):
                found.setdefault(name, []).append(column)
                column += 1
    return found


def _basis(x: Tensor) -> Tensor:
    """[U, R] an orthonormal basis of the columns' space."""
    if not x.shape[1]:
        return x
    u, singular, _ = torch.linalg.svd(x, full_matrices=False)
    basis: Tensor = u[:, singular > SMALLEST * singular[0]]
    return basis


def _explained(basis: Tensor, y: Tensor) -> float:
    """R² of standardised y."""
    return float((basis.T @ y).square().sum() / y.square().sum())


def _left_out(x: Tensor, y: Tensor) -> float:
    """R² on each of FOLDS parts of the texts, by the regression on the others."""
    left = torch.zeros_like(y)
    for fold in range(FOLDS):
        held = torch.arange(len(y)) % FOLDS == fold
        mean_x, mean_y = x[~held].mean(0), y[~held].mean()
        slopes = torch.linalg.lstsq(x[~held] - mean_x, (y[~held] - mean_y)[:, None], rcond=SMALLEST, driver="gelsd").solution[:, 0]
        left[held] = y[held] - mean_y - (x[held] - mean_x) @ slopes
    return 1 - float(left.square().sum() / y.square().sum())


def _shares(x: Tensor, y: Tensor, of_family: Mapping[str, list[int]]) -> list[FamilyShare]:
    whole = _explained(_basis(x), y)
    found, before, so_far = [], 0.0, list[int]()
    for name, columns in of_family.items():
        so_far += columns
        now = _explained(_basis(x[:, so_far]), y)
        others = [column for other, own in of_family.items() if other != name for column in own]
        alone, rest = _explained(_basis(x[:, columns]), y), _explained(_basis(x[:, others]), y)
        found.append(FamilyShare(name, len(columns), alone, now - before, whole - rest))
        before = now
    return found


def _partial(x: Tensor, y: Tensor, of_family: Mapping[str, list[int]]) -> list[float | None]:
    """[F] correlation of each feature with y when what the other families explain of both is taken away."""
    found: list[float | None] = [None] * x.shape[1]
    for name, columns in of_family.items():
        basis = _basis(x[:, [column for other, own in of_family.items() if other != name for column in own]])
        if basis.shape[1] + 2 >= len(y):
            continue
        left_y = y - basis @ (basis.T @ y)
        for column in columns:
            left = x[:, column] - basis @ (basis.T @ x[:, column])
            size = float(left.norm() * left_y.norm())
            # What is left of a feature that the others say is rounding.
            if left.norm() > 1e-6 * x[:, column].norm() and size > 1e-9 * len(y):
                found[column] = float(left @ left_y) / size
    return found
