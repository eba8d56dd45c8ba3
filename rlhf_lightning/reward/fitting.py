"""How the weights of a FeatureScore are found: exactly where there is a closed form, else to convergence."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.packing import PackedTokens
from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.batch import JudgementBatch, Kind, collate
from rlhf_lightning.feedback.judgements import Judgements, prompt_number
from rlhf_lightning.feedback.judgements import Text as Judgeable
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.reward.feature._family import Text
from rlhf_lightning.reward.features import FeatureScore
from rlhf_lightning.reward.ridge import ridge
from rlhf_lightning.reward.scored import Scored
from rlhf_lightning.reward.sparse import Linear

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""What `l2` is chosen from, strongest first."""
EXACTLY, ROUGHLY = 1e-8, 1e-5
"""How far a solver goes, for the weights that stay and for choosing the penalty: the largest slope that L-BFGS leaves, and the relative
residual of a ridge regression."""
JUDGED_TEXT = {"pairs": "better", "ties": "first", "orders": "items", "ratings": "item", "thumbs": "item", "spans": "item"}
"""The column of each kind that holds a text: all texts of a judgement answer one prompt."""


@dataclass(frozen=True)
class Gradient:
    """Adam on minibatches of judgements, instead of the closed form or the whole batch."""

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """What was done: the penalty, and the held-out loss of each that was tried (empty where it was given)."""

    l2: float
    tried: dict[float, float]


