"""Preference optimisation as a LightningModule: the policy learns from judgements of responses that are already there.

Shapes: J judgements and U distinct texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.backbone.response_log_probs import response_log_probs
from rlhf_lightning.errors import UserError
from rlhf_lightning.optimizer import adamw
from rlhf_lightning.preference.examples import PreferenceBatch
from rlhf_lightning.preference.record import Answers, Compared, PreferenceLoss, Thumbed
from rlhf_lightning.preference.settings import PreferenceSettings
from rlhf_lightning.preference.texts import TextTable

TOGETHER = 64
"""Texts of like length that the reference reads at a time."""


class PreferenceModule(L.LightningModule):
    """The weighted mean of a preference loss over the judgements of a batch.

    Each distinct text of a batch is read once for all judgements of it. The reference is the policy as it starts: its log-probabilities
    are taken before the first step, shared by the processes and kept, also in checkpoints. Dropout is off throughout (eval mode), so that
    the implicit rewards are 0 at the start.

    Args:
        loss: of the group preference_loss.
        to_refer: places of the texts whose log-probabilities under the reference are needed.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        loss: PreferenceLoss,
        settings: PreferenceSettings,
        steps: int,
        table: TextTable,
        to_refer: np.ndarray,
    ) -> None:
        super().__init__()
        self.language_model, self.settings, self.steps = language_model, settings, steps
        self.model = language_model.model
        self.loss: Any = loss
        self.table, self.to_refer = table, to_refer
        self.reference: Tensor | None = None
        self.history: list[dict[str, float]] = []

    def on_train_start(self) -> None:
        self.model.eval()
        if self.reference is None:
            mine = self.to_refer[self.trainer.global_rank :: self.trainer.world_size]
            # As the steps compute: in another precision the log-ratios wouldn't be 0 at the start.
            with self.trainer.precision_plugin.forward_context():
                said = text_log_probs(self.language_model, self.table, mine)
            self.reference = self.trainer.strategy.reduce(said.to(self.device), reduce_op="sum").cpu()

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        self.model.eval()
        answers = self._answers(*response_log_probs(self.language_model, batch.tokens), batch.text_places)
        if batch.up is None:
            judged = Compared(_at(answers, batch.index["chosen"]), _at(answers, batch.index["rejected"]))
            losses = self.loss(judged)
            figures = comparison_figures(judged, self.loss, batch.weight)
        else:
            thumbed = Thumbed(_at(answers, batch.index["given"]), batch.up, self._divergence(batch))
            losses = self.loss(thumbed)
            figures = thumb_figures(thumbed, self.loss, batch.weight)
        loss = _mean(losses, batch.weight)
        self._note(figures | {"loss": loss.detach()})
        return loss

    def configure_optimizers(self) -> Any:
        return adamw(self.parameters(), self.settings, self.steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reference"] = self.reference

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.reference = checkpoint["reference"]

    def _answers(self, log_probs: Tensor, tokens: Tensor, places: Tensor) -> Answers:
        reference = None if self.reference is None else self.reference[places.cpu()].to(log_probs.device)
        return Answers(log_probs, tokens, reference)

    @torch.no_grad()
    def _divergence(self, batch: PreferenceBatch) -> Tensor:
        """The mean log-ratio of mismatched pairs over the batches of all processes, 0 where it is below."""
        assert batch.mismatched is not None
        assert batch.mismatched_places is not None
        answers = self._answers(*response_log_probs(self.language_model, batch.mismatched), batch.mismatched_places)
        mean: Tensor = self.trainer.strategy.reduce(answers.log_ratio().mean(), reduce_op="mean")
        return mean.clamp(min=0)

    def _note(self, figures: dict[str, Tensor]) -> None:
        names = list(figures)
        values = torch.stack([figures[name].float() for name in names]).tolist()
        noted = dict(zip(names, values, strict=True))
        if not np.isfinite(noted["loss"]):
            raise UserError(
                f"step {len(self.history) + 1}: the loss is {noted['loss']:g}, so nothing can be learned from here; "
                "lower preference.learning_rate, or raise preference_loss.beta"
            )
        self.history.append(noted)
        for logger in self.loggers:
            logger.log_metrics(noted, step=len(self.history))


@torch.no_grad()
def text_log_probs(language_model: LanguageModel, table: TextTable, places: Sequence[int] | np.ndarray) -> Tensor:
    """[len(table)] the summed log-probabilities of the responses at these places, 0 elsewhere; on the CPU, float32 at least."""
    order = sorted((int(place) for place in places), key=table.length)
    device = language_model.model.device
    parts = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
    said = [response_log_probs(language_model, table.packed(part).to(device))[0].cpu() for part in parts]
    found = torch.zeros(len(table), dtype=said[0].dtype if said else torch.float32)
    if said:
        found[torch.tensor(order)] = torch.cat(said)
    return found


@torch.no_grad()
def comparison_figures(judged: Compared, loss: PreferenceLoss, weight: Tensor) -> dict[str, Tensor]:
    """Weighted means over the pairs under TRL's names; a tie of rewards is no hit."""
    chosen, rejected = loss.rewards(judged.chosen), loss.rewards(judged.rejected)
    return {
        "rewards/chosen": _mean(chosen, weight),
        "rewards/rejected": _mean(rejected, weight),
        "rewards/margins": _mean(chosen - rejected, weight),
        "rewards/accuracies": _mean((chosen > rejected).float(), weight),
        "logps/chosen": _mean(judged.chosen.log_probs, weight),
        "logps/rejected": _mean(judged.rejected.log_probs, weight),
    }


@torch.no_grad()
def thumb_figures(judged: Thumbed, loss: PreferenceLoss, weight: Tensor) -> dict[str, Tensor]:
    """The same of thumbs up and down; a response is a hit on its side of the divergence. A batch without one of them gives 0 for it."""
    rewards, up = loss.rewards(judged.given), judged.up
    neutral = loss.rewards(Answers(judged.divergence, torch.ones_like(up), torch.zeros_like(judged.divergence)))
    chosen, rejected = _mean(rewards, weight * up), _mean(rewards, weight * (1 - up))
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": _mean(((rewards > neutral) == (up > 0)).float(), weight),
        "logps/chosen": _mean(judged.given.log_probs, weight * up),
        "logps/rejected": _mean(judged.given.log_probs, weight * (1 - up)),
        "kl": judged.divergence,
    }


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-8)


def _at(answers: Answers, index: Tensor) -> Answers:
    reference = None if answers.ref_log_probs is None else answers.ref_log_probs[index]
    return Answers(answers.log_probs[index], answers.tokens[index], reference)
