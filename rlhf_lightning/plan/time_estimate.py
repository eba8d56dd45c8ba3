"""Duration of passes by a roofline: FLOPs over speed, or bytes over bandwidth, the larger.

Counted are matrix products: 2 FLOPs per weight and token forward, twice as many backward (as many, where the weights are frozen), and the
products of attention, l² / 2 pairs per text. Not counted: other programs, small matrices, and Python but for a fixed time per layer.
torch's RuntimeEstimator is no substitute: it knows the GPU at hand alone, not those of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_lightning.model.activation_checkpointing import has_checkpointing
from rlhf_lightning.plan.device import Device
from rlhf_lightning.plan.fake_run import Texts
from rlhf_lightning.plan.models import head_sizes, layer_count, matrix_weights

UTILISATION = 0.4
"""Fraction of a GPU's peak that training reaches: well-tuned runs reach 0.35 to 0.55."""
LAYER_SECONDS = 3e-4
"""Python and kernel launches of one layer's forward pass."""


@dataclass(frozen=True)
class Roofline:
    """Seconds of passes on a device at a precision."""

    device: Device
    precision: str

    def forward(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of one forward pass.

        Args:
            output: D x V of the output layer, computed at predicted tokens; 0 without one.
        """
        return self._seconds(forward_flops(trunk, texts, output), layer_count(trunk))

    def train_step(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of forward and backward."""
        frozen = any(not parameter.requires_grad for parameter in trunk.parameters())
        flops, layers = forward_flops(trunk, texts, output) * (2 if frozen else 3), 3 * layer_count(trunk)
        if has_checkpointing(trunk):  # its blocks run forward once more
            flops, layers = flops + forward_flops(trunk, texts), layers + layer_count(trunk)
        return self._seconds(flops, layers)

    def generate(self, trunk: Any, prompts: tuple[int, ...], tokens: int, output: int) -> float:
        """Seconds of `tokens` decoding steps of all rows, each of which reads every weight, key and value."""
        _, kv_heads, width = head_sizes(trunk)
        layers, itemsize = layer_count(trunk), 2 if self.precision.startswith("bf16") else 4
        weights, columns = matrix_weights(trunk) + output, sum(prompts) / len(prompts) + tokens / 2
        flops = 2.0 * weights * len(prompts)
        read = weights * itemsize + 2.0 * layers * len(prompts) * kv_heads * width * columns * itemsize
        step = max(flops / self._flops, read / self.device.bandwidth) + layers * LAYER_SECONDS
        return self.forward(trunk, Texts(prompts, (1,) * len(prompts)), output) + tokens * step

    @property
    def _flops(self) -> float:
        """FLOP/s in training."""
        return UTILISATION * self.device.peak(self.precision) if not self.device.host else self.device.peak(self.precision)

    def _seconds(self, flops: float, layers: int) -> float:
        computing, launching = flops / self._flops, layers * LAYER_SECONDS
        return computing + launching if self.device.host else max(computing, launching)


def forward_flops(trunk: Any, texts: Texts, output: int = 0) -> float:
    """FLOPs of a forward pass: 2 per weight and token, 2 products over half of each text's pairs."""
    heads, _, width = head_sizes(trunk)
    pairs = sum(length * length / 2 for length in texts.lengths)
    attention = 4.0 * layer_count(trunk) * heads * width * pairs
    return 2.0 * matrix_weights(trunk) * texts.tokens + attention + 2.0 * output * texts.predicted_tokens
