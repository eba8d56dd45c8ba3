"""Attribution of a score to tokens: integrated gradients on the token embeddings."""

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
from rlhf_lightning.reward.explain.view import BUDGET, concat, score_batches, streams, token_count
from rlhf_lightning.reward.explain.words import neutral_token

if TYPE_CHECKING:
    from rlhf_lightning.reward.model import RewardModel

Baseline = Literal["neutral", "pad", "zero"]
NODES = 8
"""Gradients per segment of the path, at Gauss-Legendre nodes."""
GAP_FACTOR = 10
"""The gaps of all segments may add up to so many times the tolerance."""


@dataclass(frozen=True)
class Attribution:
    """A score as a sum over tokens: score = baseline_score + sum(tokens), but for `gap`.

    Attributes:
        tokens: [N] in units of the normalised score; an encoder's context first; 0 for fixed tokens.
        gap: |sum(tokens) - (score - baseline_score)|. bound: the sum of the gaps of the path's segments, without cancellation.
        steps: number of gradients. is_complete: the gap is below the tolerance.
    """

    tokens: Tensor
    score: float
    baseline_score: float
    gap: float
    bound: float
    steps: int
    is_complete: bool


def integrated_gradients(
    model: RewardModel, tokens: PackedTokens, fixed: Tensor, baseline: Baseline = "neutral", tolerance: float = 1e-3, max_steps: int = 1024
) -> Attribution:
    """Integrated gradients of the normalised score from a baseline (Sundararajan et al. 2017).

    The path is a straight line between the outputs of the model's embedding layers; positions, token types and the tokens `fixed` stay
    those of the text. Completeness holds on each segment of the path too, so its gaps locate the error of the integral: the segments with
    the largest gaps are halved until the path's gap is below `tolerance`, and the sum of all segments' gaps below GAP_FACTOR times it. The
    paper takes equal steps; a path from a singular point of a normalisation (Llama's padding is a zero) would need thousands of them.
    Models with kinks (ReLU) need more steps than smooth ones.

    Args:
        tokens: one text. fixed: [N] mask of the tokens that the baseline shares.
        baseline: the embedding in place of each other token: "neutral", that of the mask or the end-of-text (`neutral_token`), "pad", the
            padding's, or "zero". A padding is untrained, and a zero is the singular point of models that normalise by the root mean
            square: attributions there are many times the score and cancel each other.
        max_steps: maximum number of gradients; if they don't suffice, `gap` and `is_complete` show it.

    Raises:
        ConfigError: the model doesn't embed its tokens by transformers' input embeddings.
    """
    path = _Path(model, tokens.to(model.mean.device), fixed, baseline)
    scores: dict[float, float] = {}
    segments = path.segments([(0.0, 0.5), (0.5, 1.0)], scores)
    steps = NODES * len(segments)
    while not _is_complete(segments, tolerance) and steps + 2 * NODES <= max_steps:
        worst = max(abs(segment.gap) for segment in segments)
        halved = [segment for segment in segments if abs(segment.gap) >= worst / 2][: (max_steps - steps) // (2 * NODES)]
        if not halved:  # a gap that is not a number
            break
        parts = [half for s in halved for half in ((s.start, (s.start + s.end) / 2), ((s.start + s.end) / 2, s.end))]
        segments = [segment for segment in segments if segment not in halved] + path.segments(parts, scores)
        steps += NODES * len(parts)
    return Attribution(
        tokens=torch.stack([segment.tokens for segment in segments]).sum(0),
        score=scores[1.0],
        baseline_score=scores[0.0],
        gap=abs(sum(segment.gap for segment in segments)),
        bound=sum(abs(segment.gap) for segment in segments),
        steps=steps,
        is_complete=_is_complete(segments, tolerance),
    )


def _is_complete(segments: list[_Segment], tolerance: float) -> bool:
    gaps = [segment.gap for segment in segments]
    return abs(sum(gaps)) <= tolerance and sum(map(abs, gaps)) <= GAP_FACTOR * tolerance


@dataclass(frozen=True, eq=False)
class _Segment:
    """Integral from start to end: tokens [N], and the difference of their sum from the score's change."""

    start: float
    end: float
    tokens: Tensor
    gap: float


class _Path:
    """The straight line from the baseline's embeddings (0) to the text's (1)."""

    def __init__(self, model: RewardModel, tokens: PackedTokens, fixed: Tensor, baseline: Baseline) -> None:
        self.model, self.tokens = model, tokens
        self.device = model.mean.device
        self.chunk = max(1, BUDGET // token_count(tokens))
        self.layers = _embedding_layers(model.net)
        ends = np.cumsum([len(stream.ids) for stream in streams(tokens)]).tolist()
        self.fixed = [fixed[end - len(stream.ids) : end].to(self.device) for end, stream in zip(ends, streams(tokens), strict=True)]
        fills = {"neutral": neutral_token(model.tokenizer), "pad": int(model.tokenizer.pad_token_id or 0)}
        self.fill = fills.get(baseline)
        # The first run probes the trunk for packed tokens with other texts: do it before the hooks.
        score_batches(model, [tokens], self.device)

    def segments(self, parts: list[tuple[float, float]], scores: dict[float, float]) -> list[_Segment]:
        """Integrate over parts of the path; the scores of their ends are cached in `scores`."""
        ends = sorted({end for part in parts for end in part} - scores.keys())
        for start in range(0, len(ends), self.chunk):
            chunk = ends[start : start + self.chunk]
            with torch.no_grad():
                scores.update(zip(chunk, self._run(torch.tensor(chunk))[0].tolist(), strict=True))
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        positions = np.concatenate([(a + b) / 2 + (b - a) / 2 * nodes for a, b in parts])
        slopes = torch.cat([self._slopes(torch.as_tensor(positions[i : i + self.chunk])) for i in range(0, len(positions), self.chunk)])
        segments = []
        for (a, b), part in zip(parts, slopes.split(NODES), strict=True):
            tokens = (b - a) / 2 * (torch.as_tensor(weights)[:, None] * part).sum(0)
            segments.append(_Segment(a, b, tokens, float(tokens.sum()) - (scores[b] - scores[a])))
        return segments

    def _slopes(self, positions: Tensor) -> Tensor:
        """[S, N] gradient times direction of each token, float64 on the CPU."""
        with torch.enable_grad():
            total, inputs = self._run(positions)
            gradients = torch.autograd.grad(total.sum(), [embedded for embedded, _ in inputs])
        slopes = [(gradient * direction).sum(-1) for gradient, (_, direction) in zip(gradients, inputs, strict=True)]
        return torch.cat(slopes, dim=1).double().cpu()

    def _run(self, positions: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Scores [S], and for each stream its embeddings [S, L, D] and direction to the text [L, D]."""
        batch = concat([self.tokens] * len(positions))
        pending: dict[int, Tensor] = {number: stream.ids for number, stream in enumerate(streams(batch))}
        inputs: dict[int, tuple[Tensor, Tensor]] = {}

        def interpolate(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            # An embedding's input is the tokens of a stream, with packing's zeros after them.
            row = args[0].flatten() if args else torch.zeros(0)
            equal = (n for n, ids in pending.items() if args and torch.equal(row[: len(ids)], ids) and not row[len(ids) :].any())
            number = next(equal, None)
            if number is None:
                return None
            count = len(pending.pop(number))
            vectors = output.detach().flatten(0, -2)
            embedded = vectors[:count].reshape(len(positions), -1, vectors.shape[-1])[0]
            empty = torch.zeros_like(embedded) if self.fill is None else layer.forward(torch.full_like(args[0].reshape(-1)[:1], self.fill))
            empty = torch.where(self.fixed[number][:, None], embedded, empty.detach())
            direction = embedded - empty
            at = empty + positions.to(embedded)[:, None, None] * direction
            inputs[number] = at.requires_grad_(torch.is_grad_enabled()), direction
            return torch.cat([inputs[number][0].flatten(0, -2), vectors[count:]]).reshape(output.shape)

        with _forward_hooks(self.layers, interpolate):
            scores = self.model(batch).float()
        if pending:
            raise ConfigError(f"{type(self.model.net).__name__} reads tokens that bypass its input embeddings: they can't be explained")
        return scores, [inputs[number] for number in sorted(inputs)]


def _embedding_layers(net: nn.Module) -> list[nn.Module]:
    """The embedding layers; encoder and decoder may have one each."""
    layers: dict[int, nn.Module] = {}
    for module in net.modules():
        getter = getattr(module, "get_input_embeddings", None)
        try:
            layer = getter() if callable(getter) else None
        except NotImplementedError:
            continue
        if isinstance(layer, nn.Module):
            layers[id(layer)] = layer
    if not layers:
        raise ConfigError(f"{type(net).__name__} names no input embeddings (get_input_embeddings): its tokens can't be explained")
    return list(layers.values())


@contextmanager
def _forward_hooks(layers: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
