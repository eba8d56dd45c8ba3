"""Supervised fine-tuning as a LightningModule: the policy learns to write like the demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.backbone.packing import PackedTokens
from rlhf_lightning.backbone.response_log_probs import response_log_probs
from rlhf_lightning.errors import DataError
from rlhf_lightning.optimizer import adamw
from rlhf_lightning.sft.settings import SFTSettings


class SFTModule(L.LightningModule):
    """Mean negative log-likelihood of the response tokens and the end-of-text; the prompt is read, not learned."""

    def __init__(self, language_model: LanguageModel, settings: SFTSettings, steps: int) -> None:
        super().__init__()
        self.language_model, self.settings, self.steps = language_model, settings, steps
        self.model = language_model.model
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: PackedTokens, batch_idx: int) -> Tensor:
        log_probs, tokens = response_log_probs(self.language_model, batch)
        loss = -log_probs.sum() / tokens.sum()
        self.history.append({"sft/loss": loss.item()})
        for logger in self.loggers:
            logger.log_metrics(self.history[-1], step=len(self.history))
        return loss

    def configure_optimizers(self) -> Any:
        return adamw(self.parameters(), self.settings, self.steps)


def demonstration_loader(
    demonstrations: Sequence[tuple[str, str]],
    language_model: LanguageModel,
    settings: SFTSettings,
    seed: int,
    rank: int,
    world: int,
) -> tuple[DataLoader[Any], int]:
    """Shuffled batches of texts that say where their responses begin, and the number of demonstrations too long to use.

    Raises:
        DataError: none is left.
    """
    limit = min(settings.max_length, language_model.max_length)
    rows = []
    for prompt, response in demonstrations:
        ids, start, context = language_model.text_ids(prompt, response)
        if max(len(ids), len(context or ())) <= limit:
            rows.append((ids, start, context))
    if len(rows) < world:
        raise DataError(
            f"{len(rows)} of {len(demonstrations)} demonstrations fit {limit} tokens: give shorter ones or raise sft.max_length"
        )
    usable = len(rows) - len(rows) % world

    def collate(batch: Sequence[tuple[list[int], int, list[int] | None]]) -> PackedTokens:
        ids, starts, contexts = zip(*batch, strict=True)
        return PackedTokens.of(ids, starts, context=None if contexts[0] is None else PackedTokens.of(contexts))

    loader: DataLoader[Any] = DataLoader(
        rows[rank:usable:world],  # type: ignore[arg-type]
        batch_size=max(1, settings.batch_size // world),
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=collate,
    )
    return loader, len(demonstrations) - len(rows)
