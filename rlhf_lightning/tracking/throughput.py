"""Speed of a training: tokens and samples per second, and model FLOPs utilisation (MFU).

Lightning's ThroughputMonitor takes a batch's size times the number of processes for that of all, and asks the module for the FLOPs of a
batch. Here processes have shards of different sizes, batches are packed, and PPO trains on responses generated from its batch. The
work is therefore counted here, and speeds stay out of `history`, which is the same for the same run.
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
"""Metrics of an update: the mean length of its responses in tokens, and the responses generated so far."""
PREFIX = "perf/"
TRAINED, READ = 6, 2
"""Floating-point operations per weight and token, for training and for a forward pass."""


@dataclass
class Work:
    """The work since the start or the resume.

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
    """Counts the work of a training by batch, and computes its rate."""

    def __init__(self) -> None:
        self.local, self.total = Work(), Work()
        self._weights: int | None = None

    def add(self, module: Any, batch: Any) -> None:
        """Count a finished batch: by its packed texts, or by the responses in the module's history."""
        if isinstance(batch, list):  # of micro-batches
            for micro_batch in batch:
                self.add(module, micro_batch)
            return
        tokens = getattr(batch, "tokens", batch)
        if hasattr(tokens, "lengths"):
            count = float(tokens.lengths.sum())
            self.local += Work(count, float(len(tokens)), TRAINED * count * self._matrices(module))
            return
        responses, tokens = last_responses(getattr(module, "history", []))
        if responses:
            self.total += Work(tokens, responses, self._rollout_flops(module, batch, responses, tokens))

    def rate(self, seconds: float) -> float | None:
        """Tokens per second of all processes, if one process can count them; None otherwise."""
        return self.total.tokens / max(seconds, 1e-9) if self.total.tokens else None

    def metrics(self, seconds: float, device: torch.device, precision: str, processes: int) -> dict[str, float]:
        """The metrics perf/{tokens,samples}_per_second and, on a known GPU, perf/mfu. Collective."""
        local = torch.tensor([self.local.tokens, self.local.samples, self.local.flops], dtype=torch.float32, device=device)
        tokens, samples, flops = (all_reduce_sum(local) if processes > 1 else local).tolist()
        work = self.total + Work(tokens, samples, flops)
        if not work.tokens:
            return {}
        speeds = {"tokens_per_second": work.tokens / seconds, "samples_per_second": work.samples / seconds}
        gpu = gpu_named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if gpu is not None and work.flops:
            speeds["mfu"] = work.flops / seconds / (processes * gpu.peak(precision))
        return {PREFIX + name: value for name, value in speeds.items()}

    def _rollout_flops(self, module: Any, batch: Any, responses: float, tokens: float) -> float:
        """FLOPs of an update: generation, policy and reference forward, and `epochs` of training."""
        settings, mask = getattr(module, "settings", None), getattr(batch, "prompt_mask", None)
        if settings is None or mask is None:
            return 0.0
        read = tokens + responses * float(mask.sum()) / len(mask)
        return float(read * self._matrices(module) * (3 * READ + TRAINED * settings.epochs))

    def _matrices(self, module: Any) -> int:
        if self._weights is None:
            self._weights = matrix_weights(module) if isinstance(module, nn.Module) else 0
        return self._weights


def last_responses(history: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """The responses of the last update and their tokens; 0 without these metrics."""
    last = history[-1] if history else {}
    if LENGTH not in last or EPISODES not in last:
        return 0.0, 0.0
    responses = last[EPISODES] - (history[-2].get(EPISODES, 0.0) if len(history) > 1 else 0.0)
    return responses, responses * last[LENGTH]