def fit(
    score: FeatureScore,
    judged: Judgements,
    losses: Sequence[nn.Module],
    *,
    l2: float | None = None,
    folds: int = 3,
    solver: Literal["closed_form", "gradient"] = "closed_form",
    gradient: Gradient | None = None,
) -> Fit:
    """Learn features, standardisation and weights of `score` from the judgements.

    It minimises the weighted mean of the judgements' losses + l2 / 2 * |w|². Ratings alone are a ridge regression with an intercept, half
    the squared error of the z-scores for loss, solved exactly. Any other kinds, and ratings among them, have the losses of reward_loss,
    minimised with their own parameters by L-BFGS over the whole batch; the bias then makes the mean score of the training texts 0.

    Args:
        losses: each takes scores [U] and a batch and returns losses and weights; their parameters are left as they are.
        l2: the penalty; None chooses it by cross-validation over the prompts (the losses of those left out, in closed form always).
        folds: of the cross-validation.
        solver: "closed_form" as above, deterministic; "gradient" Adam on minibatches of the same objective.

    Raises:
        DataError: no judgements, or no feature varies.
    """
    batch, texts = collated(judged)
    if not len(batch):
        raise DataError("no judgement to learn from")
    linear = Linear(score.prepare(texts), score.centre)
    start, tried = torch.zeros_like(score.weight), dict[float, float]()
    if l2 is None:
        start, tried = _cross_validated(linear, batch, losses, _folds(texts, folds))
        l2 = min(tried, key=lambda penalty: tried[penalty]) if tried else PENALTIES[len(PENALTIES) // 2]
    ratings_alone = _only_ratings(batch)
    if solver == "gradient":
        score.weight = _adam(linear, batch, [_SquaredError()] if ratings_alone else losses, l2, gradient or Gradient())
    else:
        score.weight = _solved(linear, batch, losses, l2, start)[0]
    centred = linear.forward(score.weight)
    score.bias = _intercept(batch, centred) if ratings_alone else -float(centred.mean())
    return Fit(l2, tried)


def collated(judged: Judgements) -> tuple[JudgementBatch, list[Text]]:
    """The judgements as one batch in float64, and the texts that its indices point at; nothing is tokenised."""
    reader = _NoTokens()
    batch = collate(judged, reader)
    kinds: dict[str, Any] = {name: _changed(getattr(batch, name), _exact) for name in JUDGED_TEXT}
    return dataclasses.replace(batch, **kinds), [(prompt_text(prompt), response) for prompt, response in reader.texts]


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


def _changed(kind: Kind, change: Callable[[Tensor], Tensor]) -> Kind:
    return dataclasses.replace(kind, **{field.name: change(getattr(kind, field.name)) for field in dataclasses.fields(kind)})


def _among(batch: JudgementBatch, texts: Tensor) -> JudgementBatch:
    """The judgements of the texts that a mask [U] holds."""
    kinds: dict[str, Any] = {}
    for name, column in JUDGED_TEXT.items():
        kind = getattr(batch, name)
        judged = getattr(kind, column)
        inside = texts[judged[:, :1].flatten() if judged.dim() == 2 else judged]
        kinds[name] = _changed(kind, lambda v, inside=inside: v[inside])  # type: ignore[misc]
    return dataclasses.replace(batch, **kinds)


def _folds(texts: Sequence[Text], folds: int) -> list[Tensor]:
    """Masks [U] of texts with no prompt in common and of like number, the same whatever the order.

    Where one prompt has more than its fold's share of the texts (or there is none), with no response in common instead.
    """
    numbers = [prompt_number(prompt) for prompt, _ in texts]
    if max(Counter(numbers).values()) > len(texts) / folds:
        numbers = [prompt_number(response) for _, response in texts]
    sizes = Counter(numbers)
    filled, part = [0] * folds, dict[int, int]()
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        part[number] = filled.index(min(filled))
        filled[part[number]] += sizes[number]
    place = torch.tensor([part[number] for number in numbers])
    return [place == i for i in range(folds)]


def _cross_validated(
    linear: Linear, batch: JudgementBatch, losses: Sequence[nn.Module], folds: Sequence[Tensor]
) -> tuple[Tensor, dict[float, float]]:
    """The folds' mean weights at the best penalty, and the held-out loss of each, from the strongest down until it gets worse; nothing
    where nothing can be left out."""
    sides = [(_among(batch, ~held_out), _among(batch, held_out)) for held_out in folds]
    sides = [(training, held_out) for training, held_out in sides if len(training) and len(held_out)]
    starts = [torch.zeros(linear.width, dtype=torch.float64) for _ in sides]
    best, tried = torch.zeros(linear.width, dtype=torch.float64), dict[float, float]()
    for penalty in PENALTIES if sides else ():
        total = weight = 0.0
        for i, (training, held_out) in enumerate(sides):
            starts[i], trained = _solved(linear, training, losses, penalty, starts[i], ROUGHLY)
            with torch.no_grad():
                found, weights = _held_out_loss(linear.forward(starts[i]), training, held_out, trained)
            total, weight = total + float(found), weight + float(weights)
        tried[penalty] = total / max(weight, 1e-12)
        if tried[penalty] > min(tried.values()):
            break
        best = torch.stack(starts).mean(0)
    return best, tried


def _held_out_loss(
    scores: Tensor, training: JudgementBatch, held_out: JudgementBatch, losses: Sequence[nn.Module]
) -> tuple[Tensor, Tensor]:
    """Weighted sum of losses on what was left out, and the sum of its weights."""
    if not _only_ratings(training):
        return _total(losses, scores, held_out)
    ratings = held_out.ratings
    errors = ratings.z_score - scores[ratings.item] - _intercept(training, scores)
    return (ratings.weight * errors**2).sum() / 2, ratings.weight.sum()


def _solved(
    linear: Linear, batch: JudgementBatch, losses: Sequence[nn.Module], l2: float, start: Tensor, tolerance: float = EXACTLY
) -> tuple[Tensor, Sequence[nn.Module]]:
    """The best weights [F], and the losses with the parameters that go with them."""
    if _only_ratings(batch):
        return ridge(linear, *_observed(batch, linear.size), l2, start, tolerance), []
    trained = [copy.deepcopy(loss).double() for loss in losses]
    # In these units every weight has a curvature of about 1; rare words would else take many steps.
    unit = (linear.variances(torch.full((linear.size,), 1 / linear.size, dtype=torch.float64)) / 4 + l2).clamp(min=1e-12).rsqrt()
    eased = (start / unit).requires_grad_()
    parameters = [eased, *(p for loss in trained for p in loss.parameters() if p.requires_grad)]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=tolerance, tolerance_change=1e-12, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        objective = _objective(linear, eased * unit, trained, batch, l2)
        torch.autograd.backward(objective)
        return float(objective.detach())

    optimizer.step(closure)
    return eased.detach() * unit, trained


def _adam(linear: Linear, batch: JudgementBatch, losses: Sequence[nn.Module], l2: float, gradient: Gradient) -> Tensor:
    """The weights [F] after some epochs of Adam on the same objective, the learning rate falling to 0 on a line."""
    trained = [copy.deepcopy(loss).double() for loss in losses]
    weight = torch.zeros(linear.width, dtype=torch.float64, requires_grad=True)
    parameters = [weight, *(p for loss in trained for p in loss.parameters() if p.requires_grad)]
    optimizer = torch.optim.Adam(parameters, lr=gradient.learning_rate)
    generator = torch.Generator().manual_seed(gradient.seed)
    steps = -(-len(batch) // gradient.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (gradient.epochs * steps))
    for _ in range(gradient.epochs):
        for part in _minibatches(batch, steps, generator):
            optimizer.zero_grad()
            torch.autograd.backward(_objective(linear, weight, trained, part, l2))
            optimizer.step()
            schedule.step()
    return weight.detach()


class _SquaredError(nn.Module):
    """What the ridge regression minimises, for minibatches: half the squared error around score + offset."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        return (batch.ratings.z_score - scored.scores[batch.ratings.item] - self.offset) ** 2 / 2, batch.ratings.weight


def _minibatches(batch: JudgementBatch, count: int, generator: torch.Generator) -> list[JudgementBatch]:
    """The judgements of each kind, shuffled and dealt out to so many batches."""
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in JUDGED_TEXT:
        kind = getattr(batch, name)
        order = torch.randperm(len(kind), generator=generator)
        for i, part in enumerate(parts):
            part[name] = _changed(kind, lambda v, own=order[i::count]: v[own])  # type: ignore[misc]
    return [dataclasses.replace(batch, **part) for part in parts]


def _objective(linear: Linear, weight: Tensor, losses: Sequence[nn.Module], batch: JudgementBatch, l2: float) -> Tensor:
    total, weights = _total(losses, linear.times(weight), batch)
    return total / weights.clamp(min=1e-12) + l2 / 2 * weight @ weight


def _total(losses: Sequence[nn.Module], scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
    """The weighted sum of all losses, and the sum of the weights."""
    terms = [loss(Scored(scores=scores), batch) for loss in losses]
    return torch.stack([(found * weights).sum() for found, weights in terms]).sum(), torch.stack([w.sum() for _, w in terms]).sum()


def _only_ratings(batch: JudgementBatch) -> bool:
    return len(batch.ratings) == len(batch)


def _intercept(batch: JudgementBatch, scores: Tensor) -> float:
    ratings = batch.ratings
    return float((ratings.weight * (ratings.z_score - scores[ratings.item])).sum() / ratings.weight.sum().clamp(min=1e-12))


def _observed(batch: JudgementBatch, texts: int) -> tuple[Tensor, Tensor]:
    """Each text's share of all the weight, and that share times its rating, [U]: several ratings of a text are one, their mean."""
    ratings = batch.ratings
    share = ratings.weight / ratings.weight.sum().clamp(min=1e-12)
    nothing = torch.zeros(texts, dtype=torch.float64)
    return nothing.index_add(0, ratings.item, share), nothing.index_add(0, ratings.item, share * ratings.z_score)
