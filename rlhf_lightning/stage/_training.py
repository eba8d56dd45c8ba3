"""The training that stage=sft, stage=reward and stage=preference have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    import lightning as L
    from torch import nn
    from torch.utils.data import DataLoader

    from rlhf_lightning.training.settings import SupervisedSettings
    from rlhf_lightning.training.supervised import SupervisedModule

M = TypeVar("M", bound="SupervisedModule")


def train(
    run: Run,
    name: str,
    settings: SupervisedSettings,
    loader: Callable[[int, int], DataLoader[Any]],
    build: Callable[[int], M],
    metrics: Mapping[str, str],
) -> tuple[M, L.Trainer]:
    """Fit a module, or resume its training from the newest checkpoint.

    Args:
        name: of the training, for logs, checkpoints and the progress bar.
        loader: makes the data loader of (rank, world size).
        build: makes the module for a number of optimizer steps.
        metrics: names in the module's history, to labels on the progress bar.

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
    steps = settings.epochs * len(loader(0, 1))
    module = build(steps)
    trainer = run.trainer(name, settings.epochs, steps, dict(metrics), settings.max_grad_norm)
    run.fit(name, trainer, module, ShardedData(loader))
    return module, trainer


@contextmanager
def on_training_device(model: nn.Module, trainer: L.Trainer) -> Iterator[None]:
    """Put a model on the device that it was trained on, in eval mode; afterwards it is on the CPU."""
    model.eval()
    model.to(trainer.strategy.root_device)
    yield
    model.cpu()
