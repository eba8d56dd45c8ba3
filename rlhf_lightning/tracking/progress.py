"""Progress of a training: a bar with metrics on a terminal, a few lines elsewhere.

Lightning's ThroughputMonitor takes a batch's size times the number of processes for that of all, and asks the module for the FLOPs of a
batch. Here processes have shards of different sizes, batches are packed, and PPO trains on responses generated from its batch. The
work is therefore counted here, and speeds stay out of `history`, which is the same for the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import lightning as L
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from rlhf_lightning.config.display import literal
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


S = TypeVar("S")
LINES = 5
QUIET_SECONDS = 10.0
"""Seconds between two lines about a measurement where there is no terminal."""
LOGGED = 20
"""How many times a training's speeds are logged."""


class StageProgress(L.Callback):
    """Shows steps, the newest metrics of the module's `history`, tokens per second and time left.

    Rank 0 prints. Speeds (throughput.py) are logged; they and the time left are means since the start or the resume.

    Args:
        speeds: mapping that receives the training's last speeds, under its title.
    """

    def __init__(
        self,
        title: str,
        total: int,
        metrics: Mapping[str, str],
        console: Console | None = None,
        speeds: dict[str, dict[str, float]] | None = None,
    ) -> None:
        self.throughput, self.speeds = Throughput(), {} if speeds is None else speeds
        self.title, self.total, self.metrics = title, total, metrics
        self.console = console or Console()
        self.steps = self.before = 0
        self.bar = make_bar(self.console)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.quiet = not trainer.is_global_zero
        self.start = time.perf_counter()
        self.steps = self.before = trainer.fit_loop.total_batch_idx + 1  # above 0 in a resumed training
        self.bar.disable = self.quiet or not self.console.is_terminal
        self.bar.start()
        self.task = self.bar.add_task(literal(self.title, self.console).plain, total=self.total, metrics="")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps += 1
        seconds = time.perf_counter() - self.start
        self.throughput.add(pl_module, batch)
        if self.steps == self.total or self.steps % max(1, self.total // LOGGED) == 0:
            self._log(trainer, pl_module, seconds)
        values = literal(self._metrics(getattr(pl_module, "history", []), seconds), self.console).plain
        self.bar.update(self.task, completed=self.steps, metrics=values)
        due = self.steps == self.total or self.steps % max(1, self.total // LINES) == 0
        if due and not self.quiet and not self.console.is_terminal:
            remaining = f"{seconds:.0f} s, {seconds / (self.steps - self.before) * (self.total - self.steps):.0f} s left"
            ending = f"{seconds:.0f} s" if self.steps == self.total else remaining
            line = f"{self.title:<14} {self.steps}/{self.total}  {values}  {ending}"
            self.console.print(literal(line, self.console), soft_wrap=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pause = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave an evaluation out of the speeds and the time left."""
        self.start += time.perf_counter() - self.pause

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def _metrics(self, history: Sequence[Mapping[str, float]], seconds: float) -> str:
        last = history[-1] if history else {}
        values = [f"{label} {last[name]:.3g}" for name, label in self.metrics.items() if name in last]
        rate = self.throughput.rate(seconds)
        return "  ".join(values if rate is None else [*values, f"{rate:,.0f} tokens/s"])

    def _log(self, trainer: L.Trainer, module: Any, seconds: float) -> None:
        """Log the speeds apart from `history`, which is the same for the same run."""
        if not isinstance(module, L.LightningModule):
            return
        speeds = self.throughput.metrics(seconds, module.device, str(trainer.precision), trainer.world_size)
        if speeds:
            self.speeds[self.title] = speeds
            for logger in module.loggers:
                logger.log_metrics(speeds, step=self.steps)


def make_bar(console: Console) -> Progress:
    """A progress bar with a title, a count, metrics and the time left."""
    columns = (
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def track_batches(
    batches: Collection[S], title: str, console: Console, count: Callable[[S], int], bar: Progress | None = None
) -> Iterator[S]:
    """Yield batches, with a bar of their items on a terminal, else lines now and then and at the end.

    Args:
        count: items of a batch.
        bar: a running bar to add to, without a line at the end; None makes one.
    """
    total, finished = sum(map(count, batches)), 0
    start = last = time.perf_counter()
    progress = bar or make_bar(console)
    progress.disable = not console.is_terminal
    task = progress.add_task(literal(title, console).plain, total=total, metrics="")
    if bar is None:
        progress.start()
    try:
        for batch in batches:
            yield batch
            finished += count(batch)
            progress.update(task, completed=finished)
            now = time.perf_counter()
            if not console.is_terminal and ((finished == total and bar is None) or now - last > QUIET_SECONDS):
                last, seconds = now, now - start
                ending = (
                    f"{seconds:.0f} s" if finished == total else f"{seconds:.0f} s, {seconds / finished * (total - finished):.0f} s left"
                )
                console.print(literal(f"{title:<14} {finished}/{total}  {ending}", console), soft_wrap=True)
    finally:
        progress.remove_task(task) if bar is not None else progress.stop()
