"""Linear regression of a reward model's scores on named features over a data set, length first."""

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
RANK_TOLERANCE = 1e-6
"""Singular values of the standardised features below this share of the largest count as 0."""


@dataclass(frozen=True)
class FamilyShare:
    """The share of the scores' variance that a family of features explains.

    Attributes:
        alone: R² of it alone. added: increase of R² over the families before it. unique: decrease of R² without it.
    """

    name: str
    features: int
    alone: float
    added: float
    unique: float


@dataclass(frozen=True)
class Effect:
    """One feature's effect on the scores.

    Attributes:
        coefficient: deviations of the score per deviation of the feature, the others held fixed; shared among collinear features.
        slope: the same in units of the score.
        correlation: with the score, Pearson's. partial: the same given all features of the other families; None without a residual.
    """

    name: str
    coefficient: float
    slope: float
    correlation: float
    partial: float | None


@dataclass(frozen=True, kw_only=True)
class ScoreRegression:
    """Scores of U texts on F standardised features, by least squares with an intercept.

    Attributes:
        r2: share of the scores' variance that the features explain. r2_adjusted: for their number. r2_held_out: by ten-fold
            cross-validation; below 0 it is worse than the mean. Both None with hardly more texts than features.
        families: length first. effects: feature by feature.
        length_correlation, length_partial: of the score with the log of the response's characters, plain and given the other families.
        deviation: of the scores.
        constant_features: those that don't vary over the texts.
    """

    texts: int
    r2: float
    r2_adjusted: float | None
    r2_held_out: float | None
    families: list[FamilyShare]
    effects: list[Effect]
    length_correlation: float | None
    length_partial: float | None
    deviation: float
    constant_features: list[str]
    phi: FeatureScore = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        fields = {name: value for name, value in vars(self).items() if name != "phi"}
        return {**fields, "families": [vars(family) for family in self.families], "effects": [vars(effect) for effect in self.effects]}


def regress_scores(texts: Sequence[PlainText], scores: Tensor, features: Mapping[str, Mapping[str, Any]]) -> ScoreRegression:
    """Regress a model's scores on named features of the texts.

    Nearly collinear features (characters and words) share their effect, as the least-norm solution is taken: families' shares are more
    meaningful than features' coefficients.

    Args:
        texts: U distinct prompts and responses. scores: [U], normalised.
        features: options of the group reward_feature with their settings. Families of sparse or unnamed features (n-grams, embeddings)
            are left out: as many features as texts explain anything. Length is always the first.

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
    r2 = _r_squared(basis, y)
    freedom = len(texts) - basis.shape[1] - 1
    coefficients = torch.linalg.lstsq(x, y[:, None], rcond=RANK_TOLERANCE, driver="gelsd").solution[:, 0]
    partial = _partial(x, y, of_family)
    correlation = (x.T @ y) / len(texts)
    effects = [
        Effect(name, float(b), float(b) * deviation, float(r), p)
        for name, b, r, p in zip(phi.names, coefficients, correlation, partial, strict=True)
    ]
    length = next((i for i, name in enumerate(phi.names) if name == f"{LENGTH}: log characters"), None)
    return ScoreRegression(
        texts=len(texts),
        r2=r2,
        r2_adjusted=1 - (1 - r2) * (len(texts) - 1) / freedom if freedom > 0 else None,
        r2_held_out=_held_out_r_squared(x, y) if freedom > 0 else None,
        families=_shares(x, y, of_family),
        effects=effects,
        length_correlation=None if length is None else effects[length].correlation,
        length_partial=None if length is None else effects[length].partial,
        deviation=deviation,
        constant_features=phi.constant_names,
        phi=phi,
    )


def named_features(features: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Length, then the features that are a few named numbers."""
    chosen = {LENGTH: features.get(LENGTH, {}), **features}
    families = FeatureScore(chosen).families
    return {name: settings for name, settings in chosen.items() if families[name].joint_deviation is None and not families[name].is_block}


def standardised_features(regression: ScoreRegression, texts: Sequence[PlainText]) -> tuple[Tensor, Tensor]:
    """The features of other texts, raw and standardised by the regression, [U, F] both."""
    scaled = torch.from_numpy(regression.phi.scaled_features(texts).toarray())
    return scaled * regression.phi.scale, scaled - regression.phi.centre


def _columns(phi: FeatureScore) -> dict[str, list[int]]:
    """The columns of each family's features that vary."""
    varies = iter(phi.varies.tolist())
    columns: dict[str, list[int]] = {}
    column = 0
    for name, family in phi.families.items():
        for _ in family.names:
            if next(varies):
                columns.setdefault(name, []).append(column)
                column += 1
    return columns


def _basis(x: Tensor) -> Tensor:
    """[U, R] an orthonormal basis of the columns' space."""
    if not x.shape[1]:
        return x
    u, singular, _ = torch.linalg.svd(x, full_matrices=False)
    basis: Tensor = u[:, singular > RANK_TOLERANCE * singular[0]]
    return basis


def _r_squared(basis: Tensor, y: Tensor) -> float:
    """R² of standardised y."""
    return float((basis.T @ y).square().sum() / y.square().sum())


def _held_out_r_squared(x: Tensor, y: Tensor) -> float:
    """R² by cross-validation over FOLDS parts of the texts."""
    residual = torch.zeros_like(y)
    for fold in range(FOLDS):
        held_out = torch.arange(len(y)) % FOLDS == fold
        mean_x, mean_y = x[~held_out].mean(0), y[~held_out].mean()
        slopes = torch.linalg.lstsq(x[~held_out] - mean_x, (y[~held_out] - mean_y)[:, None], rcond=RANK_TOLERANCE, driver="gelsd").solution[
            :, 0
        ]
        residual[held_out] = y[held_out] - mean_y - (x[held_out] - mean_x) @ slopes
    return 1 - float(residual.square().sum() / y.square().sum())


def _shares(x: Tensor, y: Tensor, of_family: Mapping[str, list[int]]) -> list[FamilyShare]:
    total = _r_squared(_basis(x), y)
    shares, before, so_far = [], 0.0, list[int]()
    for name, columns in of_family.items():
        so_far += columns
        now = _r_squared(_basis(x[:, so_far]), y)
        others = [column for other, theirs in of_family.items() if other != name for column in theirs]
        alone, rest = _r_squared(_basis(x[:, columns]), y), _r_squared(_basis(x[:, others]), y)
        shares.append(FamilyShare(name, len(columns), alone, now - before, total - rest))
        before = now
    return shares


def _partial(x: Tensor, y: Tensor, of_family: Mapping[str, list[int]]) -> list[float | None]:
    """[F] partial correlation of each feature with y, given the other families."""
    partial: list[float | None] = [None] * x.shape[1]
    for name, columns in of_family.items():
        basis = _basis(x[:, [column for other, theirs in of_family.items() if other != name for column in theirs]])
        if basis.shape[1] + 2 >= len(y):
            continue
        residual_y = y - basis @ (basis.T @ y)
        for column in columns:
            residual = x[:, column] - basis @ (basis.T @ x[:, column])
            size = float(residual.norm() * residual_y.norm())
            # The residual of a collinear feature is rounding.
            if residual.norm() > 1e-6 * x[:, column].norm() and size > 1e-9 * len(y):
                partial[column] = float(residual @ residual_y) / size
    return partial
