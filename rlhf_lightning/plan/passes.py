"""What the passes of a training take beyond weights, gradients and the optimiser: each is rehearsed with its own code.

Shapes: N tokens of all texts, n predicted ones, D width, V vocabulary, U texts, L tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.token_log_probs import linear_log_probs, token_log_probs
from rlhf_lightning.plan.fake_run import HEAP_BLOCK, MemoryTracker, Texts, counted, row_hidden
from rlhf_lightning.plan.models import Trunk, head_sizes, layer_count
from rlhf_lightning.rollout.sampler.native import draw
from rlhf_lightning.tensors import log_probs_of

RECORD = 16
"""Numbers of four bytes that a scored rollout keeps of each token."""


@dataclass(frozen=True)
class PassMemory:
    """Bytes of one pass of one model beyond weights: what the trunk keeps for its gradient (or holds at most, where nothing is learned),
    the output layer's logits, keys and values, and the rest of the most that was alive at a time."""

    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    temporary: float = 0.0
    forward: float = 0.0
    """The most at a time before the backward pass, which is when the last step's gradients may still be there."""
    heap: float = 0.0
    """The part of the peak in blocks that the C library keeps when they are freed (rehearsal.HEAP_BLOCK)."""

    @property
    def peak(self) -> float:
        return self.activations + self.logits + self.cache + self.temporary


@dataclass
class Passes:
    """The passes of a policy, with the critic that reads its vectors.

    Attributes:
        critic_trunk: the critic's own; None for one on the policy's.
        host: on a CPU.
    """

    mode: Any
    policy: LanguageModel
    trunk: Trunk
    precision: str
    host: bool
    critic_trunk: Trunk | None = None
    has_critic: bool = False

    @property
    def modules(self) -> nn.Module:
        return nn.ModuleList([self.policy.model, *([self.critic_trunk.model] if self.critic_trunk else [])])

    def learned(self, texts: Texts, entropy: bool = False, chunked: bool = True, again: bool = False) -> PassMemory:
        """Forward and backward on texts. Gradients that come to be on the way are in `temporary`.

        Args:
            entropy: of the policy, learned from.
            chunked: log-probabilities by `token_log_probs`, else from whole logits.
            again: a second time while the gradients of the first are there: micro-batches.
        """
        model = self.modules
        with counted(self.mode, model, self.precision) as live, fresh_gradients(model):
            if again:
                self._loss(live, texts, entropy, chunked)[0].backward()
            loss, activations, logits = self._loss(live, texts, entropy, chunked)
            forward = live.peak
            loss.backward()
            return PassMemory(activations, logits, 0.0, live.peak - activations - logits, forward, live.heap)

    def _loss(self, live: MemoryTracker, texts: Texts, entropy: bool, chunked: bool) -> tuple[Tensor, float, float]:
        """Something that every vector and value adds to, and the bytes that trunk and output layer keep for its gradient."""
        start = live.now
        hidden = self._hidden(self.trunk, texts)
        after_trunk = live.now
        said = self._said(hidden, texts, entropy, chunked)
        after_head = live.now
        if self.critic_trunk is not None:
            hidden = self._hidden(self.critic_trunk, texts)
        activations = after_trunk - start + live.now - after_head
        return (said + hidden.float().sum() if self.has_critic else said), activations, after_head - after_trunk

    @torch.no_grad()
    def read(self, texts: Texts, entropy: bool = True, critic: bool = True, chunked: bool = True) -> PassMemory:
        """Log-probabilities of texts without a gradient."""
        with counted(self.mode, self.modules, self.precision) as live:
            hidden = self._hidden(self.trunk, texts)
            activations = live.peak
            live.restart()
            self._said(hidden, texts, entropy, chunked)
            logits = max(0, live.peak - activations)
            if critic and self.critic_trunk is not None:
                self._hidden(self.critic_trunk, texts)
        return PassMemory(activations, logits, 0.0, max(0.0, live.peak - activations - logits), 0.0, live.heap)

    @torch.no_grad()
    def drawn(self, prompts: tuple[int, ...], room: int, temperature: float, top_p: float) -> PassMemory:
        """Responses of `room` tokens: the prompts' pass, then token by token with keys and values of all rows."""
        rows, columns = len(prompts), max(prompts) + room
        heads, shared, width = head_sizes(self.policy.model)
        cache_dtype = torch.bfloat16 if self.precision == "bf16-mixed" else next(self.policy.model.parameters()).dtype
        cache = 2.0 * layer_count(self.policy.model) * rows * shared * columns * width * cache_dtype.itemsize
        texts = Texts(prompts, (1,) * rows)
        with counted(self.mode, self.modules, self.precision) as live:
            hidden = self._hidden(self.trunk, texts)
            first = live.peak
            del hidden
            heap = live.heap
            live.restart()
            vector = torch.zeros(rows, self.policy.width, dtype=next(self.policy.model.parameters()).dtype)
            draw(self.policy.logits(vector), torch.zeros(rows, dtype=torch.float64), temperature, top_p)
            sampling = live.peak
        # Of one layer at a step: keys and values are repeated for the heads that share them, and on a CPU brought to float32.
        single = 4 if self.host else cache_dtype.itemsize
        repeated = 2.0 * rows * heads * columns * width * single if heads > shared or single > cache_dtype.itemsize else 0.0
        at_most = max(first, repeated + sampling, sampling)
        one_cache = cache / (2 * layer_count(self.policy.model))
        kept = max(heap, live.heap) + (cache if one_cache <= HEAP_BLOCK else 0.0)
        activations = min(first, at_most - sampling)
        return PassMemory(activations, sampling, cache, at_most - activations - sampling, 0.0, kept)

    def _hidden(self, trunk: Trunk, texts: Texts) -> Tensor:
        return row_hidden(trunk.model, texts, trunk.packs, self.host)

    def _said(self, hidden: Tensor, texts: Texts, entropy: bool, chunked: bool) -> Tensor:
        """The sum of log-probabilities [n] of what is predicted, and of entropies."""
        model, places = self.policy.model, torch.zeros(texts.answers, dtype=torch.long)
        vectors, layer = hidden.index_select(0, places), model.get_output_embeddings()
        if not chunked:
            return log_probs_of(self.policy.logits(vectors), places).sum()
        run = linear_log_probs if isinstance(layer, nn.Linear) else token_log_probs
        log_probs, entropies = run(layer, self.policy.before_output(vectors), places, 1.0, entropy)
        return log_probs.sum() if entropies is None else log_probs.sum() + entropies.sum()


