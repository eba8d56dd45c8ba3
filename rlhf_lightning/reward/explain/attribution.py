"""Which tokens carried a score: integrated gradients on the token embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.variants import BUDGET, joined, scored, size, streams
from rlhf_lightning.reward.explain.words import neutral_token

if TYPE_CHECKING:
    from rlhf_lightning.reward.model import RewardModel

Baseline = Literal["neutral", "pad", "zero"]
POINTS = 8
"""Gradients for each stretch of the path, at the places of Gauss and Legendre."""
LUCK = 10
"""A small gap of the whole path counts where those of its stretches aren't larger than so many times the tolerance."""


@dataclass(frozen=True)
class Attribution:
    """A score as a sum over tokens: score = baseline_score + sum(tokens), but for `gap`.

    Attributes:
        tokens: [N] in units of the normalised score; an encoder's context first; 0 for fixed tokens.
        gap: |sum(tokens) - (score - baseline_score)|. bound: the sum of such gaps over the path's stretches, which errors of opposite
            sign can't hide in.
        steps: gradients that were taken. is_complete: the gap is below the tolerance that was asked for.
    """

    tokens: Tensor
    score: float
    baseline_score: float
    gap: float
    bound: float
    steps: int
    is_complete: bool


def integrated_gradients(
    model: RewardModel, tokens: PackedTokens, fixed: Tensor, baseline: Baseline = "neutral", tolerance: float = 1e-3, most_steps: int = 1024
) -> Attribution:
    """Integrated gradients (Sundararajan et al. 2017) of the normalised score, from a text of empty tokens to the text.

    The path runs in a straight line between the outputs of the model's embedding layers; positions, token types and the tokens `fixed`
    are the text's own all along. Completeness also holds on each stretch of the path. That shows where the integral is still wrong: the
    stretches with the largest gaps are halved, until the whole path's gap is below `tolerance`, and the gaps of all stretches together
    below LUCK times it. The paper takes equal steps, of which a path that starts where a normalisation is singular (Llama's padding is a
    zero) would need thousands. Models that bend in kinks (ReLU) need more steps than smooth ones.

    Args:
        tokens: one text. fixed: [N] which tokens the baseline has, too.
        baseline: in place of each other token "neutral", the embedding of the mask or the end-of-text (`neutral_token`), "pad", the
            padding's, or "zero". A padding was never trained, and where it is zero the path begins at the singular point of models that
            normalise by the root mean square: attributions there are many times the score and cancel each other.
        most_steps: gradients at most; where they don't suffice, `gap` and `is_complete` say so.

    Raises:
        ConfigError: the model doesn't embed its tokens through layers that transformers knows as input embeddings.
    """
    path = _Path(model, tokens.to(model.mean.device), fixed, baseline)
    scores: dict[float, float] = {}
    stretches = path.stretches([(0.0, 0.5), (0.5, 1.0)], scores)
    steps = POINTS * len(stretches)
    while not _is_complete(stretches, tolerance) and steps + 2 * POINTS <= most_steps:
        worst = max(abs(stretch.gap) for stretch in stretches)
        halved = [stretch for stretch in stretches if abs(stretch.gap) >= worst / 2][: (most_steps - steps) // (2 * POINTS)]
        if not halved:  # a gap that is not a number
            break
        parts = [half for s in halved for half in ((s.start, (s.start + s.end) / 2), ((s.start + s.end) / 2, s.end))]
        stretches = [stretch for stretch in stretches if stretch not in halved] + path.stretches(parts, scores)
        steps += POINTS * len(parts)
    return Attribution(
        tokens=torch.stack([stretch.tokens for stretch in stretches]).sum(0),
        score=scores[1.0],
        baseline_score=scores[0.0],
        gap=abs(sum(stretch.gap for stretch in stretches)),
        bound=sum(abs(stretch.gap) for stretch in stretches),
        steps=steps,
        is_complete=_is_complete(stretches, tolerance),
    )


def _is_complete(stretches: list[_Stretch], tolerance: float) -> bool:
    gaps = [stretch.gap for stretch in stretches]
    return abs(sum(gaps)) <= tolerance and sum(map(abs, gaps)) <= LUCK * tolerance


@dataclass(frozen=True, eq=False)
class _Stretch:
    """The integral from start to end: tokens [N], and how far its sum is from the change of the score."""

    start: float
    end: float
    tokens: Tensor
    gap: float


class _Path:
    """The straight line from the baseline's embeddings (0) to the text's (1)."""

    def __init__(self, model: RewardModel, tokens: PackedTokens, fixed: Tensor, baseline: Baseline) -> None:
        self.model, self.tokens = model, tokens
        self.device = model.mean.device
        self.at_a_time = max(1, BUDGET // size(tokens))
        self.layers = _embedding_layers(model.net)
        ends = np.cumsum([len(stream.ids) for stream in streams(tokens)]).tolist()
        self.kept = [fixed[end - len(stream.ids) : end].to(self.device) for end, stream in zip(ends, streams(tokens), strict=True)]
        fills = {"neutral": neutral_token(model.tokenizer), "pad": int(model.tokenizer.pad_token_id or 0)}
        self.fill = fills.get(baseline)
        # The first run tries whether the trunk takes packed tokens, by texts of its own: it must not meet the hooks.
        scored(model, [tokens], self.device)

    def stretches(self, parts: list[tuple[float, float]], scores: dict[float, float]) -> list[_Stretch]:
        """The integrals over parts of the path, from `scores` by place, to which those of their ends are added."""
        ends = sorted({end for part in parts for end in part} - scores.keys())
        for start in range(0, len(ends), self.at_a_time):
            some = ends[start : start + self.at_a_time]
            with torch.no_grad():
                scores.update(zip(some, self._run(torch.tensor(some))[0].tolist(), strict=True))
        nodes, weights = np.polynomial.legendre.leggauss(POINTS)
        places = np.concatenate([(a + b) / 2 + (b - a) / 2 * nodes for a, b in parts])
        slopes = torch.cat([self._slopes(torch.as_tensor(places[i : i + self.at_a_time])) for i in range(0, len(places), self.at_a_time)])
        found = []
        for (a, b), own in zip(parts, slopes.split(POINTS), strict=True):
            tokens = (b - a) / 2 * (torch.as_tensor(weights)[:, None] * own).sum(0)
            found.append(_Stretch(a, b, tokens, float(tokens.sum()) - (scores[b] - scores[a])))
        return found

    def _slopes(self, places: Tensor) -> Tensor:
        """[S, N] gradient times way of each token, float64 on the CPU."""
        with torch.enable_grad():
            total, met = self._run(places)
            gradients = torch.autograd.grad(total.sum(), [at for at, _ in met])
        slopes = [(gradient * way).sum(-1) for gradient, (_, way) in zip(gradients, met, strict=True)]
        return torch.cat(slopes, dim=1).double().cpu()

    def _run(self, places: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Scores [S], and for each stream where the run was [S, L, D] and its way from the baseline to the text [L, D]."""
        batch = joined([self.tokens] * len(places))
        waiting: dict[int, Tensor] = {number: stream.ids for number, stream in enumerate(streams(batch))}
        met: dict[int, tuple[Tensor, Tensor]] = {}

        def moved(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            number = next((n for n, own in waiting.items() if args and _is_row(args[0].flatten(), own)), None)
            if number is None:
                return None
            count = len(waiting.pop(number))
            row = output.detach().flatten(0, -2)
            whole = row[:count].reshape(len(places), -1, row.shape[-1])[0]
            empty = torch.zeros_like(whole) if self.fill is None else layer.forward(torch.full_like(args[0].reshape(-1)[:1], self.fill))
            empty = torch.where(self.kept[number][:, None], whole, empty.detach())
            way = whole - empty
            at = empty + places.to(whole)[:, None, None] * way
            met[number] = at.requires_grad_(torch.is_grad_enabled()), way
            return torch.cat([met[number][0].flatten(0, -2), row[count:]]).reshape(output.shape)

        with _hooked(self.layers, moved):
            scores = self.model(batch).float()
        if waiting:
            raise ConfigError(f"{type(self.model.net).__name__} reads tokens that don't pass its input embeddings: they can't be explained")
        return scores, [met[number] for number in sorted(met)]


def _embedding_layers(net: nn.Module) -> list[nn.Module]:
    """The layers that turn ids into vectors; encoder and decoder may have one each."""
    found: dict[int, nn.Module] = {}
    for module in net.modules():
        named = getattr(module, "get_input_embeddings", None)
        try:
            layer = named() if callable(named) else None
        except NotImplementedError:
            continue
        if isinstance(layer, nn.Module):
            found[id(layer)] = layer
    if not found:
        raise ConfigError(f"{type(net).__name__} names no input embeddings (get_input_embeddings): its tokens can't be explained")
    return list(found.values())


def _is_row(given: Tensor, own: Tensor) -> bool:
    """Whether an embedding's input is these tokens, which packing fills up with zeros."""
    return torch.equal(given[: len(own)], own) and not given[len(own) :].any()


@contextmanager
def _hooked(layers: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
