"""Judgements as one float64 batch over the texts they are on, for models that read text rather than tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.feedback.batch import JudgementBatch, Kind, collate
from rlhf_lightning.feedback.judgements import Judgements
from rlhf_lightning.feedback.judgements import Text as Judgeable
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.regression.family import Text

JUDGED_TEXT = {"pairs": "better", "ties": "first", "orders": "items", "ratings": "item", "thumbs": "item", "spans": "item"}
"""The column of each kind that holds a text: all texts of a judgement answer one prompt."""


def collated(judged: Judgements) -> tuple[JudgementBatch, list[Text]]:
    """The judgements as one batch in float64, and the texts that its indices point at; nothing is tokenised."""
    reader = _NoTokens()
    batch = collate(judged, reader)
    kinds: dict[str, Any] = {name: _map_columns(getattr(batch, name), _exact) for name in JUDGED_TEXT}
    return dataclasses.replace(batch, **kinds), [(prompt_text(prompt), response) for prompt, response in reader.texts]


def select_judgements(batch: JudgementBatch, texts: Tensor) -> JudgementBatch:
    """The judgements on the texts of a mask [U]."""
    kinds: dict[str, Any] = {}
    for name, column in JUDGED_TEXT.items():
        kind = getattr(batch, name)
        judged = getattr(kind, column)
        inside = texts[judged[:, :1].flatten() if judged.dim() == 2 else judged]
        kinds[name] = _map_columns(kind, lambda v, inside=inside: v[inside])  # type: ignore[misc]
    return dataclasses.replace(batch, **kinds)


def minibatches(batch: JudgementBatch, count: int, generator: torch.Generator) -> list[JudgementBatch]:
    """The judgements of each kind, shuffled and dealt out to `count` batches."""
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in JUDGED_TEXT:
        kind = getattr(batch, name)
        order = torch.randperm(len(kind), generator=generator)
        for i, part in enumerate(parts):
            part[name] = _map_columns(kind, lambda v, rows=order[i::count]: v[rows])  # type: ignore[misc]
    return [dataclasses.replace(batch, **part) for part in parts]


class _NoTokens:
    """Stands in for a tokenizer and remembers the texts."""

    def __init__(self) -> None:
        self.texts: list[Judgeable] = []

    def tokenise(self, texts: Sequence[Judgeable]) -> PackedTokens:
        self.texts = list(texts)
        return PackedTokens.of([[]] * len(texts))

    def response_offsets(self, text: Judgeable) -> tuple[int, list[tuple[int, int]]]:
        return 0, []


def _exact(column: Tensor) -> Tensor:
    return column.double() if column.is_floating_point() else column


def _map_columns(kind: Kind, change: Callable[[Tensor], Tensor]) -> Kind:
    return dataclasses.replace(kind, **{field.name: change(getattr(kind, field.name)) for field in dataclasses.fields(kind)})
