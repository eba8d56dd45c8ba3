"""The training and tuning that the stages have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    import lightning as L
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.training.periodic_evaluation import Evaluation
    from rlhf_lightning.training.settings import SupervisedSettings
    from rlhf_lightning.training.supervised import SupervisedModule

M = TypeVar("M", bound="SupervisedModule")
S = TypeVar("S", bound="SupervisedSettings")


def train(
    run: Run,
    name: str,
    settings: SupervisedSettings,
    loader: Callable[[int, int], DataLoader[Any]],
    build: Callable[[int], M],
    metrics: Mapping[str, str],
    held_out: Callable[[int, int], DataLoader[Any]] | None = None,
) -> tuple[M, L.Trainer]:
    """Fit a module, or resume its training from the newest checkpoint.

    Args:
        name: of the training, for logs, checkpoints and the progress bar.
        loader: makes the data loader of (rank, world size).
        build: makes the module for a number of optimizer steps.
        metrics: names in the module's history, to labels on the progress bar.
        held_out: makes the loader of held-out data, for evaluation.every.

    Raises:
        ConfigError: micro-batches under DeepSpeed.
    """
    from rlhf_lightning.training.datamodule import ShardedData

    strategy = str(run.config.trainer.get("strategy"))
    if settings.micro_batch_size is not None and strategy.startswith("deepspeed"):
        raise ConfigError(
            f"{name.split()[0]}.micro_batch_size={settings.micro_batch_size} accumulates gradients, which trainer.strategy={strategy} "
            "keeps to itself: leave it null and lower batch_size, or choose trainer=fsdp2"
        )
    batches = len(loader(0, 1))
    steps = settings.epochs * min(batches, run.config.trainer.get("limit_train_batches") or batches)
    module = build(steps)
    trainer = run.trainer(name, settings.epochs, steps, dict(metrics), settings.max_grad_norm)

    def evaluate() -> Evaluation:
        assert held_out is not None
        batches: Any = held_out(trainer.global_rank, trainer.world_size)
        return module.evaluate(run.track(batches, count=lambda batch: 1))

    run.fit(name, trainer, module, ShardedData(loader), None if held_out is None else evaluate)
    return module, trainer


def evaluated_size(settings: S, world: int) -> S:
    """The settings with the batch size of held-out data: what goes through the model at a time."""
    micro = settings.micro_batch_size
    return settings if micro is None else dataclasses.replace(settings, batch_size=micro * world)


@contextmanager
def on_device(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Put models on a device; afterwards they are on the CPU."""
    try:
        for model in models:
            model.to(device)
        yield
    finally:
        for model in models:
            model.cpu()


def prepare_policy_and_reference(run: Run, policy: LanguageModel, copy: Callable[[], LanguageModel]) -> LanguageModel:
    """Apply policy_tuning; returns the reference: the policy with its adapters off, or a copy.

    Args:
        copy: loads the start a second time; not called where adapters are trained.
    """
    from rlhf_lightning.model.adapters import has_adapters

    tune(run, policy)
    return policy if has_adapters(policy.model) else copy()


def tune(run: Run, policy: LanguageModel) -> None:
    """Apply policy_tuning, and log how many weights are trained unless all are."""
    run.build("policy_tuning")(policy.model)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in policy.model.parameters()]
    every, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    half = {str(p.dtype).removeprefix("torch.") for p in policy.model.parameters() if p.requires_grad and p.element_size() < 4}
    if half:
        run.log(f"the trained weights are in {half.pop()}, where small updates are lost: add backbone.dtype=float32, or policy_tuning=lora")
    if trained < every:
        run.log(f"policy_tuning={run.component_of('policy_tuning').name}: {trained:,} of {every:,} weights are trained")


def apply_tuning_for_sft(run: Run, policy: LanguageModel) -> None:
    """Apply policy_tuning for a warm-up on demonstrations.

    A backbone at random weights is trained in full: adapters would have nothing to adapt.
    """
    backbone, tuning = run.component_of("backbone"), run.component_of("policy_tuning")
    if "corpus" in backbone.needs and "pretrained" in tuning.needs:
        run.log(f"sft: backbone={backbone.name} begins at random weights and all are trained; policy_tuning={tuning.name} comes after that")
        return
    tune(run, policy)
