"""The folder of a FeatureScore: a JSON card with the features, and their weights as safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.config.model_files import check_safetensors, read_json_object
from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.reward.regression.feature_score import FeatureScore

CARD, WEIGHTS = "reward_model.json", "reward_features.safetensors"
VECTORS = ("varies", "centre", "scale", "weight")
NUMBERS = ("bias", "deviation")


def save_feature_score(score: FeatureScore, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write the folder atomically.

    Args:
        metadata: metrics of the training for the card; `head` and the features are added.
    """
    from safetensors.torch import save_file

    features = {name: {"settings": settings, "state": score.families[name].state()} for name, settings in score.settings.items()}

    def write(target: Path) -> None:
        card = {**metadata, "head": "features", "features": features}
        (target / CARD).write_text(json.dumps(card, indent=2))
        vectors = {name: getattr(score, name) for name in VECTORS}
        numbers = {name: torch.tensor(getattr(score, name), dtype=torch.float64) for name in NUMBERS}
        save_file({**vectors, **numbers}, target / WEIGHTS)

    write_folder(folder, write)


def load_feature_score(folder: Path | str) -> FeatureScore:
    """Load a folder of `save_feature_score`; the scores are bitwise the same.

    Raises:
        DataError: a file is missing or damaged, or weights and features don't match.
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
            family.load_state(card["features"][name]["state"])
        for name in VECTORS:
            setattr(score, name, tensors[name])
        for name in NUMBERS:
            setattr(score, name, float(tensors[name]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError, RuntimeError, UserError, SafetensorError) as cause:
        fault = str(cause) if isinstance(cause, UserError) else repr(cause)
        raise DataError(f"{folder} holds no complete reward model of reward_head=features: {fault}") from cause
    _check(score, folder)
    return score


def _check(score: FeatureScore, folder: Path) -> None:
    """Raise DataError for weights of wrong types, sizes or values."""
    if any(getattr(score, name).dim() != 1 for name in VECTORS) or score.varies.dtype != torch.bool:
        raise DataError(f"{folder / WEIGHTS} isn't what reward_head=features writes: its tensors have other shapes or types")
    count = int(score.varies.sum())
    if len(score.varies) != len(score.all_names) or any(len(getattr(score, name)) != count for name in VECTORS[1:]):
        raise DataError(f"{folder}: {CARD} names {len(score.all_names)} features, and {WEIGHTS} holds {len(score.varies)}")
    if not math.isfinite(score.offset):
        raise DataError(f"{folder}: {WEIGHTS} holds weights that aren't finite")
