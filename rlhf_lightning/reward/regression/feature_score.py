"""The reward as a linear regression on named features of prompt and response, r = w·phi(x, y) + b: no language model, and exact reasons."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.config.model_files import check_safetensors, read_json_object
from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.registry import make
from rlhf_lightning.reward.evaluation.score_checks import check_finite
from rlhf_lightning.reward.regression.family import Family, One, Text, family_of
from rlhf_lightning.reward.regression.sparse import Sparse

CARD, WEIGHTS = "reward_model.json", "reward_features.safetensors"
TOGETHER = 1024
"""Texts whose features are computed at a time, family after family: few enough that their words are still remembered."""


class Reason(NamedTuple):
    """What one feature adds to a score: contribution = weight * standardised."""

    name: str
    value: float
    standardised: float
    contribution: float


class FeatureScore(nn.Module):
    """score(x, y) = b + sum over features of w * (value - centre) / scale, in float64 on the CPU, wherever the module is moved.

    U texts, F features that vary over the training texts (constant ones are left out: `dropped` names them).

    Args:
        features: the options of the group reward_feature by name, with their settings.

    Attributes:
        names: [F]. centre, scale, weight: [F]. bias: a number. kept: [all] which features vary.
        deviation: by what `normalise` has divided: scores times this are log-odds.

    Raises:
        ConfigError: no features, or one that isn't registered.
    """

    def __init__(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        if not features:
            raise ConfigError("reward_head=features needs features: add for example `reward_feature=[length,ngrams]` to the command")
        self.settings = {name: dict(settings) for name, settings in features.items()}
        self.families: dict[str, Family] = {
            name: family_of(name, make("reward_feature", name, settings)) for name, settings in self.settings.items()
        }
        self.kept = torch.zeros(0, dtype=torch.bool)
        self.centre = self.scale = self.weight = torch.zeros(0, dtype=torch.float64)
        self.bias, self.deviation = 0.0, 1.0
        self.name = "the reward model"

    @property
    def all_names(self) -> list[str]:
        """Every feature as "family: name", constant ones too; a family of one is called as itself."""
        return [own if isinstance(family, One) else f"{name}: {own}" for name, family in self.families.items() for own in family.names]

    @property
    def names(self) -> list[str]:
        return [name for name, kept in zip(self.all_names, self.kept.tolist(), strict=True) if kept]

    @property
    def dropped(self) -> list[str]:
        return [name for name, kept in zip(self.all_names, self.kept.tolist(), strict=True) if not kept]

    def report_to(self, report: Callable[[str], None]) -> None:
        """Let features that take long report their progress."""
        for family in self.families.values():
            family.report = report

    def prepare(self, texts: Sequence[Text]) -> Sparse:
        """Learn the features and their standardisation from the training texts; the weights become 0.

        Returns:
            The texts' scaled features [U, F], not yet centred.

        Raises:
            DataError: no feature varies over the texts.
        """
        for family in self.families.values():
            family.fit(texts)
        raw = self._raw(texts)
        mean, deviation = raw.moments()
        self.kept = deviation > 0
        if not self.kept.any():
            raise DataError(f"no feature of reward_feature=[{', '.join(self.families)}] varies over the {len(texts)} texts")
        centres, scales = [], []
        for first, end, family in self._places():
            own = deviation[first:end]
            if family.together is None:
                centres.append(mean[first:end])
                targets = family.deviations
                scales.append(own if targets is None else own / torch.tensor(targets, dtype=torch.float64))
            else:
                centres.append(torch.zeros_like(own))
                scales.append(torch.full_like(own, float(own.norm()) / family.together))
        self.centre, self.scale = torch.cat(centres)[self.kept], torch.cat(scales)[self.kept]
        # scaled, not raw: see `scaled`
        self.centre = self.centre / self.scale
        self.weight, self.bias, self.deviation = torch.zeros_like(self.scale), 0.0, 1.0
        return raw.take(self.kept, self.scale)

    def blocks(self) -> dict[str, Tensor]:
        """The columns, among the features that vary, of each family whose penalty has a factor of its own; none of a family alone."""
        columns = self.kept.cumsum(0) - 1
        blocks = {}
        for name, (first, end, family) in zip(self.families, self._places(), strict=True):
            varying = columns[first:end][self.kept[first:end]]
            if family.is_block and len(self.families) > 1 and len(varying):
                blocks[name] = varying
        return blocks

    def scaled(self, texts: Sequence[Text]) -> Sparse:
        """value / scale, [U, F]; phi is this minus `centre`, which is kept in units of the scale."""
        return self._raw(texts).take(self.kept, self.scale)

    def phi(self, texts: Sequence[Text]) -> Tensor:
        """The standardised features [U, F], float64."""
        return self.scaled(texts).dense() - self.centre

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = TOGETHER) -> Tensor:
        """Scores [B], float32. Raises UserError: one isn't a finite number."""
        texts = list(zip(map(prompt_text, prompts), responses, strict=True))
        for family in self.families.values():
            family.prefetch(texts)
        scores = [self._scores(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        found = torch.cat(scores).float() if scores else torch.zeros(0)
        return check_finite(found, prompts, responses, self.name)

    def _scores(self, texts: Sequence[Text]) -> Tensor:
        found = self.scaled(texts)
        each = torch.zeros(len(texts), dtype=torch.float64)
        return each.index_add(0, found.rows_of_values(), found.values * self.weight[found.columns]) + self.offset

    @property
    def offset(self) -> float:
        """The score of a text whose features are all 0."""
        return self.bias - float(self.centre @ self.weight)

    def explain(self, prompt: Prompt, response: str) -> tuple[float, list[Reason]]:
        """The bias and what each feature adds to it, largest first: together they are the score.

        n-grams that the response doesn't have add exactly 0 and are left out.
        """
        scaled = self.scaled([(prompt_text(prompt), response)]).dense()[0]
        standardised = scaled - self.centre
        values, added = (scaled * self.scale).tolist(), (self.weight * standardised).tolist()
        reasons = [Reason(*row) for row in zip(self.names, values, standardised.tolist(), added, strict=True) if row[2] != 0]
        return self.bias, sorted(reasons, key=lambda reason: -abs(reason.contribution))

    def weights(self) -> list[tuple[str, float]]:
        """Features with their weights, largest first: what the model looks at."""
        return sorted(zip(self.names, self.weight.tolist(), strict=True), key=lambda entry: (-abs(entry[1]), entry[0]))

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
        """Scale weights and bias so that the scores of these reference samples have mean 0 and variance 1 (Ziegler et al. 2019)."""
        raw = self._scores(list(zip(map(prompt_text, prompts), responses, strict=True)))
        deviation = float(raw.std()) if len(raw) > 1 else 0.0
        deviation = deviation if deviation > 1e-12 else 1.0
        self.bias = (self.bias - float(raw.mean())) / deviation
        self.weight = self.weight / deviation
        self.deviation *= deviation

    def _places(self) -> Iterator[tuple[int, int, Family]]:
        families = list(self.families.values())
        ends = list(accumulate(len(family.names) for family in families))
        return zip([0, *ends], ends, families, strict=False)

    def _raw(self, texts: Sequence[Text]) -> Sparse:
        places = list(self._places())

        def rows() -> Iterator[list[tuple[int, Any]]]:
            for start in range(0, len(texts), TOGETHER):
                part = texts[start : start + TOGETHER]
                of_family = [list(family.rows(part)) for _, _, family in places]
                for found in zip(*of_family, strict=True):
                    yield [(first, row) for (first, _, _), row in zip(places, found, strict=True)]

        return Sparse.of(rows(), places[-1][1] if places else 0)


def save_features(score: FeatureScore, folder: Path, about: Mapping[str, Any]) -> None:
    """A folder with a JSON card and safetensors, written whole or not at all.

    Args:
        about: what a reader wants: metrics of the training; `head` and the features are added.
    """
    from safetensors.torch import save_file

    features = {name: {"settings": settings, "state": score.families[name].state()} for name, settings in score.settings.items()}

    def write(target: Path) -> None:
        card = {**about, "head": "features", "features": features}
        (target / CARD).write_text(json.dumps(card, indent=2))
        tensors = {"kept": score.kept, "centre": score.centre, "scale": score.scale, "weight": score.weight}
        numbers = {name: torch.tensor(getattr(score, name), dtype=torch.float64) for name in ("bias", "deviation")}
        save_file({**tensors, **numbers}, target / WEIGHTS)

    write_folder(folder, write)


def load_features(folder: Path | str) -> FeatureScore:
    """What `save_features` wrote; its scores are bitwise the same.

    Raises:
        DataError: a file is missing or damaged, or weights and features don't fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    card = read_json_object(folder / CARD)
    check_safetensors(folder / WEIGHTS)
    try:
        tensors = load_file(folder / WEIGHTS)
        score = FeatureScore({name: entry["settings"] for name, entry in card["features"].items()})
        for name, family in score.families.items():
            family.restore(card["features"][name]["state"])
        score.kept, score.centre, score.scale, score.weight = (tensors[name] for name in ("kept", "centre", "scale", "weight"))
        score.bias, score.deviation = float(tensors["bias"]), float(tensors["deviation"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError, RuntimeError, UserError, SafetensorError) as cause:
        fault = str(cause) if isinstance(cause, UserError) else repr(cause)
        raise DataError(f"{folder} holds no whole reward model of reward_head=features: {fault}") from cause
    if not all(t.dim() == 1 for t in (score.kept, score.centre, score.scale, score.weight)) or score.kept.dtype != torch.bool:
        raise DataError(f"{folder / WEIGHTS} isn't what reward_head=features writes: its tensors have other shapes or types")
    if len(score.kept) != len(score.all_names) or not all(
        len(t) == int(score.kept.sum()) for t in (score.centre, score.scale, score.weight)
    ):
        raise DataError(f"{folder}: {CARD} names {len(score.all_names)} features, and {WEIGHTS} holds {len(score.kept)}")
    if not math.isfinite(score.offset):
        raise DataError(f"{folder}: {WEIGHTS} holds weights that aren't finite")
    return score
