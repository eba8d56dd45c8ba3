"""The settings of Lightning's Trainer, checked against this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, PositiveInt

from rlhf_lightning.config.schema import did_you_mean, validate
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training.launch import check_launch

if TYPE_CHECKING:
    import lightning as L

STRATEGIES = (
    "auto", "single_device", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "fsdp2",
    "deepspeed_stage_1", "deepspeed_stage_2",
)  # fmt: skip
"""Lightning's names, without those that leave the results in a forked process and those for TPUs."""
LOOP_SETTINGS = {
    "fast_dev_run", "max_epochs", "min_epochs", "max_steps", "min_steps", "limit_val_batches", "limit_test_batches",
    "limit_predict_batches", "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "accumulate_grad_batches",
    "reload_dataloaders_every_n_epochs",
}  # fmt: skip
"""Lengths of Lightning's loops: a stage counts its own steps, and its learning-rate schedule needs the last one."""
STAGE_SETTINGS = {
    "logger", "callbacks", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "gradient_clip_val",
    "gradient_clip_algorithm", "use_distributed_sampler", "default_root_dir", "barebones", "plugins", "model_registry",
    "enable_autolog_hparams", "inference_mode", "sync_batchnorm",
}  # fmt: skip
BF16_TRUE_REASON = (
    "trainer.precision=bf16-true keeps the weights in bfloat16, where a step of less than 1/256 of a weight changes nothing: at common "
    "learning rates most weights would never move; choose bf16-mixed, which keeps them in float32, or, where they don't fit, "
    "backbone.dtype=bfloat16 under policy_tuning=lora or reward_tuning=lora, whose own weights are float32"
)
REPEATED = "repeated_batches"
"""Attribute of a Trainer with its overfit_batches."""
UNSUPPORTED_STRATEGIES = {
    "fsdp": "FSDP1 gathers a model's weights in its forward alone, and texts are packed past it: choose trainer=fsdp2",
    "deepspeed_stage_3": (
        "ZeRO-3 leaves a process parts of the weights, and a stage goes on with the whole model after its training: choose trainer=fsdp2"
    ),
    "deepspeed_stage_2_offload": (
        "DeepSpeed takes no optimiser but its own, which it compiles, where the optimiser's state is offloaded: choose deepspeed_stage_2, "
        "or trainer=fsdp2"
    ),
    "deepspeed": "say which stage: deepspeed_stage_1 shares out the optimiser's state, deepspeed_stage_2 the gradients too",
}
"""Why Lightning's other strategies aren't supported, by the beginnings of their names, the longest first."""


def _check_strategy(name: str) -> str:
    why = next((why for start, why in UNSUPPORTED_STRATEGIES.items() if name.startswith(start)), None)
    if name not in STRATEGIES and why is not None:
        raise ValueError(why)
    if name not in STRATEGIES:
        raise ValueError(f"no such strategy{did_you_mean(name, STRATEGIES)}; there are: {', '.join(STRATEGIES)}")
    return name


def _check_device_setting(devices: Any) -> Any:
    some = isinstance(devices, list) and devices and all(type(index) is int and index >= 0 for index in devices)
    if not some and devices not in ("auto", -1) and not (type(devices) is int and devices > 0):
        raise ValueError("give a number of devices (an int > 0), a list of their indices, auto, or -1 for all")
    return devices


@dataclass
class TrainerSettings:
    """The settings of Lightning's Trainer that a command may give (`trainer.precision=bf16-mixed`).

    Attributes:
        accelerator: kind of device; auto takes a GPU if there is one.
        devices: number of devices (on the CPU: processes) of each node, a list of their indices, or auto.
        num_nodes: number of machines; each needs torchrun, SLURM or Lightning's environment variables.
        strategy: how processes share the training: ddp, fsdp2 (sharded weights), deepspeed_stage_1 or _2; auto for one device.
        deterministic: use only deterministic kernels; "warn" reports the others.
        benchmark: let cuDNN search the fastest kernels.
        detect_anomaly: report the operation that made a gradient NaN; slow.
        log_every_n_steps: steps between two rows of the training's log; null is Lightning's 50.
        profiler: Lightning's profiler, whose table is printed at the end of a training.
        precision: number format of forward and backward pass; 16-mixed is for GPUs without bfloat16, in stages
            whose optimiser Lightning steps.
        max_time: longest time of each training, DD:HH:MM:SS.
        shard_frozen: under strategy=fsdp2 also shard the frozen models of PPO, the reference and the reward model.
        limit_train_batches: batches of each epoch (of PPO: updates), to try a command; null takes all.
        overfit_batches: number of first batches that are repeated in the place of all others; null takes all.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[Any, AfterValidator(_check_device_setting)] = "auto"
    num_nodes: PositiveInt = 1
    strategy: Annotated[str, AfterValidator(_check_strategy)] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool | None = None
    log_every_n_steps: PositiveInt | None = None
    max_time: str | None = None
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    shard_frozen: bool = False
    limit_train_batches: PositiveInt | None = None
    overfit_batches: PositiveInt | None = None


def check_trainer(node: Any, on_this_machine: bool = True) -> None:
    """Check the trainer's settings and, on this machine, its devices.

    Args:
        node: the composed section.
        on_this_machine: False for a plan, which may be for another machine.

    Raises:
        ConfigError: an unknown setting, or one that the stage sets; devices or a precision that this machine doesn't have.
    """
    for key in node if isinstance(node, Mapping) else ():
        if key in LOOP_SETTINGS:
            remedy = "ppo.updates, sft.epochs, reward.epochs, preference.epochs and ...batch_size"
            raise ConfigError(f"trainer.{key} is set by the stage, which counts its own steps: leave it out, and set {remedy}")
        if key in STAGE_SETTINGS:
            raise ConfigError(f"trainer.{key} is set by the stage; leave it out")
        if (key, node[key]) == ("precision", "bf16-true"):
            raise ConfigError(BF16_TRUE_REASON)
    settings = TrainerSettings(**validate(TrainerSettings, node, "trainer"))
    if not on_this_machine:
        return
    kind = device_kind(settings.accelerator)
    _check_devices(settings, kind, device_count(kind))
    _check_precision(settings.precision, kind)
    _check_deepspeed(settings.strategy, kind)
    check_launch(devices_per_node(node), settings.num_nodes)


def device_kind(accelerator: str) -> str:
    """The kind of device of an accelerator: cpu, cuda or mps; Lightning's choice for auto and gpu."""
    import torch

    if accelerator in ("auto", "gpu"):
        available = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
        return next((kind for kind, is_available in available.items() if is_available), "cpu" if accelerator == "auto" else "cuda")
    return accelerator


