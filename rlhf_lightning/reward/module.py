"""Reward modelling as a LightningModule: all kinds of judgements train one score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch, collate
from rlhf_lightning.feedback.grouping import group_loader
from rlhf_lightning.feedback.judgements import Judgements, PromptResponse
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import decode_packed
from rlhf_lightning.optimization.parameters import ParameterGroup, trained_parameters
from rlhf_lightning.reward.components import needs_of
from rlhf_lightning.reward.head.ensemble import EnsembleHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.collation import TEXT_COLUMNS
from rlhf_lightning.reward.settings import RewardSettings
from rlhf_lightning.training.periodic_evaluation import preserved_modes
from rlhf_lightning.training.supervised import LossSums, SupervisedModule

_MAX_COUNT = 12
"""Larger counts have a probability of 10^-10."""
# Splitmix64's constants as signed numbers (Steele, Lea and Flood 2014).
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def bootstrap_batches(batch: JudgementBatch, members: int, seed: int, by_text: bool = False) -> Iterator[JudgementBatch]:
    """The batch for each member, its judgements weighted by the count of their prompt in its sample.

    Prompts are sampled, not judgements, since judgements of one prompt are correlated (a cluster bootstrap), each Poisson(1) times (the
    Poisson bootstrap of Oza and Russell 2001). A prompt's count depends on its tokens, the member and the seed: it is the same in every
    epoch and process.

    Args:
        by_text: sample texts instead (`Judgements.by_text`), of a comparison the better one.
    """
    for counts in poisson_counts(text_keys(batch.tokens, by_text), members, seed):
        kinds = {}
        for name, column in TEXT_COLUMNS.items():
            kind = getattr(batch, name)
            item = getattr(kind, column)
            times = counts[item if item.dim() == 1 else item[:, 0]] if len(kind) else kind.weight
            kinds[name] = dataclasses.replace(kind, weight=kind.weight * times)
        yield dataclasses.replace(batch, **kinds)


def poisson_counts(keys: Tensor, members: int, seed: int) -> Tensor:
    """[K, U] Poisson(1) counts, a function of key [U], member and seed."""
    member = torch.arange(members, device=keys.device)[:, None]
    mixed = _hash(_hash(keys) + _hash(member * _STEP + seed))
    uniform = (mixed & 0xFFFFFF).float() / 2**24
    below = torch.tensor([math.exp(-1) / math.factorial(j) for j in range(_MAX_COUNT)], device=keys.device).cumsum(0)
    return (uniform[:, :, None] >= below).sum(-1).float()


def text_keys(tokens: PackedTokens, by_text: bool = False) -> Tensor:
    """[U] hashes of the tokens before the response, or of the encoder's context if there is one.

    Args:
        by_text: hashes of all tokens of the row instead.
    """
    read = tokens if tokens.context is None or by_text else tokens.context
    lengths = read.lengths
    text = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    position = torch.arange(len(read.ids), device=lengths.device) - (lengths.cumsum(0) - lengths)[text]
    ends = lengths if read.response_start is None or by_text else read.response_start
    inside = position < ends[text]
    return torch.zeros_like(lengths).index_add(0, text[inside], _hash(read.ids[inside] * _STEP + position[inside]))


def _hash(number: Tensor) -> Tensor:
    """Scatter integers over 64 bits (splitmix64); products wrap around."""
    number = (number ^ (number >> 30)) * _FIRST
    number = (number ^ (number >> 27)) * _SECOND
    return number ^ (number >> 31)


class JudgementLoss(nn.Module):
    """The summed losses of a batch of judgements under a model; losses may have parameters."""

    def __init__(self, model: RewardModel, losses: Sequence[nn.Module], by_text: bool = False) -> None:
        super().__init__()
        self.model, self.losses, self.by_text = model, nn.ModuleList(losses), by_text

    def forward(self, batch: JudgementBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the losses' weighted terms, the sum of their weights, and the scores [U] of the texts."""
        scored = self.model.raw_scores(batch.tokens)
        views = list(scored.views())
        terms = [loss(view, part) for view, part in zip(views, self._parts(batch, len(views)), strict=True) for loss in self.losses]
        total = torch.stack([(losses * weights).sum() for losses, weights in terms]).sum()
        # A batch without terms (approvals only) still takes part in the gradient.
        total = total + 0.0 * torch.stack([view.scores.sum() for view in views]).sum()
        return total, torch.stack([weights.sum() for _, weights in terms]).sum(), scored.scores.detach().float()

    def _parts(self, batch: JudgementBatch, views: int) -> Iterable[JudgementBatch]:
        """The batch of each view: bootstrapped for ensemble members, or all of it."""
        head = getattr(self.model.net, "head", None)
        if isinstance(head, EnsembleHead) and head.bootstrap:
            return bootstrap_batches(batch, views, head.seed, self.by_text)
        return [batch] * views


