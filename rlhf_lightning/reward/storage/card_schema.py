"""The schema of reward_model.json; messages name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from rlhf_lightning.config.model_files import read_json_object
from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message

Number = Annotated[float, pydantic.Field(strict=True, allow_inf_nan=False)]
DIVERGED = "the reward model diverged in its training: train it again with a lower reward.learning_rate, or take an earlier one"


class CanaryText(pydantic.BaseModel):
    """A text with its score at the time of saving."""

    prompt: str | list[Message]
    response: str
    score: Number


class ScoreCard(pydantic.BaseModel):
    """Normalisation constants, head and pooling with their settings; metrics as extra keys."""

    model_config = pydantic.ConfigDict(extra="allow")

    mean: Number
    deviation: Annotated[Number, pydantic.Field(gt=0)]
    max_length: Annotated[int, pydantic.Field(strict=True, gt=0)]
    net: Literal["classifier"] | None = None
    head: str | None = None
    head_settings: dict[str, Any] = {}
    pooling: str | None = None
    pooling_settings: dict[str, Any] = {}
    aspects: list[str | None] = [None]
    canary: list[CanaryText] = []


def read_card(file: Path) -> dict[str, Any]:
    """Read a reward model's card. Raises DataError: not a JSON object, or its head isn't a name."""
    card = read_json_object(file)
    if not isinstance(card.get("head", ""), str):
        raise DataError(f"{file}: head must be the name of a reward_head, and is {card['head']!r}")
    return card


def check_card(card: dict[str, Any], file: Path) -> None:
    """Validate a card.

    Raises:
        DataError: a key is missing or of a wrong type; numbers that aren't finite are reported as a diverged training.
    """
    try:
        checked = ScoreCard.model_validate(card)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        cause = f"; {DIVERGED}" if first["type"] == "finite_number" else "; copy or save the complete folder again"
        raise DataError(f"{file}: {key}: {first['msg']}{cause}") from None
    missing = [name for name in ("head", "pooling") if checked.net is None and getattr(checked, name) is None]
    if missing:
        raise DataError(f"{file} has no key {missing[0]!r}; copy or save the complete folder again")
