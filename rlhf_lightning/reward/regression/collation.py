"""Judgements as one float64 batch over plain texts, for models without tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.feedback.batch import JudgementBatch, JudgementColumns, collate
from rlhf_lightning.feedback.judgements import Judgements, PromptResponse
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.regression.family import PlainText

TEXT_COLUMNS = {"pairs": "better", "ties": "first", "orders": "items", "ratings": "item", "thumbs": "item", "spans": "item"}
"""The column of each kind with the index of a text: all texts of a judgement answer one prompt."""


def collate_plain(judged: Judgements) -> tuple[JudgementBatch, list[PlainText]]:
    """The judgements as one batch in float64, and the texts that its indices refer to, not tokenised."""
    recorder = _TextRecorder()
    batch = collate(judged, recorder)
    kinds: dict[str, Any] = {name: _map_columns(getattr(batch, name), _to_float64) for name in TEXT_COLUMNS}
    return dataclasses.replace(batch, **kinds), [(prompt_text(prompt), response) for prompt, response in recorder.texts]


def select_judgements(batch: JudgementBatch, texts: Tensor) -> JudgementBatch:
    """The judgements on the texts of a mask [U]."""
    kinds: dict[str, Any] = {}
    for name, column in TEXT_COLUMNS.items():
        kind = getattr(batch, name)
        judged = getattr(kind, column)
        inside = texts[judged[:, :1].flatten() if judged.dim() == 2 else judged]
        kinds[name] = _map_columns(kind, lambda v, inside=inside: v[inside])  # type: ignore[misc]
    return dataclasses.replace(batch, **kinds)


def minibatches(batch: JudgementBatch, count: int, generator: torch.Generator) -> list[JudgementBatch]:
    """The judgements of each kind, shuffled and split into `count` batches."""
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in TEXT_COLUMNS:
        kind = getattr(batch, name)
        order = torch.randperm(len(kind), generator=generator)
        for i, part in enumerate(parts):
            part[name] = _map_columns(kind, lambda v, rows=order[i::count]: v[rows])  # type: ignore[misc]
    return [dataclasses.replace(batch, **part) for part in parts]


class _TextRecorder:
    """A stand-in for a tokenizer that records the texts."""

    def __init__(self) -> None:
        self.texts: list[PromptResponse] = []

    def tokenise(self, texts: Sequence[PromptResponse]) -> PackedTokens:
        self.texts = list(texts)
        return PackedTokens.of([[]] * len(texts))

    def response_offsets(self, text: PromptResponse) -> tuple[int, list[tuple[int, int]]]:
        return 0, []


def _to_float64(column: Tensor) -> Tensor:
    return column.double() if column.is_floating_point() else column


def _map_columns(kind: JudgementColumns, change: Callable[[Tensor], Tensor]) -> JudgementColumns:
    return dataclasses.replace(kind, **{field.name: change(getattr(kind, field.name)) for field in dataclasses.fields(kind)})
