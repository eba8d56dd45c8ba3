"""Memory of a training's passes beyond its weights, by its own code on fake tensors.

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
from rlhf_lightning.plan.fake_run import HEAP_BLOCK, MemoryTracker, Texts, row_hidden, track_memory
from rlhf_lightning.plan.models import Trunk, head_sizes, layer_count
from rlhf_lightning.rollout.sampler.native import draw
from rlhf_lightning.tensors import log_probs_of

TOKEN_RECORDS = 16
"""Numbers of four bytes in a scored rollout per response token."""


@dataclass(frozen=True)
class PassMemory:
    """Bytes of one pass of one model beyond its weights, whose sum is the peak.

    Attributes:
        activations: saved by the trunk for its gradient (or its peak, without one).
        logits: of the output layer. cache: keys and values. temporary: the rest of the peak.
        forward: the peak before the backward pass, when the last step's gradients may still exist.
        heap: the part of the peak in blocks that the C library keeps when they are freed (fake_run.HEAP_BLOCK).
    """

    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    temporary: float = 0.0
    forward: float = 0.0
    heap: float = 0.0

    @property
    def peak(self) -> float:
        return self.activations + self.logits + self.cache + self.temporary


@dataclass
class PolicyPasses:
    """The passes of a policy, with the critic on its hidden states.

    Attributes:
        critic_trunk: the critic's own trunk; None without one.
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

    def train_step(self, texts: Texts, entropy: bool = False, chunked: bool = True, again: bool = False) -> PassMemory:
        """Forward and backward on texts; gradients made on the way are in `temporary`.

        Args:
            entropy: with a gradient of the policy's entropy.
            chunked: log-probabilities by `token_log_probs`, else from whole logits.
            again: measure a second micro-batch, with the gradients of the first.
        """
        model = self.modules
        with track_memory(self.mode, model, self.precision) as memory, fresh_gradients(model):
            if again:
                self._loss(memory, texts, entropy, chunked)[0].backward()
            loss, activations, logits = self._loss(memory, texts, entropy, chunked)
            forward = memory.peak
            loss.backward()
            return PassMemory(activations, logits, 0.0, memory.peak - activations - logits, forward, memory.heap)

    def _loss(self, memory: MemoryTracker, texts: Texts, entropy: bool, chunked: bool) -> tuple[Tensor, float, float]:
        """A sum over all log-probabilities and values, and the bytes saved by trunk and output layer."""
        start = memory.now
        hidden = self._hidden_states(self.trunk, texts)
        after_trunk = memory.now
        loss = self._log_probs(hidden, texts, entropy, chunked)
        after_head = memory.now
        if self.critic_trunk is not None:
            hidden = self._hidden_states(self.critic_trunk, texts)
        activations = after_trunk - start + memory.now - after_head
        return (loss + hidden.float().sum() if self.has_critic else loss), activations, after_head - after_trunk

    @torch.no_grad()
    def forward(self, texts: Texts, entropy: bool = True, critic: bool = True, chunked: bool = True) -> PassMemory:
        """Log-probabilities of texts without a gradient."""
        with track_memory(self.mode, self.modules, self.precision) as memory:
            hidden = self._hidden_states(self.trunk, texts)
            activations = memory.peak
            memory.reset_peak()
            self._log_probs(hidden, texts, entropy, chunked)
            logits = max(0, memory.peak - activations)
            if critic and self.critic_trunk is not None:
                self._hidden_states(self.critic_trunk, texts)
        return PassMemory(activations, logits, 0.0, max(0.0, memory.peak - activations - logits), 0.0, memory.heap)

    @torch.no_grad()
    def generate(self, prompts: tuple[int, ...], max_tokens: int, temperature: float, top_p: float) -> PassMemory:
        """Responses of `max_tokens` tokens: the prompts' pass, then one token at a time with a KV cache."""
        rows, columns = len(prompts), max(prompts) + max_tokens
        heads, kv_heads, width = head_sizes(self.policy.model)
        cache_dtype = torch.bfloat16 if self.precision == "bf16-mixed" else next(self.policy.model.parameters()).dtype
        cache = 2.0 * layer_count(self.policy.model) * rows * kv_heads * columns * width * cache_dtype.itemsize
        # The pass over the prompts, and the sampling of one token.
        texts = Texts(prompts, (1,) * rows)
        with track_memory(self.mode, self.modules, self.precision) as memory:
            hidden = self._hidden_states(self.trunk, texts)
            prompt_pass = memory.peak
            del hidden
            heap = float(memory.heap)
            memory.reset_peak()
            vector = torch.zeros(rows, self.policy.width, dtype=next(self.policy.model.parameters()).dtype)
            draw(self.policy.logits(vector), torch.zeros(rows, dtype=torch.float64), temperature, top_p)
            sampling = memory.peak
        # One layer at a step: keys and values are repeated for grouped heads, and cast to float32 on a CPU.
        itemsize = 4 if self.host else cache_dtype.itemsize
        is_copied = heads > kv_heads or itemsize > cache_dtype.itemsize
        copies = 2.0 * rows * heads * columns * width * itemsize if is_copied else 0.0
        peak = max(prompt_pass, copies + sampling, sampling)
        layer_cache = cache / (2 * layer_count(self.policy.model))
        heap = max(heap, memory.heap) + (cache if layer_cache <= HEAP_BLOCK else 0.0)
        activations = min(prompt_pass, peak - sampling)
        return PassMemory(activations, sampling, cache, peak - activations - sampling, 0.0, heap)

    def _hidden_states(self, trunk: Trunk, texts: Texts) -> Tensor:
        return row_hidden(trunk.model, texts, trunk.packs, self.host)

    def _log_probs(self, hidden: Tensor, texts: Texts, entropy: bool, chunked: bool) -> Tensor:
        """The sum of the log-probabilities [n] of predicted tokens, and of entropies."""
        model, positions = self.policy.model, torch.zeros(texts.predicted_tokens, dtype=torch.long)
        vectors, layer = hidden.index_select(0, positions), model.get_output_embeddings()
        if not chunked:
            return log_probs_of(self.policy.logits(vectors), positions).sum()
        run = linear_log_probs if isinstance(layer, nn.Linear) else token_log_probs
        log_probs, entropies = run(layer, self.policy.before_output(vectors), positions, 1.0, entropy)
        return log_probs.sum() if entropies is None else log_probs.sum() + entropies.sum()


