"""Reward modelling as a LightningModule: all kinds of judgements train one score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback import standardise
from rlhf_lightning.feedback.batch import Judged, JudgementBatch, collate, judgement_kind
from rlhf_lightning.optimizer import adamw
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.settings import RewardSettings


class RewardModule(L.LightningModule):
    """Maximum likelihood of all judgements of a batch together: the sum of each loss's weighted terms over the sum of weights."""

    def __init__(self, model: RewardModel, losses: Sequence[nn.Module], settings: RewardSettings, steps: int) -> None:
        super().__init__()
        self.model, self.settings, self.steps = model, settings, steps
        self.losses = nn.ModuleList(losses)
        self.history: list[dict[str, float]] = []
        if settings.freeze_backbone and hasattr(model.net, "trunk"):
            model.net.trunk.requires_grad_(False)

    def forward(self, batch: JudgementBatch) -> Tensor:
        scores: Tensor = self.model(batch.input_ids, batch.mask)
        return scores

    def training_step(self, batch: JudgementBatch, batch_idx: int) -> Tensor:
        scores: Tensor = self(batch)
        terms = [loss(scores, batch) for loss in self.losses]
        weight = torch.stack([weights.sum() for _, weights in terms]).sum()
        loss: Tensor = torch.stack([(losses * weights).sum() for losses, weights in terms]).sum() / weight.clamp(min=1e-8)
        figures = {"reward/loss": loss.item(), "reward/scores_std": scores.detach().float().std(correction=0).item()}
        self.history.append(figures)
        for logger in self.loggers:
            logger.log_metrics(figures, step=len(self.history))
        # A rank whose batch says nothing (approvals only) still takes part in the reduction of gradients.
        return loss + 0.0 * scores.sum()

    def configure_optimizers(self) -> Any:
        return adamw(self.parameters(), self.settings, self.steps)


def check_kinds(losses: Sequence[Any], judged: Sequence[Judged]) -> None:
    """Refuse feedback that no chosen loss learns from: it would be dropped in silence."""
    learned = {kind for loss in losses for kind in loss.kinds}
    for kind in sorted({judgement_kind(record.feedback) for record in judged} - learned):
        raise ConfigError(
            f"the feedback holds judgements of kind {kind!r}, and none of reward_loss=[{', '.join(type(x).__name__ for x in losses)}] "
            "learns from them: add a loss that does, or leave out that feedback_format"
        )


def feedback_loader(judged: Sequence[Judged], model: RewardModel, batch_size: int, seed: int, rank: int, world: int) -> DataLoader[Any]:
    """Batches of about `batch_size` judgements, new ones in every epoch; each process takes its share of every batch.

    What was said about one prompt stays in one batch, so that a response is scored once for all its judgements, and is not learned by
    heart from being met again and again (Ouyang et al. 2022, section 3.5).

    Raises:
        ConfigError: fewer prompts than processes.
    """
    of_prompt: dict[str, list[Judged]] = {}
    for record in judged:
        of_prompt.setdefault(record.feedback.prompt, []).append(record)
    groups = [group[i : i + batch_size] for group in of_prompt.values() for i in range(0, len(group), batch_size)]
    if len(groups) < world:
        raise ConfigError(f"feedback on {len(groups)} prompts can't be shared by {world} processes")
    share = max(1, round(batch_size * len(groups) / len(judged) / world))
    usable = len(groups) - len(groups) % world
    return DataLoader(
        groups[rank:usable:world],  # type: ignore[arg-type]
        batch_size=share,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=lambda batch: collate([record for group in batch for record in group], model.tokenise),
    )


@torch.no_grad()
def held_out_accuracy(model: RewardModel, judged: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """(right, all) ordered pairs by kind, and "all" together. A rating's pairs are responses to one prompt that its annotator rated
    apart; ties of the score count as wrong."""
    model.eval()
    texts = sorted({(r.feedback.prompt, response) for r in judged for response in r.feedback.responses})
    scores = dict(zip(texts, model.score_texts([t[0] for t in texts], [t[1] for t in texts]).tolist(), strict=True))
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for kind, prompt, better, worse in comparisons(judged):
        for name in (kind, "all"):
            counts[name][0] += scores[prompt, better] > scores[prompt, worse]
            counts[name][1] += 1
    return {name: (right, total) for name, (right, total) in counts.items()}


@torch.no_grad()
def rating_spearman(model: RewardModel, judged: Sequence[Judged]) -> float | None:
    """Rank correlation of scores with ratings over all held-out responses, each rating counted once; None with fewer than three."""
    from torchmetrics.functional import spearman_corrcoef

    rated = [(r.feedback.prompt, r.feedback.responses[0], r.z_score) for r in judged if r.z_score is not None]
    if len(rated) < 3:
        return None
    scores = model.score_texts([r[0] for r in rated], [r[1] for r in rated])
    return float(spearman_corrcoef(scores, torch.tensor([float(r[2]) for r in rated])))


def comparisons(judged: Sequence[Judged]) -> list[tuple[str, str, str, str]]:
    """(kind, prompt, better, worse) of every order that the feedback states, ratings compared within a prompt and annotator."""
    found = []
    rated: dict[tuple[str, str | None], list[tuple[float, str]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        for better, worse in standardise.comparisons(feedback):
            found.append((judgement_kind(feedback), feedback.prompt, feedback.responses[better], feedback.responses[worse]))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator].append((record.z_score, feedback.responses[0]))
    for (prompt, _), given in rated.items():
        for i, (z_1, text_1) in enumerate(given):
            for z_2, text_2 in given[i + 1 :]:
                if z_1 != z_2 and text_1 != text_2:
                    found.append(("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1))))
    return found
