"""What reward_model.json must hold for its reward model to be loaded, checked with the file and the key in every message."""

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
    """A text with the score that it had when the model was saved."""

    prompt: str | list[Message]
    response: str
    score: Number


class ScoreCard(pydantic.BaseModel):
    """The constants of the scores and, of a model with parts, how these are made; metrics of the training beside them."""

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
    """The card of a reward model's folder, of any kind. Raises DataError: not a JSON object, or its head isn't a name."""
    card = read_json_object(file)
    if not isinstance(card.get("head", ""), str):
        raise DataError(f"{file}: head must be the name of a reward_head, and is {card['head']!r}")
    return card


def check_card(card: dict[str, Any], file: Path) -> None:
    """Reject a card whose keys are missing or of a wrong type.

    Raises:
        DataError: naming the file and the key; numbers that aren't finite are those of a diverged model.
    """
    try:
        checked = ScoreCard.model_validate(card)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        cause = f"; {DIVERGED}" if first["type"] == "finite_number" else "; copy or save the folder again, whole"
        raise DataError(f"{file}: {key}: {first['msg']}{cause}") from None
    missing = [name for name in ("head", "pooling") if checked.net is None and getattr(checked, name) is None]
    if missing:
        raise DataError(f"{file} has no key {missing[0]!r}; copy or save the folder again, whole")