@dataclass
class RewardPasses:
    """The passes of a reward model: a trunk, without its small head.

    Attributes:
        precision: of its training; a frozen one scores in float32.
    """

    mode: Any
    trunk: Trunk
    precision: str
    host: bool

    def train_step(self, texts: Texts) -> PassMemory:
        """Forward and backward on texts."""
        with track_memory(self.mode, self.trunk.model, self.precision) as memory, fresh_gradients(self.trunk.model):
            hidden = row_hidden(self.trunk.model, texts, self.trunk.packs, self.host)
            activations = memory.now
            loss = self._pad(hidden, texts).float().sum()
            forward = memory.peak
            if loss.requires_grad:  # a frozen trunk has no gradient
                loss.backward()
            return PassMemory(activations, 0.0, 0.0, memory.peak - activations, forward, memory.heap)

    @torch.no_grad()
    def forward(self, texts: Texts) -> PassMemory:
        """Scores of texts."""
        with track_memory(self.mode, self.trunk.model, "32-true") as memory:
            hidden = row_hidden(self.trunk.model, texts, self.trunk.packs, self.host)
            activations = memory.peak
            self._pad(hidden, texts)
        return PassMemory(activations, 0.0, 0.0, memory.peak - activations, 0.0, memory.heap)

    def _pad(self, hidden: Tensor, texts: Texts) -> Tensor:
        """[U, L, D], the input of poolings."""
        rows, longest = len(texts), max(texts.lengths)
        padded = hidden.new_zeros(rows * longest, hidden.shape[-1])
        return padded.index_copy(0, torch.zeros(len(hidden), dtype=torch.long), hidden).view(rows, longest, -1)


@contextmanager
def fresh_gradients(model: nn.Module) -> Iterator[None]:
    """Remove a model's gradients before and after."""
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)


def record_bytes(rows: int, prompt: int, response: int) -> float:
    """Bytes of a scored rollout and its uniform draws: B rows, P and T tokens."""
    return rows * (16.0 * prompt + (4.0 * TOKEN_RECORDS + 8) * response)
