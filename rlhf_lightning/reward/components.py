"""Pooling, head and losses of a reward model: their arguments, inputs and outputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.feedback.judgements import KINDS, Judgements
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.registry import Component, build, component_of, components, option


class ScoredBatch(NamedTuple):
    """Raw scores of U texts, with the extra outputs of some heads.

    Attributes:
        scores: [U], float32; the policy's reward.
        members: [K, U] scores of the members of an ensemble, trained separately.
        aspects: [U, A] a score for each aspect, in the order of `Judgements.aspects`.
        tokens: [N] a value for each packed token of the batch; 0 outside the responses.
    """

    scores: Tensor
    members: Tensor | None = None
    aspects: Tensor | None = None
    tokens: Tensor | None = None

    def views(self) -> Iterator[ScoredBatch]:
        """The trained outputs: each member of an ensemble by itself, or the single model."""
        if self.members is None:
            yield self
        else:
            yield from (ScoredBatch(scores=member) for member in self.members)

    def of_aspect(self, item: Tensor, aspect: Tensor) -> Tensor:
        """[M] scores of texts `item` in `aspect`; the total for aspect 0 or a head without aspects."""
        total = self.scores[item]
        if self.aspects is None:
            return total
        return self.aspects[item, aspect].where(aspect > 0, total)


Pooling = Callable[[Tensor, Tensor], Tensor]
"""Function from vectors [U, L, D] and a mask [U, L] of tokens to [U, D]."""


def head_arguments(name: str, width: int, aspects: Sequence[str | None]) -> tuple[Any, ...]:
    """Constructor arguments of a head: the width, and `Judgements.aspects` if it needs "aspects"."""
    return (width, aspects) if "aspects" in option("reward_head", name).needs else (width,)


def pooling_arguments(name: str, width: int) -> tuple[int, ...]:
    """Constructor arguments of a pooling: the width for a class, none for a function."""
    return (width,) if inspect.isclass(option("reward_pooling", name).target) else ()


def apply_head(pooling: Pooling, head: nn.Module, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor | ScoredBatch:
    """The head's output for U texts, from the vectors of their tokens.

    A head gets the pooled vectors; one that needs "tokens" gets the tokens' vectors, their mask and the response's. A pooling that needs
    "response" gets the response's mask in place of the text's.

    Args:
        hidden: [U, L, D], right-padded. mask: [U, L].
    """
    if "tokens" in needs_of(head):
        output: Tensor | ScoredBatch = head(hidden, mask, response_mask(mask, tokens))
    else:
        output = head(pool(pooling, hidden, mask, tokens))
    return output


def pool(pooling: Pooling, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor:
    """phi(x, y), [U, D]."""
    return pooling(hidden, response_mask(mask, tokens) if "response" in needs_of(pooling) else mask)


def response_mask(mask: Tensor, tokens: PackedTokens) -> Tensor:
    """[U, L] mask of the responses, end-of-text included; of all tokens if their starts are unknown."""
    if tokens.response_start is None:
        return mask
    starts = tokens.response_start[:, None]
    return mask.cumsum(1).gt(starts).to(mask.dtype) * mask


def needs_of(part: Any) -> frozenset[str]:
    """The registered needs of a pooling or head instance; empty if it isn't registered."""
    target: Any = part.func if isinstance(part, functools.partial) else type(part) if isinstance(part, nn.Module) else part
    return _needs(target)


@functools.cache
def _needs(target: Hashable) -> frozenset[str]:
    return next((component.needs for component in components() if component.target is target), frozenset())


@runtime_checkable
class LearnsSlope(Protocol):
    """A loss of ratings that learns a slope of the score, whose square multiplies a regression's penalty."""

    def slopes(self, batch: JudgementBatch) -> torch.Tensor:
        """[M] each rating's factor on the score."""


def build_losses(nodes: Mapping[str, Any], judged: Judgements) -> list[nn.Module]:
    """Build each node's loss with the arguments that it registered as `needs`, in this order:

    annotators: [A] number of judgements of the loss's kinds per annotator; the first, 0, is for unknown ones.
    aspects: the number of aspects, the whole response included.

    Raises:
        ConfigError: a loss that needs anything else.
    """
    return [build(node, *_arguments(component_of(node), judged)) for node in nodes.values()]


def _arguments(component: Component, judged: Judgements) -> list[Any]:
    target: Any = component.target
    providers: dict[str, Callable[[], Any]] = {
        "annotators": lambda: judgements_of_annotators(judged, target.kinds),
        "aspects": lambda: len(judged.aspects),
    }
    unknown = component.needs - providers.keys()
    if unknown:
        raise ConfigError(f"reward_loss={component.name} needs {', '.join(sorted(unknown))}; a reward loss may need {', '.join(providers)}")
    return [provide() for name, provide in providers.items() if name in component.needs]


def judgements_of_annotators(judged: Judgements, kinds: tuple[str, ...]) -> torch.Tensor:
    """[A] the number of judgements of these kinds by annotator, whatever their weights."""
    of_kinds = np.isin(judged.rows["kind"], [KINDS.index(kind) for kind in kinds])
    return torch.from_numpy(np.bincount(judged.rows["annotator"][of_kinds], minlength=len(judged.annotators))).float()