def device_count(kind: str) -> int | None:
    """Number of devices of this machine; None for the CPU, which takes any number of processes."""
    import torch

    if kind == "cpu":
        return None
    return torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())


def process_count(settings: Mapping[str, Any]) -> int:
    """Number of processes on all nodes together, by the trainer's settings."""
    return int(settings.get("num_nodes", 1)) * devices_per_node(settings)


def devices_per_node(settings: Mapping[str, Any]) -> int:
    """Number of processes on each node, by the trainer's settings."""
    devices = settings.get("devices", "auto")
    if devices in ("auto", -1):
        devices = device_count(device_kind(settings.get("accelerator", "auto"))) or 1
    return len(devices) if hasattr(devices, "__iter__") else int(devices)


def _check_devices(settings: TrainerSettings, kind: str, count: int | None) -> None:
    devices = settings.devices
    if count is None:
        if isinstance(devices, list) or devices == -1:
            raise ConfigError(f"trainer.devices={devices}: on the CPU it is a number of processes, as in trainer.devices=2")
        return
    requested = max(devices) + 1 if isinstance(devices, list) else devices if isinstance(devices, int) else 1
    if count == 0:
        raise ConfigError(
            f"trainer.accelerator={settings.accelerator}: torch sees no such device here (device kind {kind}); "
            "choose trainer=cpu, or install a torch build and a driver for it"
        )
    if requested > count:
        raise ConfigError(f"trainer.devices={devices}: torch sees {count} here; choose at most that many")


def _check_deepspeed(strategy: str, kind: str) -> None:
    if not strategy.startswith("deepspeed"):
        return
    if kind != "cuda":
        raise ConfigError(f"trainer.strategy={strategy} runs on CUDA GPUs alone, and this is {kind}: choose trainer=ddp or trainer=fsdp2")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"trainer.strategy={strategy} needs more packages: pip install 'rlhf-lightning[deepspeed]'")


def _check_precision(precision: str, kind: str) -> None:
    import torch

    if precision == "16-mixed" and kind == "cpu":
        raise ConfigError("trainer.precision=16-mixed needs a GPU: a CPU has no float16 training; choose bf16-mixed or 32-true")
    if precision == "64-true" and kind == "mps":
        raise ConfigError("trainer.precision=64-true doesn't run on mps, which has no float64; choose 32-true")
    if precision.startswith("bf16") and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"trainer.precision={precision}: this GPU has no bfloat16 (it needs compute capability 8.0); choose 32-true")


def lightning_trainer(settings: Mapping[str, Any], **stage_settings: Any) -> L.Trainer:
    """Build a Trainer from checked settings. Raises ConfigError if Lightning rejects them."""
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    arguments = {name: value for name, value in settings.items() if name not in ("shard_frozen", "overfit_batches") and value is not None}
    if settings.get("strategy") == "fsdp2":
        from rlhf_lightning.training.sharding import FullySharded

        arguments["strategy"] = FullySharded(process_count(settings), bool(settings.get("shard_frozen")))
    try:
        trainer = L.Trainer(**arguments, **stage_settings)
    except (TypeError, ValueError, MisconfigurationException) as cause:
        listed = " ".join(f"trainer.{key}={value}" for key, value in settings.items())
        raise ConfigError(f"Lightning can't make a trainer of {listed}: {cause}") from cause
    setattr(trainer, REPEATED, settings.get("overfit_batches"))  # Lightning's setting replaces samplers
    return trainer
