"""The reward as a linear regression on named features, r = w·phi(x, y) + b, without a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.registry import make
from rlhf_lightning.reward.evaluation.score_checks import check_finite
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText, ScalarFeature, as_family
from rlhf_lightning.reward.regression.sparse import build_matrix, column_moments, select_columns

CHUNK = 1024
"""Texts whose features are computed at a time, family after family: few enough for their words to stay cached."""


class Reason(NamedTuple):
    """One feature's addend of a score: contribution = weight * standardised."""

    name: str
    value: float
    standardised: float
    contribution: float


class FeatureScore(nn.Module):
    """score(x, y) = b + sum over features of w * (value - centre) / scale, in float64 on the CPU.

    It stays on the CPU wherever the module is moved. U texts, F features that vary over the training texts (`constant_names` are the
    others).

    Args:
        features: the options of the group reward_feature by name, with their settings.

    Attributes:
        names: [F]. centre, scale, weight: [F]. bias: a number. varies: [all] mask of the features that vary.
        deviation: the divisor of `normalise`: scores times this are log-odds.

    Raises:
        ConfigError: no features, or one that isn't registered.
    """

    def __init__(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        if not features:
            raise ConfigError("reward_head=features needs features: add for example `reward_feature=[length,ngrams]` to the command")
        self.settings = {name: dict(settings) for name, settings in features.items()}
        self.families: dict[str, FeatureFamily] = {
            name: as_family(name, make("reward_feature", name, settings)) for name, settings in self.settings.items()
        }
        self.varies = torch.zeros(0, dtype=torch.bool)
        self.centre = self.scale = self.weight = torch.zeros(0, dtype=torch.float64)
        self.bias, self.deviation = 0.0, 1.0
        self.name = "the reward model"

    @property
    def all_names(self) -> list[str]:
        """Every feature as "family: name", constant ones too; a scalar feature by its name alone."""
        return [
            feature if isinstance(family, ScalarFeature) else f"{name}: {feature}"
            for name, family in self.families.items()
            for feature in family.names
        ]

    @property
    def names(self) -> list[str]:
        return [name for name, varies in zip(self.all_names, self.varies.tolist(), strict=True) if varies]

    @property
    def constant_names(self) -> list[str]:
        return [name for name, varies in zip(self.all_names, self.varies.tolist(), strict=True) if not varies]

    def report_to(self, report: Callable[[str], None]) -> None:
        """Set the log function of slow features."""
        for family in self.families.values():
            family.report = report

    def prepare(self, texts: Sequence[PlainText]) -> csr_array:
        """Fit the features and their standardisation to the training texts; the weights become 0.

        Returns:
            The texts' scaled features [U, F], not yet centred.

        Raises:
            DataError: no feature varies over the texts.
        """
        for family in self.families.values():
            family.fit(texts)
        raw = self._raw_features(texts)
        mean, deviation = column_moments(raw)
        self.varies = deviation > 0
        if not self.varies.any():
            raise DataError(f"no feature of reward_feature=[{', '.join(self.families)}] varies over the {len(texts)} texts")
        centres, scales = [], []
        for first, end, family in self._column_ranges():
            deviations = deviation[first:end]
            if family.joint_deviation is None:
                centres.append(mean[first:end])
                targets = family.deviations
                scales.append(deviations if targets is None else deviations / torch.tensor(targets, dtype=torch.float64))
            else:
                centres.append(torch.zeros_like(deviations))
                scales.append(torch.full_like(deviations, float(deviations.norm()) / family.joint_deviation))
        self.centre, self.scale = torch.cat(centres)[self.varies], torch.cat(scales)[self.varies]
        # In units of the scale: see `scaled_features`.
        self.centre = self.centre / self.scale
        self.weight, self.bias, self.deviation = torch.zeros_like(self.scale), 0.0, 1.0
        return select_columns(raw, self.varies, self.scale)

    def blocks(self) -> dict[str, Tensor]:
        """The columns of each block family among the varying features; {} for a single family."""
        columns = self.varies.cumsum(0) - 1
        blocks = {}
        for name, (first, end, family) in zip(self.families, self._column_ranges(), strict=True):
            varying = columns[first:end][self.varies[first:end]]
            if family.is_block and len(self.families) > 1 and len(varying):
                blocks[name] = varying
        return blocks

    def scaled_features(self, texts: Sequence[PlainText]) -> csr_array:
        """value / scale, [U, F]; phi is this minus `centre`, which is in units of the scale."""
        return select_columns(self._raw_features(texts), self.varies, self.scale)

    def phi(self, texts: Sequence[PlainText]) -> Tensor:
        """The standardised features [U, F], float64."""
        return torch.from_numpy(self.scaled_features(texts).toarray()) - self.centre

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = CHUNK) -> Tensor:
        """Scores [B], float32. Raises UserError: one isn't a finite number."""
        texts = list(zip(map(prompt_text, prompts), responses, strict=True))
        for family in self.families.values():
            family.prefetch(texts)
        parts = [self._scores(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        scores = torch.cat(parts).float() if parts else torch.zeros(0)
        return check_finite(scores, prompts, responses, self.name)

    def _scores(self, texts: Sequence[PlainText]) -> Tensor:
        return torch.from_numpy(self.scaled_features(texts) @ self.weight.numpy()) + self.offset

    @property
    def offset(self) -> float:
        """The score of a text whose features are all 0."""
        return self.bias - float(self.centre @ self.weight)

    def explain(self, prompt: Prompt, response: str) -> tuple[float, list[Reason]]:
        """The bias and each feature's addend, largest first: they sum to the score.

        n-grams that the response doesn't have add exactly 0 and are left out.
        """
        scaled = torch.from_numpy(self.scaled_features([(prompt_text(prompt), response)]).toarray()[0])
        standardised = scaled - self.centre
        values, contributions = (scaled * self.scale).tolist(), (self.weight * standardised).tolist()
        reasons = [Reason(*row) for row in zip(self.names, values, standardised.tolist(), contributions, strict=True) if row[2] != 0]
        return self.bias, sorted(reasons, key=lambda reason: -abs(reason.contribution))

    def weights(self) -> list[tuple[str, float]]:
        """Features with their weights, largest first."""
        return sorted(zip(self.names, self.weight.tolist(), strict=True), key=lambda entry: (-abs(entry[1]), entry[0]))

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
        """Scale the scores to mean 0 and variance 1 on these texts (Ziegler et al. 2019)."""
        raw = self._scores(list(zip(map(prompt_text, prompts), responses, strict=True)))
        deviation = float(raw.std()) if len(raw) > 1 else 0.0
        deviation = deviation if deviation > 1e-12 else 1.0
        self.bias = (self.bias - float(raw.mean())) / deviation
        self.weight = self.weight / deviation
        self.deviation *= deviation

    def _column_ranges(self) -> Iterator[tuple[int, int, FeatureFamily]]:
        families = list(self.families.values())
        ends = list(accumulate(len(family.names) for family in families))
        return zip([0, *ends], ends, families, strict=False)

    def _raw_features(self, texts: Sequence[PlainText]) -> csr_array:
        ranges = list(self._column_ranges())

        def rows() -> Iterator[list[tuple[int, Any]]]:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                by_family = [list(family.rows(chunk)) for _, _, family in ranges]
                for parts in zip(*by_family, strict=True):
                    yield [(first, part) for (first, _, _), part in zip(ranges, parts, strict=True)]

        return build_matrix(rows(), ranges[-1][1] if ranges else 0)
