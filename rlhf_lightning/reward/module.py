"""Reward modelling as a LightningModule: all kinds of judgements train one score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback import standardise
from rlhf_lightning.feedback.batch import JudgementBatch, collate
from rlhf_lightning.feedback.judgements import Judged, Judgements, Text, judgement_kind
from rlhf_lightning.flow import Prompt
from rlhf_lightning.optimizer import adamw
from rlhf_lightning.reward.bootstrap import bootstrapped
from rlhf_lightning.reward.head.ensemble import EnsembleHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.parts import needs_of
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

    def training_step(self, batch: JudgementBatch, batch_idx: int) -> Tensor:
        scored = self.model.scored(batch.tokens)
        views = list(scored.views())
        terms = [loss(view, part) for view, part in zip(views, self._parts(batch, len(views)), strict=True) for loss in self.losses]
        weight = torch.stack([weights.sum() for _, weights in terms]).sum()
        loss: Tensor = torch.stack([(losses * weights).sum() for losses, weights in terms]).sum() / weight.clamp(min=1e-8)
        figures = {"reward/loss": loss.item(), "reward/scores_std": scored.scores.detach().float().std(correction=0).item()}
        self.history.append(figures)
        for logger in self.loggers:
            logger.log_metrics(figures, step=len(self.history))
        # A rank whose batch says nothing (approvals only) still takes part in the reduction of gradients.
        return loss + 0.0 * torch.stack([view.scores.sum() for view in views]).sum()

    def _parts(self, batch: JudgementBatch, views: int) -> Iterable[JudgementBatch]:
        """What each view learns from: all of the batch, or a member's own draw of it."""
        head = getattr(self.model.net, "head", None)
        if isinstance(head, EnsembleHead) and head.bootstrap:
            return bootstrapped(batch, views, head.seed)
        return [batch] * views

    def configure_optimizers(self) -> Any:
        settings = self.settings
        return adamw(self.model.parameters(), settings, self.steps, self.losses.parameters(), settings.loss_learning_rate)


@torch.no_grad()
def level_members(model: RewardModel, texts: Sequence[Text], batch_size: int = 64) -> None:
    """Let the members of an ensemble, where the head is one, have the mean score 0 each over these texts (EnsembleHead.level)."""
    head = getattr(model.net, "head", None)
    if not isinstance(head, EnsembleHead):
        return
    total = torch.zeros_like(head.level)
    for start in range(0, len(texts), batch_size):
        members = model.scored(model.tokenise(texts[start : start + batch_size]).to(head.level.device)).members
        total += torch.zeros_like(total) if members is None else members.sum(1)
    head.level += total / max(1, len(texts))


@torch.no_grad()
def check_pooling(model: RewardModel) -> None:
    """Refuse a pooling that reads the first token on a trunk whose first token reads nothing else.

    Raises:
        ConfigError: two texts that differ score alike.
    """
    if "bidirectional" not in needs_of(getattr(model.net, "pooling", None)):
        return
    training = {module: module.training for module in model.modules()}
    model.eval()
    one, other = model.scored(model.tokenise([("a", "a"), ("a", "a b a b")]).to(model.mean.device)).scores.tolist()
    for module, was in training.items():
        module.training = was
    if abs(one - other) <= 1e-5 * (1 + abs(one)):
        raise ConfigError(
            "reward_pooling=cls reads the first token, and in this backbone, a causal one, that has read nothing of the text: "
            "choose reward_pooling=last, or an encoder"
        )


def learned_kinds(losses: Iterable[Any]) -> set[str]:
    """The kinds of judgements that the losses learn from."""
    return {kind for loss in losses for kind in loss.kinds}


def check_kinds(losses: Sequence[Any], judged: Judgements) -> None:
    """Refuse feedback that no chosen loss learns from: it would be dropped in silence."""
    for kind in sorted(judged.kinds - learned_kinds(losses)):
        raise ConfigError(
            f"the feedback holds judgements of kind {kind!r}, and none of reward_loss=[{', '.join(type(x).__name__ for x in losses)}] "
            "learns from them: add a loss that does, or leave out that feedback_format"
        )