class RewardModule(SupervisedModule):
    """Maximum likelihood of all judgements of a batch together.

    The loss is the sum of each loss's weighted terms over the sum of their weights.
    """

    settings: RewardSettings
    loss_name = "reward/loss"
    trained = "likelihood"
    advice = "lower reward.learning_rate, or look for extreme ratings and margins in the feedback"

    def __init__(
        self, model: RewardModel, losses: Sequence[nn.Module], settings: RewardSettings, steps: int, by_text: bool = False
    ) -> None:
        super().__init__(settings, steps)
        self.likelihood = JudgementLoss(model, losses, by_text)

    def loss_sums(self, batch: JudgementBatch) -> LossSums:
        loss, weight, scores = self.likelihood(batch)
        counts = (weight > 0).float()  # 0 for a blank batch, whose scores are those of another process too
        count = counts * len(scores)
        return LossSums(loss, weight, {"score": (counts * scores.sum(), count), "squared_score": (counts * (scores**2).sum(), count)})

    def held_out_sums(self, batch: JudgementBatch) -> LossSums:
        """The loss, and the accuracy over pairs and the pairs of rankings."""
        loss, weight, scores = self.likelihood(batch)
        return LossSums(loss, weight, {"accuracy": ordered_pairs(batch, scores)})

    def step_metrics(self, means: dict[str, Tensor]) -> dict[str, float]:
        variance = means["squared_score"] - means["score"] ** 2
        return {"reward/loss": means["reward/loss"].item(), "reward/scores_std": variance.clamp(min=0).sqrt().item()}

    def read_texts(self, micro_batch: JudgementBatch) -> list[Any]:
        return decode_packed(self.likelihood.model.tokenizer, micro_batch.tokens)

    def parameter_groups(self) -> list[ParameterGroup]:
        model, losses = self.likelihood.model, self.likelihood.losses
        return [
            ParameterGroup("model", trained_parameters(model), self.learning_rate),
            ParameterGroup("losses", trained_parameters(losses), self.settings.loss_learning_rate, weight_decay=0.0),
        ]


def ordered_pairs(batch: JudgementBatch, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Number of pairs, and of pairs of ranked items, whose better text scores higher, and of all of them."""
    pairs, orders = batch.pairs, batch.orders
    hits, counted = [scores[pairs.better] > scores[pairs.worse]], [pairs.weight > 0]
    if len(orders):
        levels, ranked = orders.levels, scores[orders.items.clamp(min=0)]
        better = (levels[:, :, None] < levels[:, None, :]) & (levels[:, :, None] >= 0) & (orders.weight > 0)[:, None, None]
        hits.append((ranked[:, :, None] > ranked[:, None, :]).flatten())
        counted.append(better.flatten())
    every = torch.cat(counted)
    return (torch.cat(hits) & every).sum(), every.sum()


@torch.no_grad()
def center_ensemble_members(model: RewardModel, texts: Sequence[PromptResponse], batch_size: int = 64) -> None:
    """Center each ensemble member's scores on these texts (EnsembleHead.level)."""
    head = getattr(model.net, "head", None)
    if not isinstance(head, EnsembleHead):
        return
    total = torch.zeros_like(head.level)
    like_lengths = sorted(texts, key=lambda text: len(text[1]))
    for start in range(0, len(texts), batch_size):
        members = model.raw_scores(model.tokenise(like_lengths[start : start + batch_size]).to(head.level.device)).members
        total += torch.zeros_like(total) if members is None else members.sum(1)
    head.level += total / max(1, len(texts))


@torch.no_grad()
def check_pooling(model: RewardModel) -> None:
    """Reject a pooling of the first token on a decoder, whose first token reads nothing else.

    Raises:
        ConfigError: two texts that differ score alike.
    """
    if "bidirectional" not in needs_of(getattr(model.net, "pooling", None)):
        return
    with preserved_modes(model):
        model.eval()
        first, second = model.raw_scores(model.tokenise([("a", "a"), ("a", "a b a b")]).to(model.mean.device)).scores.tolist()
    if abs(first - second) <= 1e-5 * (1 + abs(first)):
        raise ConfigError(
            "reward_pooling=cls reads the first token, which in this backbone's decoder has read nothing of the response: "
            "choose reward_pooling=last, or backbone=encoder"
        )


def learned_kinds(losses: Iterable[Any]) -> set[str]:
    """The kinds of judgements that the losses learn from."""
    return {kind for loss in losses for kind in loss.kinds}


def check_kinds(losses: Sequence[Any], judged: Judgements) -> None:
    """Reject feedback that no chosen loss learns from. Raises ConfigError."""
    for kind in sorted(judged.kinds - learned_kinds(losses)):
        raise ConfigError(
            f"the feedback holds judgements of kind {kind!r}, and none of reward_loss=[{', '.join(type(x).__name__ for x in losses)}] "
            "learns from them: add a loss that does, or leave out that feedback_format"
        )


def feedback_loader(
    judged: Judgements,
    model: RewardModel,
    batch_size: int,
    seed: int,
    rank: int,
    world: int,
    kinds: Collection[str] = (),
    micro_batch_size: int | None = None,
) -> DataLoader[Any]:
    """Shuffled batches of about `batch_size` judgements, sharded over the processes.

    All judgements of a prompt are in one batch, so that a response is scored once for all of them and isn't overfitted (Ouyang et al. 2022,
    section 3.5). Judgements are read lazily.

    Args:
        kinds: kinds that the losses learn from (`learned_kinds`); "spans" locates the tokens of marked and edited spans.
        micro_batch_size: judgements of a micro-batch, about, for batches that are lists of micro-batches.
    """

    def collate_rows(rows: np.ndarray) -> JudgementBatch:
        return collate(judged.select(rows), model, spans="spans" in kinds)

    return group_loader(
        judged.rows["prompt"], batch_size, batch_size, (seed, rank, world), collate_rows, JudgementBatch.blank, micro_batch_size
    )
