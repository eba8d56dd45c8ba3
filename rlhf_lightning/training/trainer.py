"""Lightning's Trainer: which of its settings a command may give, and whether this machine can do what they ask."""

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
"""Lightning's names, but for those that leave the results in a forked process, and for TPUs."""
LENGTHS = {
    "fast_dev_run", "max_epochs", "min_epochs", "max_steps", "min_steps", "limit_train_batches", "limit_val_batches",
    "limit_test_batches", "limit_predict_batches", "overfit_batches", "val_check_interval", "check_val_every_n_epoch",
    "num_sanity_val_steps", "accumulate_grad_batches", "reload_dataloaders_every_n_epochs",
}  # fmt: skip
"""What Lightning would count by: a stage counts for itself, and its schedule of the learning rate knows the end."""
OWN = {
    "logger", "callbacks", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "gradient_clip_val",
    "gradient_clip_algorithm", "use_distributed_sampler", "default_root_dir", "barebones", "plugins", "model_registry",
    "enable_autolog_hparams", "inference_mode", "sync_batchnorm",
}  # fmt: skip
STANDING_STILL = (
    "trainer.precision=bf16-true keeps the weights in bfloat16, where a step of less than 1/256 of a weight changes nothing: at common "
    "learning rates most weights would never move; choose bf16-mixed, which keeps them in float32, or, where they don't fit, "
    "backbone.dtype=bfloat16 under policy_tuning=lora or reward_tuning=lora, whose own weights are float32"
)
REFUSED = {
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
"""Why Lightning's other strategies don't serve, by the beginnings of their names, the longest first."""


def _known_strategy(name: str) -> str:
    why = next((why for start, why in REFUSED.items() if name.startswith(start)), None)
    if name not in STRATEGIES and why is not None:
        raise ValueError(why)
    if name not in STRATEGIES:
        raise ValueError(f"no such strategy{did_you_mean(name, STRATEGIES)}; there are: {', '.join(STRATEGIES)}")
    return name


def _countable(devices: Any) -> Any:
    some = isinstance(devices, list) and devices and all(type(index) is int and index >= 0 for index in devices)
    if not some and devices not in ("auto", -1) and not (type(devices) is int and devices > 0):
        raise ValueError("give a number of devices (an int > 0), a list of their indices, auto, or -1 for all")
    return devices


@dataclass
class TrainerSettings:
    """What a command may set of Lightning's Trainer (`trainer.precision=bf16-mixed`, `+trainer.deterministic=true`).

    Attributes:
        precision: 16-mixed is for GPUs without bfloat16, in stages whose optimiser Lightning steps.
        max_time: of each training, DD:HH:MM:SS.
        shard_frozen: under strategy=fsdp2 share out what PPO reads and doesn't train too, the reference and the reward model.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[Any, AfterValidator(_countable)] = "auto"
    num_nodes: PositiveInt = 1
    strategy: Annotated[str, AfterValidator(_known_strategy)] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    log_every_n_steps: PositiveInt | None = None
    max_time: str | None = None
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    shard_frozen: bool = False


def check_trainer(about: Any, here: bool = True) -> None:
    """Hold the trainer's settings to what a command may give and to what is there.

    Args:
        here: whether the run trains on this machine; a plan may be for another one.

    Raises:
        ConfigError: an unknown setting, or one that the stage makes itself; devices or a precision that this machine doesn't have.
    """
    for key in about if isinstance(about, Mapping) else ():
        if key in LENGTHS:
            counted = "ppo.updates, sft.epochs, reward.epochs, preference.epochs and ...batch_size"
            raise ConfigError(f"trainer.{key} is set by the stage, which counts its own steps: leave it out, and set {counted}")
        if key in OWN:
            raise ConfigError(f"trainer.{key} is set by the stage; leave it out")
        if (key, about[key]) == ("precision", "bf16-true"):
            raise ConfigError(STANDING_STILL)
    settings = TrainerSettings(**validate(TrainerSettings, about, "trainer"))
    if not here:
        return
    kind, there = kind_of(settings.accelerator), available(kind_of(settings.accelerator))
    _check_devices(settings, kind, there)
    _check_precision(settings.precision, kind)
    _check_deepspeed(settings.strategy, kind)
    check_launch(devices_on_a_node(about), settings.num_nodes)


def kind_of(accelerator: str) -> str:
    """cpu, cuda or mps, as Lightning chooses where it is left to it."""
    import torch

    if accelerator in ("auto", "gpu"):
        here = [kind for kind, there in (("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available())) if there]
        return here[0] if here else "cpu" if accelerator == "auto" else "cuda"
    return accelerator


def available(kind: str) -> int | None:
    """How many devices there are here; None for the CPU, which takes any number of processes."""
    import torch

    if kind == "cpu":
        return None
    return torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())


def processes(about: Mapping[str, Any]) -> int:
    """How many processes the trainer's settings ask for on all nodes together."""
    return int(about.get("num_nodes", 1)) * devices_on_a_node(about)


def devices_on_a_node(about: Mapping[str, Any]) -> int:
    """How many processes the trainer's settings ask for on each node."""
    devices = about.get("devices", "auto")
    if devices in ("auto", -1):
        devices = available(kind_of(about.get("accelerator", "auto"))) or 1
    return len(devices) if hasattr(devices, "__iter__") else int(devices)


def _check_devices(settings: TrainerSettings, kind: str, there: int | None) -> None:
    devices = settings.devices
    if there is None:
        if isinstance(devices, list) or devices == -1:
            raise ConfigError(f"trainer.devices={devices}: on the CPU it is a number of processes, as in trainer.devices=2")
        return
    asked = max(devices) + 1 if isinstance(devices, list) else devices if isinstance(devices, int) else 1
    if there == 0:
        raise ConfigError(
            f"trainer.accelerator={settings.accelerator}: torch sees no such device here (device kind {kind}); "
            "choose trainer=cpu, or install a torch build and a driver for it"
        )
    if asked > there:
        raise ConfigError(f"trainer.devices={devices}: torch sees {there} here; choose at most that many")


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


def lightning_trainer(settings: Mapping[str, Any], **own: Any) -> L.Trainer:
    """A Trainer of the user's checked settings and of the stage's own. Raises ConfigError where Lightning refuses them."""
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    known = {name: value for name, value in settings.items() if name != "shard_frozen"}
    if settings.get("strategy") == "fsdp2":
        from rlhf_lightning.training.sharding import FullySharded

        known["strategy"] = FullySharded(processes(settings), bool(settings.get("shard_frozen")))
    try:
        return L.Trainer(**known, **own)
    except (TypeError, ValueError, MisconfigurationException) as cause:
        given = " ".join(f"trainer.{key}={value}" for key, value in settings.items())
        raise ConfigError(f"Lightning can't make a trainer of {given}: {cause}") from cause
