"""The trainer's settings: what a command may give, and what this machine must have for them."""

from __future__ import annotations

import importlib.util
import inspect

import pytest
import torch
from omegaconf import OmegaConf

from rlhf_lightning.config.presets import CONF
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training.trainer import (
    LOOP_SETTINGS,
    STAGE_SETTINGS,
    STRATEGIES,
    UNSUPPORTED_STRATEGIES,
    TrainerSettings,
    check_trainer,
    lightning_trainer,
    process_count,
)


@pytest.fixture(params=[0, 1, 4])
def gpus(request, monkeypatch) -> int:
    """A machine with so many GPUs without bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return request.param


def refused(about: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_trainer(about)
    return str(caught.value)


def test_every_setting_of_lightning_s_is_one_of_ours_or_the_stage_s():
    import lightning as L

    theirs = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    ours = set(TrainerSettings.__dataclass_fields__)
    assert ours - {"shard_frozen"} | LOOP_SETTINGS | STAGE_SETTINGS == theirs
    assert not ours & (LOOP_SETTINGS | STAGE_SETTINGS)


def test_strategies_are_lightning_s():
    from lightning.pytorch.strategies import StrategyRegistry

    theirs = {"auto", *StrategyRegistry.available_strategies()}
    assert theirs | {"fsdp2"} >= set(STRATEGIES)
    forked = {"ddp_spawn", "ddp_fork", "ddp_notebook"}  # leave their results in another process
    left_out = {name for name in theirs - set(STRATEGIES) if not name.startswith(("xla", "single_", *forked))}
    assert {name for name in left_out if not name.startswith(tuple(UNSUPPORTED_STRATEGIES))} == set(), "each is refused with its reason"


@pytest.mark.parametrize("key", ["max_steps", "max_epochs", "limit_val_batches", "fast_dev_run"])
def test_a_stage_counts_for_itself(key):
    assert f"trainer.{key} is set by the stage" in refused({key: 3})
    assert "ppo.updates" in refused({key: 3})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"max_epoch": 1}, "no setting 'max_epoch'"),
        ({"logger": True}, "trainer.logger is set by the stage"),
        ({"accelerator": "tpuu"}, "trainer.accelerator=tpuu"),
        ({"strategy": "ddpp"}, "did you mean 'ddp'"),
        ({"strategy": "fsdp"}, "choose trainer=fsdp2"),
        ({"strategy": "fsdp_cpu_offload"}, "choose trainer=fsdp2"),
        ({"strategy": "deepspeed"}, "say which stage"),
        ({"strategy": "deepspeed_stage_3_offload"}, "ZeRO-3"),
        ({"strategy": "deepspeed_stage_2_offload"}, "no optimiser but its own"),
        ({"accelerator": "cpu", "strategy": "deepspeed_stage_2"}, "CUDA GPUs alone"),
        ({"accelerator": "cpu", "precision": "bf16-true"}, "a step of less than 1/256 of a weight changes nothing"),
        ({"accelerator": "cpu", "num_nodes": 2, "strategy": "ddp"}, "MASTER_ADDR"),
        ({"precision": "bf16-mixd"}, "did you mean 'bf16-mixed'"),
        ({"devices": 0}, "int > 0"),
        ({"devices": []}, "list of their indices"),
        ({"devices": True}, "int > 0"),
        ({"accelerator": "cpu", "devices": [0, 1]}, "on the CPU it is a number of processes"),
        ({"accelerator": "cpu", "precision": "16-mixed"}, "needs a GPU"),
        (3, "trainer takes settings"),
    ],
)
def test_what_it_does_not_take(about, message):
    assert message in refused(about)


def test_devices_that_are_not_there(gpus):
    if gpus:
        check_trainer({"accelerator": "gpu", "devices": gpus})
        assert f"torch sees {gpus} here" in refused({"accelerator": "cuda", "devices": [0, gpus]})
    else:
        assert "choose trainer=cpu" in refused({"accelerator": "gpu", "devices": 1})
    assert ("torch sees" in refused({"accelerator": "gpu", "devices": gpus + 1})) is True
    assert "torch sees no such device" in refused({"accelerator": "mps"})


def test_a_precision_that_the_device_does_not_have(gpus):
    check_trainer({"accelerator": "cpu", "precision": "bf16-mixed"})
    if gpus:
        assert "has no bfloat16" in refused({"accelerator": "gpu", "precision": "bf16-mixed"})
        check_trainer({"accelerator": "gpu", "precision": "16-mixed"})


@pytest.mark.parametrize("gpus", [1], indirect=True)
def test_deepspeed_needs_its_extra(gpus, monkeypatch):
    known = importlib.util.find_spec
    for there in (False, True):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, there=there: there or None if name == "deepspeed" else known(name))
        about = {"accelerator": "gpu", "devices": gpus, "strategy": "deepspeed_stage_1"}
        if there:
            check_trainer(about)
        else:
            assert "pip install 'rlhf-lightning[deepspeed]'" in refused(about)


@pytest.mark.parametrize("gpus", [1], indirect=True)
@pytest.mark.parametrize("stage", ["ppo", "rounds"])
def test_ppo_takes_no_deepspeed(stage, gpus, world, command, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, known=importlib.util.find_spec: name == "deepspeed" or known(name))
    words = ["trainer=deepspeed", "trainer.devices=1", "trainer.precision=32-true"]
    done = command(*getattr(world, stage)(*words), folder=tmp_path)
    assert done.code == 2
    assert "shards the gradients" in done.error
    assert not (tmp_path / "config.yaml").exists()


def test_the_number_of_processes(gpus):
    assert process_count({}) == max(1, gpus)
    assert process_count({"accelerator": "cpu"}) == 1
    assert process_count({"accelerator": "cpu", "devices": 3, "num_nodes": 2}) == 6
    assert process_count({"accelerator": "gpu", "devices": [0, 2]}) == 2
    assert process_count({"accelerator": "gpu", "devices": -1}) == max(1, gpus)


def test_what_lightning_refuses_is_reported_in_the_command_s_words():
    with pytest.raises(ConfigError, match=r"Lightning can't make a trainer of trainer\.max_time=soon: "):
        lightning_trainer({"max_time": "soon"}, logger=False)


@pytest.mark.parametrize("preset", sorted(file.stem for file in (CONF / "trainer").glob("*.yaml")))
@pytest.mark.parametrize("gpus", [4], indirect=True)
def test_every_preset_says_what_a_machine_with_four_gpus_can_do(preset, gpus, monkeypatch):
    """The ones that need other programs or machines too: each composes and is held to what is there."""
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "deepspeed" else known(name))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    about = OmegaConf.to_container(OmegaConf.load(CONF / "trainer" / f"{preset}.yaml"))
    for name, value in {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": str(about["num_nodes"] - 1)}.items():
        monkeypatch.setenv(name, value)
    check_trainer(about)
    expected = {"multi_node": 8, "deepspeed": 4}
    assert process_count(about) == expected.get(preset, about["devices"])
