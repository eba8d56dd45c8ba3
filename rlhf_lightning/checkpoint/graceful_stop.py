"""Signals that ask a training to stop: noted at once, heeded where a step ends, by all processes at the same one."""

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

from rlhf_lightning.checkpoint.signals import ASKING, SAME


class StopSignal:
    """Which signal has come to this process; 0 for none. A second one ends the process at once, and the last checkpoint stands.

    Lightning's own handlers are replaced while it trains: its SIGTERM handler talks to the other processes from within a step, and the
    process that alone has got the signal waits for them for ever.
    """

    def __init__(self) -> None:
        self.number = 0
        self._came = 0.0
        self._requeue: Any = None
        self._requeue_signal = 0
        self._trainer: L.Trainer | None = None

    def listen(self, trainer: L.Trainer) -> None:
        """Note signals from now on. Lightning puts back what was there before when it tears down."""
        self._trainer = trainer
        if threading.current_thread() is not threading.main_thread():
            return
        place = environment(trainer)
        asking = set(ASKING)
        if isinstance(place, SLURMEnvironment) and place.auto_requeue:
            self._requeue_signal = int(place.requeue_signal or signal.SIGUSR1)
            self._requeue = signal.getsignal(self._requeue_signal)
            asking.add(signal.Signals(self._requeue_signal))
        for number in asking:
            signal.signal(number, self._note)

    def of_all(self, trainer: L.Trainer) -> int:
        """The largest signal number that has come to any process. All of them must ask together."""
        if trainer.world_size == 1:
            return self.number
        largest = trainer.strategy.reduce(torch.tensor(self.number, device=trainer.strategy.root_device), reduce_op="max")
        return int(largest)

    def requeue(self, number: int, trainer: L.Trainer) -> None:
        """Let Lightning's SLURM plugin queue the job again, where this signal asks for it. It would save a checkpoint of its own first, in
        the middle of a step and without a hash: ours stands already."""
        if number != self._requeue_signal or not callable(self._requeue):
            return
        trainer.__dict__["save_checkpoint"] = lambda *args, **kwargs: None
        try:
            self._requeue(number, None)
        finally:
            del trainer.__dict__["save_checkpoint"]

    def _note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._came = number, now
        elif now - self._came > SAME:
            end_children(self._trainer, at_once=True)
            os._exit(128 + number)


def environment(trainer: L.Trainer) -> Any:
    """What started the processes; a single one in a job of SLURM has it too, though its strategy doesn't say so."""
    return trainer._accelerator_connector.cluster_environment


def exit_code(number: int, trainer: L.Trainer) -> int:
    """128 + the signal's number, as shells have it: 143, 130. A process that Lightning started ends with 0: at another code Lightning kills
    the first process, which has the code that counts."""
    started = isinstance(environment(trainer), LightningEnvironment) and trainer.local_rank > 0
    return 0 if started else 128 + number


def end_children(trainer: L.Trainer | None, at_once: bool = False, patience: float = 30.0) -> None:
    """Wait for the processes that Lightning started from this one, and kill those that don't end."""
    launcher = None if trainer is None else trainer.strategy.launcher
    until = time.monotonic() + (0.0 if at_once else patience)
    for child in getattr(launcher, "procs", []):
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if child.poll() is None:
            child.kill()
