"""Supervised fine-tuning as a LightningModule: the policy learns to write like the demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.backbone.language_model import LanguageModel, pad_rows, plain_ids
from rlhf_lightning.errors import DataError
from rlhf_lightning.optimizer import adamw
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.tensors import log_probs_of, masked_mean


class SFTModule(L.LightningModule):
    """Mean negative log-likelihood of the response tokens and the end-of-text; the prompt is read, not learned."""

    def __init__(self, language_model: LanguageModel, settings: SFTSettings, steps: int) -> None:
        super().__init__()
        self.language_model, self.settings, self.steps = language_model, settings, steps
        self.model = language_model.model
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        ids, is_response = batch
        rows, columns = is_response.nonzero(as_tuple=True)
        hidden = self.language_model.hidden_states(ids)[rows, columns - 1]
        log_probs = log_probs_of(self.language_model.logits(hidden), ids[rows, columns])
        loss = -masked_mean(log_probs, torch.ones_like(log_probs))
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
    """Shuffled batches of (ids [B, L], response mask [B, L]), right-padded, and the number of demonstrations too long to use.

    Raises:
        DataError: none is left.
    """
    limit = min(settings.max_length, language_model.max_length)
    rows = []
    for prompt, response in demonstrations:
        ids = [*plain_ids(language_model.tokenizer, prompt, response), language_model.eos_ids[-1]]
        start = max(1, len(plain_ids(language_model.tokenizer, prompt)))
        if len(ids) <= limit:
            rows.append((ids, start))
    if len(rows) < world:
        raise DataError(
            f"{len(rows)} of {len(demonstrations)} demonstrations fit {limit} tokens: give shorter ones or raise sft.max_length"
        )
    usable = len(rows) - len(rows) % world

    def collate(batch: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
        ids, mask = pad_rows([row for row, _ in batch], language_model.pad_id)
        starts = torch.tensor([start for _, start in batch])
        return ids, mask * (torch.arange(ids.shape[1]) >= starts[:, None])

    loader: DataLoader[Any] = DataLoader(
        rows[rank:usable:world],  # type: ignore[arg-type]
        batch_size=max(1, settings.batch_size // world),
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=collate,
    )
    return loader, len(demonstrations) - len(rows)
