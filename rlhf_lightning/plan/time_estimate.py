"""How long passes take: floating-point operations over what the device reaches, or bytes over its bandwidth, whichever is more.

Counted are products of matrices: 2 a weight and token forward, twice as much backward (once where the weights are frozen), and those of
the attention, l² / 2 pairs a text. An estimate: others' load, small matrices and Python are not in it, but for a fixed time a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_lightning.plan.device import Device
from rlhf_lightning.plan.fake_run import Texts
from rlhf_lightning.plan.models import head_sizes, layer_count, matrix_weights

REACHED = 0.4
"""Share of the device's peak that training reaches: well-tuned runs on GPUs reach 0.35 to 0.55."""
LAYER_SECONDS = 3e-4
"""Of Python and kernel launches for one layer's forward."""


@dataclass(frozen=True)
class Clock:
    """What a device needs for passes of a precision."""

    device: Device
    precision: str

    def read(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of one forward pass.

        Args:
            output: D x V of the output layer, which runs where a token is predicted; 0 without one.
        """
        return self._seconds(forward_flops(trunk, texts, output), layer_count(trunk))

    def learned(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of forward and backward."""
        frozen = any(not parameter.requires_grad for parameter in trunk.parameters())
        return self._seconds(forward_flops(trunk, texts, output) * (2 if frozen else 3), 3 * layer_count(trunk))

    def drawn(self, trunk: Any, prompts: tuple[int, ...], room: int, output: int) -> float:
        """Seconds of `room` steps of all rows, each of which reads every weight and all keys and values."""
        _, shared, width = head_sizes(trunk)
        layers, itemsize = layer_count(trunk), 2 if self.precision.startswith("bf16") else 4
        weights, columns = matrix_weights(trunk) + output, sum(prompts) / len(prompts) + room / 2
        flops = 2.0 * weights * len(prompts)
        read = weights * itemsize + 2.0 * layers * len(prompts) * shared * width * columns * itemsize
        step = max(flops / self._reached, read / self.device.bandwidth) + layers * LAYER_SECONDS
        return self.read(trunk, Texts(prompts, (1,) * len(prompts)), output) + room * step

    @property
    def _reached(self) -> float:
        return REACHED * self.device.peak(self.precision) if not self.device.host else self.device.peak(self.precision)

    def _seconds(self, flops: float, layers: int) -> float:
        computing, launching = flops / self._reached, layers * LAYER_SECONDS
        return computing + launching if self.device.host else max(computing, launching)


def forward_flops(trunk: Any, texts: Texts, output: int = 0) -> float:
    """Of one forward pass: 2 a weight and token, and the attention's two products over half of each text's pairs."""
    heads, _, width = head_sizes(trunk)
    pairs = sum(length * length / 2 for length in texts.lengths)
    return 2.0 * matrix_weights(trunk) * texts.tokens + 4.0 * layer_count(trunk) * heads * width * pairs + 2.0 * output * texts.answers