@dataclass
class Scoring:
    """The passes of a reward model: a trunk, and a head too small to count.

    Attributes:
        precision: of its training; a frozen one scores in float32.
    """

    mode: Any
    trunk: Trunk
    precision: str
    host: bool

    def learned(self, texts: Texts) -> PassMemory:
        """Forward and backward on texts."""
        with counted(self.mode, self.trunk.model, self.precision) as live, fresh_gradients(self.trunk.model):
            hidden = row_hidden(self.trunk.model, texts, self.trunk.packs, self.host)
            activations = live.now
            loss = self._padded(hidden, texts).float().sum()
            forward = live.peak
            if loss.requires_grad:  # a frozen trunk has no gradient
                loss.backward()
            return PassMemory(activations, 0.0, 0.0, live.peak - activations, forward, live.heap)

    @torch.no_grad()
    def read(self, texts: Texts) -> PassMemory:
        """Scores of texts."""
        with counted(self.mode, self.trunk.model, "32-true") as live:
            hidden = row_hidden(self.trunk.model, texts, self.trunk.packs, self.host)
            activations = live.peak
            self._padded(hidden, texts)
        return PassMemory(activations, 0.0, 0.0, live.peak - activations, 0.0, live.heap)

    def _padded(self, hidden: Tensor, texts: Texts) -> Tensor:
        """[U, L, D], as poolings take it."""
        rows, longest = len(texts), max(texts.lengths)
        padded = hidden.new_zeros(rows * longest, hidden.shape[-1])
        return padded.index_copy(0, torch.zeros(len(hidden), dtype=torch.long), hidden).view(rows, longest, -1)


@contextmanager
def fresh_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, a model begins without gradients, and it has none afterwards."""
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)


def record_bytes(rows: int, prompt: int, response: int) -> float:
    """Of a scored rollout and its draws: B rows, P and T tokens."""
    return rows * (16.0 * prompt + (4.0 * RECORD + 8) * response)