class PromptGroups(Dataset[list[Judged]]):
    """The judgements, those on one prompt together, at most `size` in a group; 24 bytes of memory each, read when asked for."""

    def __init__(self, judged: Judgements, size: int) -> None:
        _, first, group = np.unique(judged.rows["prompt"], return_index=True, return_inverse=True)
        # Groups stand in the order in which their prompts first come, and in them judgements in theirs.
        order = np.argsort(first[group], kind="stable")
        counts = np.unique(first[group], return_counts=True)[1]
        ends = counts.cumsum()
        starts = [start for end, count in zip(ends.tolist(), counts.tolist(), strict=True) for start in range(end - count, end, size)]
        self.judged = judged.select(order)
        self.bounds = np.array([*starts, len(judged)])

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> list[Judged]:
        return list(self.judged[self.bounds[index] : self.bounds[index + 1]])


def feedback_loader(
    judged: Judgements, model: RewardModel, batch_size: int, seed: int, rank: int, world: int, kinds: Collection[str] = ()
) -> DataLoader[Any]:
    """Batches of about `batch_size` judgements, new ones in every epoch; each process takes its share of every batch.

    What was said about one prompt stays in one batch, so that a response is scored once for all its judgements, and is not learned by
    heart from being met again and again (Ouyang et al. 2022, section 3.5).

    Args:
        kinds: what is learned (`learned_kinds`): the tokens of marked and edited stretches are looked for if "spans" is.

    Raises:
        ConfigError: fewer prompts than processes.
    """
    groups = PromptGroups(judged, batch_size)
    if len(groups) < world:
        raise ConfigError(f"feedback on {len(groups)} prompts can't be shared by {world} processes")
    share = max(1, round(batch_size * len(groups) / len(judged) / world))
    usable = len(groups) - len(groups) % world
    return DataLoader(
        Subset(groups, range(rank, usable, world)),
        batch_size=share,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=lambda batch: collate((record for group in batch for record in group), model, spans="spans" in kinds),
    )


@torch.no_grad()
def held_out_accuracy(model: RewardModel, judged: Judgements) -> dict[str, tuple[int, int]]:
    """(right, all) ordered pairs by kind, and "all" together. A rating's pairs are responses to one prompt that its annotator rated
    apart; ties of the score count as wrong."""
    model.eval()
    texts = judged.texts()
    scores = dict(zip(texts, model.score_texts([t[0] for t in texts], [t[1] for t in texts]).tolist(), strict=True))
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for kind, prompt, better, worse in comparisons(judged):
        for name in (kind, "all"):
            counts[name][0] += scores[prompt, better] > scores[prompt, worse]
            counts[name][1] += 1
    return {name: (right, total) for name, (right, total) in counts.items()}


@torch.no_grad()
def rating_spearman(model: RewardModel, judged: Iterable[Judged]) -> float | None:
    """Rank correlation of scores with ratings over all held-out responses, each rating counted once; None with fewer than three."""
    from torchmetrics.functional import spearman_corrcoef

    rated = [(*_text(record), record.z_score) for record in judged if record.z_score is not None]
    if len(rated) < 3:
        return None
    scores = model.score_texts([r[0] for r in rated], [r[1] for r in rated])
    return float(spearman_corrcoef(scores, torch.tensor([float(r[2]) for r in rated])))


def comparisons(judged: Iterable[Judged]) -> list[tuple[str, Prompt, str, str]]:
    """(kind, prompt, better, worse) of every order that the feedback states, ratings compared within a prompt, annotator and aspect."""
    found = []
    rated: dict[tuple[Prompt, str | None, int], list[tuple[float, str]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        for better, worse in standardise.comparisons(feedback):
            found.append((judgement_kind(feedback), feedback.prompt, feedback.responses[better], feedback.responses[worse]))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator, record.aspect].append((record.z_score, feedback.responses[0]))
    for (prompt, *_), given in rated.items():
        for i, (z_1, text_1) in enumerate(given):
            for z_2, text_2 in given[i + 1 :]:
                if z_1 != z_2 and text_1 != text_2:
                    found.append(("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1))))
    return found


def _text(record: Judged) -> tuple[Prompt, str]:
    feedback = record.feedback
    return feedback.prompt, feedback.responses[0]
