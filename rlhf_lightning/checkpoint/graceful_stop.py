"""Graceful stop: record the signal, stop all ranks at the same step."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from rlhf_lightning.checkpoint.signals import DEBOUNCE_SECONDS, STOP_SIGNALS


class StopSignal:
    """The signal that this process has received, 0 for none; a second one ends it at once.

    Lightning's own handlers are replaced while it trains: its SIGTERM handler talks to the other ranks from within a step, and a rank that
    is the only one with the signal waits for them for ever.
    """

    def __init__(self) -> None:
        self.number = 0
        self._received = 0.0
        self._requeue: Any = None
        self._requeue_signal = 0
        self._trainer: L.Trainer | None = None

    def listen(self, trainer: L.Trainer) -> None:
        """Record signals from now on. Lightning restores the handlers of before at teardown."""
        self._trainer = trainer
        if threading.current_thread() is not threading.main_thread():
            return
        cluster, numbers = environment(trainer), set(STOP_SIGNALS)
        if isinstance(cluster, SLURMEnvironment) and cluster.auto_requeue:
            self._requeue_signal = int(cluster.requeue_signal or signal.SIGUSR1)
            self._requeue = signal.getsignal(self._requeue_signal)
            numbers.add(signal.Signals(self._requeue_signal))
        for number in numbers:
            signal.signal(number, self._record)

    def of_all_ranks(self, trainer: L.Trainer) -> int:
        """The largest signal number over all ranks. Collective: call it on every rank."""
        if trainer.world_size == 1:
            return self.number
        largest = trainer.strategy.reduce(torch.tensor(self.number, device=trainer.strategy.root_device), reduce_op="max")
        return int(largest)

    def requeue(self, number: int, trainer: L.Trainer) -> None:
        """Let Lightning's SLURM plugin requeue the job at its requeue signal.

        It would first save a checkpoint of its own, in the middle of a step and without a hash; this training's is already saved.
        """
        if number != self._requeue_signal or not callable(self._requeue):
            return
        trainer.__dict__["save_checkpoint"] = lambda *args, **kwargs: None
        try:
            self._requeue(number, None)
        finally:
            del trainer.__dict__["save_checkpoint"]

    def _record(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._received = number, now
        elif now - self._received > DEBOUNCE_SECONDS:
            end_children(self._trainer, at_once=True)
            os._exit(128 + number)


def environment(trainer: L.Trainer) -> Any:
    """The cluster environment, by the connector: a single-device strategy doesn't expose SLURM's."""
    return trainer._accelerator_connector.cluster_environment


def exit_code(number: int, trainer: L.Trainer) -> int:
    """128 + the signal's number, as in shells (143, 130); 0 in processes that Lightning launched.

    At another code of theirs Lightning kills the first process, whose code counts.
    """
    launched = isinstance(environment(trainer), LightningEnvironment) and trainer.local_rank > 0
    return 0 if launched else 128 + number


def end_children(trainer: L.Trainer | None, at_once: bool = False, patience: float = 30.0) -> None:
    """Wait for the processes that Lightning launched from this one, and kill those that don't end."""
    launcher = None if trainer is None else trainer.strategy.launcher
    until = time.monotonic() + (0.0 if at_once else patience)
    for child in getattr(launcher, "procs", []):
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if child.poll() is None:
            child.kill()
