"""Settings that may reduce the memory of a job."""

from __future__ import annotations

import importlib.util
from typing import Any

from omegaconf import OmegaConf

from rlhf_lightning.registry import option
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.training.trainer import process_count

Changes = dict[str, Any]


def memory_switches(run: Run) -> dict[str, Changes]:
    """The applicable switches by their words on the command line, and the changes of the configuration."""
    job = run.component_of("stage").name
    switches = {**_tuning_switches(run, job), **(_ppo_switches(run) if job in ("ppo", "rounds") else _batch_switch(run, job))}
    if run.config.backbone.get("activation_checkpointing") is False:
        switches |= _setting("backbone.activation_checkpointing", True)
    if run.config.trainer.get("precision") == "32-true":
        switches |= _setting("trainer.precision", "bf16-mixed")
    if process_count(run.config.trainer) == 1:
        switches["trainer=fsdp2 trainer.devices=2"] = {"trainer.strategy": "fsdp2", "trainer.devices": 2}
    return switches


def _tuning_switches(run: Run, job: str) -> dict[str, Changes]:
    """Adapters, where peft is installed and the weights are pretrained."""
    group = "reward_tuning" if job == "reward" else "policy_tuning"
    is_random = job == "sft" and "corpus" in run.component_of("backbone").needs
    if run.component_of(group).name != "full" or is_random or importlib.util.find_spec("peft") is None:
        return {}
    return _choose(group, "lora")


def _ppo_switches(run: Run) -> dict[str, Changes]:
    settings, switches = run.settings("ppo"), dict[str, Changes]()
    minibatch = -(-settings.prompts_per_update * settings.responses_per_prompt // settings.num_minibatches)
    micro_batch = min(settings.micro_batch_size or minibatch, minibatch)
    if run.component_of("policy_critic").name != "shared" and "values" in run.component_of("advantage").needs:
        switches |= _choose("policy_critic", "shared")
    if micro_batch > 1:
        switches |= _setting("ppo.micro_batch_size", -(-micro_batch // 4))
    if settings.prompts_per_update % (2 * process_count(run.config.trainer)) == 0:
        switches |= _setting("ppo.prompts_per_update", settings.prompts_per_update // 2)
    if run.max_response_tokens > 1:
        switches |= _setting("rollout_sampler.max_new_tokens", run.max_response_tokens // 2)
    return switches


def _batch_switch(run: Run, job: str) -> dict[str, Changes]:
    size = run.settings(job).batch_size
    return _setting(f"{job}.batch_size", size // 2) if size > 1 else {}


def _setting(key: str, value: Any) -> dict[str, Changes]:
    return {f"{key}={str(value).lower()}": {key: value}}


def _choose(group: str, name: str) -> dict[str, Changes]:
    return {f"{group}={name}": {group: OmegaConf.structured(option(group, name).config)}}
