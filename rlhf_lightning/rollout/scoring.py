"""Interface of a scorer, the validation of its scores, and the weighted sum of several."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.registry import PACKAGE, components
from rlhf_lightning.rollout.spans import Decode, Span, place_spans, read_spans
from rlhf_lightning.tensors import score_on_last_token
from rlhf_lightning.training.distributed import raise_on_all_ranks


class Scorer(Protocol):
    """Scores for the responses of a rollout; higher is better.

    It reads texts, tokens or columns, and returns a tensor [B] of any dtype on any device, an array, or a list of B numbers. NaN, and None
    in a list, mean that a response can't be scored. A scorer of parts of a response returns a tensor [B, T] with a reward for each token,
    or for each response a list of (start, end, value) in characters; its score is their sum.
    """

    def __call__(self, rollout: Rollout, /) -> Tensor | Sequence[Any]: ...


@dataclass(frozen=True)
class WeightedScorers:
    """Several scorers by name, and the weight of each in the sum."""

    scorers: Mapping[str, Scorer]
    weights: Mapping[str, float]

    def __call__(self, rollout: Rollout) -> Tensor:
        return score_responses(self, rollout).total

    @property
    def model(self) -> Any:
        """The model of the first scorer that has one; None without."""
        return next((scorer.model for scorer in self.scorers.values() if hasattr(scorer, "model")), None)


def parts_with(scorer: Scorer | None, attribute: str) -> dict[str, Any]:
    """The scorer, or those of several scorers, that have an attribute, by name."""
    parts = scorer.scorers if isinstance(scorer, WeightedScorers) else {} if scorer is None else {scorer_name(scorer): scorer}
    return {name: part for name, part in parts.items() if hasattr(part, attribute)}


@dataclass(frozen=True)
class Scores:
    """Checked scores of B responses.

    Attributes:
        total: [B] float32; NaN for a response without a score.
        token_rewards: [B, T] that add up to the total; None if all of it belongs to the last token.
        components: [B] of each of several scorers by name, unweighted; empty for a single one.
        weights: of the components.
    """

    total: Tensor
    token_rewards: Tensor | None = None
    components: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def rewards(self, response_mask: Tensor) -> Tensor:
        """Rewards [B, T] before shaping."""
        return score_on_last_token(self.total, response_mask) if self.token_rewards is None else self.token_rewards

    def to(self, device: torch.device) -> Scores:
        tokens = None if self.token_rewards is None else self.token_rewards.to(device)
        return Scores(self.total.to(device), tokens, {name: part.to(device) for name, part in self.components.items()}, self.weights)


def concat_scores(parts: Sequence[Scores]) -> Scores:
    """Concatenate the scores of consecutive responses."""
    if len(parts) == 1:
        return parts[0]
    tokens = [part.token_rewards for part in parts if part.token_rewards is not None]
    names = parts[0].components
    return Scores(
        torch.cat([part.total for part in parts]),
        torch.cat(tokens) if tokens else None,
        {name: torch.cat([part.components[name] for part in parts]) for name in names},
        parts[0].weights,
    )


def scores_on_all_ranks(scorer: Scorer, rollout: Rollout, decode: Decode | None = None) -> Scores:
    """`score_responses` of this process's responses; an error on one process is raised on all."""
    return raise_on_all_ranks(lambda: score_responses(scorer, rollout, decode))


def checked_scores(scorer: Scorer, rollout: Rollout) -> Tensor:
    """The checked scores [B] of a rollout (`score_responses`)."""
    return score_responses(scorer, rollout).total


def scores_by_name(scorer: Scorer, rollout: Rollout) -> dict[str, Tensor]:
    """The checked scores [B] as "score", and those of each of several scorers as "score/NAME"."""
    scores = score_responses(scorer, rollout)
    return {"score": scores.total} | {f"score/{name}": part for name, part in scores.components.items()}


def score_responses(scorer: Scorer, rollout: Rollout, decode: Decode | None = None) -> Scores:
    """Score a rollout by one or several scorers, and validate their scores: finite, or NaN for no score.

    A response that one of several can't score has the weighted sum of the others, as in TRL; without any score it has none.

    Args:
        decode: of the policy's language model; places the spans of a scorer on tokens. Without it all is on the last token.

    Raises:
        UserError: a scorer raised or called sys.exit; another number of scores than responses; a score that is no number or infinite.
            The message names the scorer's option, its file and line, and the response.
    """
    if not isinstance(scorer, WeightedScorers):
        return _score_by_one(scorer, rollout, scorer_name(scorer), decode)
    outputs = {name: _score_by_one(part, rollout, name, decode) for name, part in scorer.scorers.items()}
    components = {name: part.total for name, part in outputs.items()}
    weights = dict(scorer.weights)
    tokens = None
    if any(part.token_rewards is not None for part in outputs.values()):
        mask = rollout.response_mask
        tokens = torch.stack([weights[name] * part.to(mask.device).rewards(mask).nan_to_num() for name, part in outputs.items()]).sum(0)
    return Scores(weighted_sum(components, weights), tokens, components, weights)


