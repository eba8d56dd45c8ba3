"""How fast a training goes: tokens and samples a second of all processes, and the share of the device's peak (MFU).

Lightning's ThroughputMonitor takes a batch's size times the number of processes for that of all, and asks the module for the FLOPs of a
batch. Here processes have shares of different sizes, a batch is packed, and what PPO works on isn't in its batch but drawn from it: so it
is counted here, and speeds stay out of `history`, which is the same for the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlhf_lightning.plan.device import gpu_named
from rlhf_lightning.plan.models import matrix_weights
from rlhf_lightning.training.distributed import all_reduce_sum

LENGTH, EPISODES = "val/response_length", "episode"
"""What an update says of its rollout: the mean length of its responses in tokens, and how many responses there have been by then."""
PREFIX = "perf/"
TRAINED, READ = 6, 2
"""Floating-point operations for a weight and token that is trained on, and that is only read."""


@dataclass
class Work:
    """What was done since the start, or since it was resumed.

    Attributes:
        tokens: of supervised training those of its texts, prompts included; of PPO those of the responses.
        samples: texts, or responses. flops: of products with the trained models' weights, without attention.
    """

    tokens: float = 0.0
    samples: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.samples + other.samples, self.flops + other.flops)


class Throughput:
    """Counts the work of a training by batch, and says what it makes a second."""

    def __init__(self) -> None:
        self.mine, self.everyones = Work(), Work()
        self._weights: int | None = None

    def add(self, module: Any, batch: Any) -> None:
        """Count a batch that is done: by its packed texts, or by what the module's history says of the responses drawn for it."""
        if isinstance(batch, list):  # of micro-batches
            for micro_batch in batch:
                self.add(module, micro_batch)
            return
        tokens = getattr(batch, "tokens", batch)
        if hasattr(tokens, "lengths"):
            count = float(tokens.lengths.sum())
            self.mine += Work(count, float(len(tokens)), TRAINED * count * self._matrices(module))
            return
        responses, drawn = drawn_last(getattr(module, "history", []))
        if responses:
            self.everyones += Work(drawn, responses, self._of_rollout(module, batch, responses, drawn))

    def rate(self, seconds: float) -> float | None:
        """Tokens a second of all processes, where one process alone knows them; None elsewhere."""
        return self.everyones.tokens / max(seconds, 1e-9) if self.everyones.tokens else None

    def metrics(self, seconds: float, device: torch.device, precision: str, processes: int) -> dict[str, float]:
        """perf/tokens_per_second, perf/samples_per_second and, on a GPU whose peak is known, perf/mfu. All processes call it together."""
        mine = torch.tensor([self.mine.tokens, self.mine.samples, self.mine.flops], dtype=torch.float32, device=device)
        tokens, samples, flops = (all_reduce_sum(mine) if processes > 1 else mine).tolist()
        done = self.everyones + Work(tokens, samples, flops)
        if not done.tokens:
            return {}
        found = {"tokens_per_second": done.tokens / seconds, "samples_per_second": done.samples / seconds}
        known = gpu_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if known is not None and done.flops:
            found["mfu"] = done.flops / seconds / (processes * known.peak(precision))
        return {PREFIX + name: value for name, value in found.items()}

    def _of_rollout(self, module: Any, batch: Any, responses: float, drawn: float) -> float:
        """Responses are drawn and read, by the reference too, and passed over `epochs` times."""
        settings, mask = getattr(module, "settings", None), getattr(batch, "prompt_mask", None)
        if settings is None or mask is None:
            return 0.0
        read = drawn + responses * float(mask.sum()) / len(mask)
        return float(read * self._matrices(module) * (3 * READ + TRAINED * settings.epochs))

    def _matrices(self, module: Any) -> int:
        if self._weights is None:
            self._weights = matrix_weights(module) if isinstance(module, nn.Module) else 0
        return self._weights


def drawn_last(history: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """How many responses the last update drew, and their tokens; 0 where it doesn't say."""
    last = history[-1] if history else {}
    if LENGTH not in last or EPISODES not in last:
        return 0.0, 0.0
    responses = last[EPISODES] - (history[-2].get(EPISODES, 0.0) if len(history) > 1 else 0.0)
    return responses, responses * last[LENGTH]
