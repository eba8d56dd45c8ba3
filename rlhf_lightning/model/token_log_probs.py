"""Log-probabilities and entropies of tokens from the vectors before the output layer, in chunks.

Shapes: n tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.model.kernels import FastLinear, product
from rlhf_lightning.model.packing import PackedTokens, unpack
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.tensors import entropy_of, log_probs_of

if TYPE_CHECKING:
    from rlhf_lightning.model.language_model import LanguageModel

CHUNK = 2**22
"""Logits per chunk in training, 16 MiB in float32: each chunk costs a pass over the weight's gradient."""
READ_CHUNK = 2**20
"""Logits per chunk without gradients: few enough for the processor's cache."""
ROUND = 32
"""On a CPU the tokens are filled up to a multiple of this (see `packing.ROUND`)."""
MAX_SAVED = 2**26
"""At most this many logits are saved for the backward pass (256 MiB in float32); more are recomputed."""
FLOOR = -1e4
"""The log-probability of an impossible token in an entropy, where 0 * -inf would be NaN."""


def token_log_probs(
    layer: nn.Module,
    hidden: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    entropy: bool = True,
    *,
    cap: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """log softmax(layer(hidden) / temperature) at the tokens, and the entropies in nats, both [n].

    A plain linear layer runs in chunks, with one copy of its logits (or none if they are many) saved for the backward pass,
    where autograd saves four. Other layers (with adapters, hooks, or sharded) run as usual. Results are in float32 at least; under
    autocast the products are in its dtype and everything after them in float32.

    Args:
        layer: the output layer, from [n, D] to [n, V].
        hidden: [n, D].
        tokens: [n].
        entropy: compute entropies; they cost about as much again as the softmax.
        cap: for soft-capped logits, cap · tanh(logit / cap).
        bias: [V] constant added to the logits before they are capped, besides the layer's own.
    """
    if not _is_plain(layer) or (bias is not None and layer.bias is not None):
        logits = layer(hidden) if bias is None else layer(hidden) + bias
        logits = logits if cap is None else softcap(logits, cap)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        return log_probs_of(logits, tokens), entropy_of(logits) if entropy else None
    return linear_log_probs(layer, hidden, tokens, temperature, entropy, cap=cap, bias=bias)


def softcap(logits: Tensor, cap: float) -> Tensor:
    """cap · tanh(logits / cap)."""
    return (logits / cap).tanh() * cap


def linear_log_probs(
    layer: Any,
    hidden: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    entropy: bool = True,
    *,
    cap: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`token_log_probs` of a plain linear layer; `bias` requires that the layer has none."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    count, filled = len(tokens), -len(tokens) % ROUND if device == "cpu" else 0
    hidden, tokens, learns = nn.functional.pad(hidden, (0, 0, 0, filled)), nn.functional.pad(tokens, (0, filled)), torch.is_grad_enabled()
    bias = layer.bias if bias is None else bias
    log_probs, entropies = _LinearLogProbs.apply(hidden, layer.weight, bias, tokens, temperature, entropy, learns, cap)
    return log_probs[:count], entropies[:count] if entropy else None


def _is_plain(layer: nn.Module) -> bool:
    """True for a linear layer without hooks whose weight is unsharded."""
    plain = type(layer) in (nn.Linear, FastLinear) and type(layer.weight) is nn.Parameter
    return plain and not (layer._forward_hooks or layer._forward_pre_hooks)


class _LinearLogProbs(torch.autograd.Function):
    """Gradients in closed form, chunk by chunk.

    d log p(t) / d logit = [j = t] - p; d H / d logit = -p (log p + H); d softcap(x) / d x = 1 - (softcap(x) / cap)^2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: float,
        wants_entropy: bool,
        learns: bool,
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        weight_cast, bias_cast = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        log_probs = hidden.new_empty(len(hidden), dtype=dtype)
        entropies = log_probs.new_zeros(len(hidden) if wants_entropy else 0)
        saves_logits = learns and len(hidden) * len(weight) <= MAX_SAVED
        distributions, normalisers = [], []
        for rows in _chunks(len(hidden), len(weight), learns):
            logits = _temperature_logits(hidden[rows], weight_cast, bias_cast, temperature, cap)
            distribution = logits.log_softmax(1, dtype=dtype)
            if learns and cap is not None:
                normalisers.append(logits[:, 0] - distribution[:, 0])
            log_probs[rows] = distribution.gather(1, tokens[rows, None])[:, 0]
            if wants_entropy:
                # The clamp keeps log p finite, so that an impossible token adds 0. Autocast would run vecdot in its dtype.
                with torch.autocast(hidden.device.type, enabled=False):
                    entropies[rows] = -torch.linalg.vecdot(distribution.exp(), distribution.clamp(min=FLOOR))
            if saves_logits:
                distributions.append(distribution)
        if learns:
            normaliser = torch.cat(normalisers) if normalisers else None
            ctx.save_for_backward(hidden, weight, bias, tokens, entropies, normaliser, *distributions)
        ctx.temperature, ctx.wants_entropy, ctx.cap = temperature, wants_entropy, cap
        return log_probs, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropies: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, entropies, normaliser, *saved = ctx.saved_tensors
        weight_cast, bias_cast = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for number, rows in enumerate(_chunks(len(hidden), len(weight), learns=True)):
            distribution = saved[number] if saved else _log_softmax(hidden[rows], weight_cast, bias_cast, ctx.temperature, ctx.cap)
            entropy = entropies[rows] if ctx.wants_entropy else None
            slope = None
            if normaliser is not None:  # the capped logit is log p plus its normaliser
                slope = 1 - ((distribution + normaliser[rows, None]) * (ctx.temperature / ctx.cap)).square()
            grad_logits = _grad_logits(distribution, tokens[rows], grad_log_probs[rows] / ctx.temperature,
                                       None if entropy is None else (entropy, grad_entropies[rows] / ctx.temperature))  # fmt: skip
            if slope is not None:
                grad_logits = grad_logits.mul_(slope)
            grad_cast = grad_logits.to(hidden.dtype)
            grad_hidden[rows] = product(grad_cast, weight_cast.T)
            if grad_weight is not None:
                grad_weight.add_(product(grad_cast.T, hidden[rows].T))
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0).to(grad_bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _chunks(rows: int, vocabulary: int, learns: bool) -> list[slice]:
    size = max(1, (CHUNK if learns else READ_CHUNK) // vocabulary)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, cap: float | None) -> Tensor:
    logits = _temperature_logits(hidden, weight, bias, temperature, cap)
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _temperature_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, cap: float | None) -> Tensor:
    """Logits, capped, divided by the temperature."""
    logits = product(hidden, weight, bias)
    if temperature != 1.0 or cap is not None:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if cap is not None:
        logits = softcap(logits, cap)
    return logits if temperature == 1.0 else logits / temperature


def _grad_logits(distribution: Tensor, tokens: Tensor, grad_log_probs: Tensor, entropy: tuple[Tensor, Tensor] | None) -> Tensor:
    """The gradient of the logits from log p.

    Without `entropy` (values and gradients), `distribution` is overwritten.
    """
    if entropy is None:
        gradient = distribution.exp_().mul_(-grad_log_probs[:, None])
    else:
        values, grad_entropies = entropy
        p = distribution.exp()
        gradient = p.mul_(-grad_log_probs[:, None] - grad_entropies[:, None] * (distribution.clamp(min=FLOOR) + values[:, None]))
    return gradient.scatter_add_(1, tokens[:, None], grad_log_probs[:, None].to(gradient.dtype))


class ResponseLogProbs(nn.Module):
    """`response_log_probs` as a module, for training: one module to call, move and shard."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model

    def forward(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        return response_log_probs(self.language_model, tokens)


def response_log_probs(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The log-probability of each response given its prompt, and its number of tokens.

    The output layer runs only on positions that predict a response token. A text's first token has no prediction and doesn't count.

    Args:
        tokens: U texts with `response_start`, from which the response with its end-of-text extends to the text's end, or all responses
            that `response_mask` marks.

    Returns:
        [U] sums in nats, float32 at least, and [U] numbers of tokens.
    """
    logits, targets, counts = _predictions(language_model, tokens)
    return unpack(log_probs_of(logits, targets), counts)[0].sum(1), counts


def response_predictions(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """`response_log_probs`, and the number of each response's tokens that are the likeliest ones, [U]."""
    logits, targets, counts = _predictions(language_model, tokens)
    hits = unpack((logits.argmax(-1) == targets).float(), counts)[0].sum(1)
    return unpack(log_probs_of(logits, targets), counts)[0].sum(1), counts, hits


def _predictions(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [n, V] and ids [n] of the response tokens, and their number in each text [U]."""
    assert tokens.response_start is not None, "the texts need a response_start"
    starts = (tokens.lengths.cumsum(0) - tokens.lengths).repeat_interleave(tokens.lengths)
    first = tokens.response_start.clamp(min=1)
    predicted = torch.arange(len(tokens.ids), device=starts.device) - starts >= first.repeat_interleave(tokens.lengths)
    counts = (tokens.lengths - first).clamp(min=0)
    if tokens.response_mask is not None:
        predicted = predicted & tokens.response_mask
        counts = unpack(predicted, tokens.lengths)[0].sum(1)
    indices = predicted.nonzero().flatten()
    hidden = text_vectors(language_model.trunk, tokens)[indices - 1]
    return language_model.logits(hidden), tokens.ids[indices], counts