def weighted_sum(components: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum scores [B] times their weights, without NaN; NaN where all are."""
    device = next(iter(components.values())).device
    scores = torch.stack([weights[name] * part.to(device) for name, part in components.items()])
    return scores.nansum(0).masked_fill(scores.isnan().all(0), torch.nan)


def _score_by_one(scorer: Scorer, rollout: Rollout, name: str, decode: Decode | None) -> Scores:
    """Score a rollout by one scorer.

    The scorer gets a copy of the rollout. Its changes to the working directory, torch's default dtype and grad mode are undone.
    """
    copied = rollout.select(torch.arange(len(rollout), device=rollout.group.device))
    try:
        with _environment_restored():
            output = scorer(copied)
    except UserError:
        raise
    except (Exception, SystemExit) as cause:
        sizes = f"{len(rollout)} responses, the first {_short(rollout.responses[0])}" if len(rollout) else "no response"
        frames = "".join(traceback.format_tb(cause.__traceback__)[1:])
        raise UserError(f"scorer {name} raised {type(cause).__name__}: {cause} (given {sizes})\n{frames}".rstrip()) from cause
    try:
        return _read_output(output, rollout, name, decode)
    except UserError as error:
        raise UserError(f"{error}{scorer_source(scorer, ' (defined in {})')}") from None


def _read_output(output: Any, rollout: Rollout, name: str, decode: Decode | None) -> Scores:
    """Convert and validate what a scorer returned."""
    spans: list[list[Span] | None] | None = read_spans(output, rollout.responses, name)
    if spans is not None:
        output = [None if row is None else sum(span[2] for span in row) for row in spans]
    numbers = _as_tensor(output, name, rollout).detach()
    infinite = numbers.float().isinf().nonzero().tolist()
    if infinite:
        value, response = numbers[tuple(infinite[0])].item(), rollout.responses[infinite[0][0]]
        raise UserError(f"scorer {name} returned {value} for the response {_short(response)}")
    scores = numbers.float()
    if spans is not None:
        return Scores(scores, None if decode is None else place_spans(spans, rollout, decode))
    if scores.dim() == 1:
        return Scores(scores)
    inside = rollout.response_mask.bool().to(scores.device)
    rewards = torch.where(inside, scores, torch.zeros_like(scores))
    return Scores(rewards.sum(1), rewards)


def scorer_name(scorer: Any) -> str:
    """Name of a scorer's option, else of its function or class, for messages."""
    if isinstance(scorer, WeightedScorers):
        return "+".join(scorer.scorers)
    target = _function(scorer)
    option = next((c.name for c in components("rollout_scorer") if c.target in (target, type(target))), None)
    return option or getattr(target, "__qualname__", None) or type(target).__qualname__


def scorer_source(scorer: Any, text: str) -> str:
    """Format file and line of a user's scorer into a text; "" for the scorers of this package."""
    target = getattr(scorer, "function", None) or _function(scorer)
    code = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    try:
        file, line = inspect.getsourcefile(code), inspect.getsourcelines(code)[1]
    except (OSError, TypeError):
        return ""
    return "" if file is None or PACKAGE in Path(file).parents else text.format(f"{file}:{line}")


def _function(scorer: Any) -> Any:
    while isinstance(scorer, partial):
        scorer = scorer.func
    return scorer


@contextmanager
def _environment_restored() -> Iterator[None]:
    folder, dtype = os.getcwd(), torch.get_default_dtype()
    try:
        with torch.no_grad():
            yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)


def _as_tensor(output: Any, name: str, rollout: Rollout) -> Tensor:
    """Convert a scorer's output to a tensor [B], or [B, T] of a scorer of tokens."""
    count = len(rollout)
    if isinstance(output, Tensor):
        if output.shape not in ((count,), rollout.response_mask.shape):
            tokens = f", or {list(rollout.response_mask.shape)} with a reward for each token"
            raise UserError(f"scorer {name} returned shape {list(output.shape)} for {count} responses; it must be [{count}]{tokens}")
        if output.is_complex():
            raise UserError(f"scorer {name} returned complex numbers ({output.dtype}); a score is a real number")
        return output
    items = output.tolist() if hasattr(output, "tolist") else output
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise UserError(f"scorer {name} must return a tensor or a list of {count} scores, not {type(output).__name__}")
    if len(items) != count:
        raise UserError(f"scorer {name} returned {len(items)} scores for {count} responses")
    return torch.tensor([_number(item, name, i) for i, item in enumerate(items)], dtype=torch.float64)


def _number(item: Any, name: str, position: int) -> float:
    if item is None:
        return float("nan")
    if isinstance(item, Tensor) and item.numel() == 1 and not item.is_complex():
        return float(item.item())
    if not isinstance(item, Real):
        raise UserError(f"scorer {name} returned {item!r:.80} ({type(item).__name__}) as score {position}; a score is a number, or None")
    try:
        return float(item)
    except OverflowError:
        return float("inf")


def _short(response: str) -> str:
    return repr(response[:80])
