"""The plan of a command's job, and of the same with one setting changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.registry import option
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.training.trainer import processes

if TYPE_CHECKING:
    from rlhf_lightning.plan.cache import PlanCache
    from rlhf_lightning.plan.phases import Plan, Setup


@dataclass
class Planner:
    """Plans the job of a command, and the same with one setting changed: what was read for the first serves the others.

    Attributes:
        base: bytes of a process before any model.
    """

    run: Run
    known: PlanCache
    base: float

    def plan(self, run: Run) -> Plan:
        """Raises ConfigError for a job or models that can't be planned."""
        from rlhf_lightning.plan.fake_run import fake_mode
        from rlhf_lightning.plan.phases import Plan
        from rlhf_lightning.stage._assembly import Assembly

        setup, job = self.setup(run), run.settings("plan").job
        models, phases = Assembly(self.known, run, setup, fake_mode()).of(job)
        return Plan(setup, models.parts, phases)

    def setup(self, run: Run) -> Setup:
        from rlhf_lightning.plan.phases import Setup
        from rlhf_lightning.plan.process_memory import keeps_freed

        trainer: Any = OmegaConf.to_container(run.config.trainer, resolve=True)
        together, strategy = processes(trainer), str(trainer.get("strategy", "auto"))
        kind = "single" if together == 1 else "fsdp2" if strategy.startswith("fsdp") else "ddp"
        frozen = bool(trainer.get("shard_frozen", False))
        precision, host = str(trainer.get("precision", "32-true")), self.known.device.host
        return Setup(precision, host, together, kind, self.base, frozen, host and keeps_freed())

    def switches(self) -> Iterator[tuple[str, Run]]:
        """The settings that may take less memory, and the command with each."""
        for words, changes in switches_of(self.run):
            config = OmegaConf.merge(self.run.config, {})
            assert isinstance(config, DictConfig)
            OmegaConf.set_struct(config, False)
            for key, value in changes.items():
                OmegaConf.update(config, key, value, merge=False)
            yield words, Run(config, self.run.folder, self.run.console)


def switches_of(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """The words of each switch that applies, and the changes of the configuration that it stands for."""
    job, found = run.settings("plan").job, list[tuple[str, dict[str, Any]]]()

    def add(key: str, value: Any, when: bool = True) -> None:
        if when:
            found.append((f"{key}={value}", {key: value}))

    def choose(group: str, name: str, when: bool) -> None:
        if when:
            found.append((f"{group}={name}", {group: OmegaConf.structured(option(group, name).config)}))

    tunes = job != "reward" and run.component_of("policy_tuning").name == "full" and "pretrained" in _provided(run, job)
    choose("policy_tuning", "lora", tunes and _has_peft())
    choose("reward_tuning", "lora", job == "reward" and run.component_of("reward_tuning").name == "full" and _has_peft())
    if job in ("ppo", "rounds"):
        settings = run.settings("ppo")
        minibatch = -(-settings.prompts_per_update * settings.responses_per_prompt // settings.num_minibatches)
        micro = min(settings.micro_batch_size or minibatch, minibatch)
        choose(
            "policy_critic",
            "shared",
            run.component_of("policy_critic").name != "shared" and "values" in run.component_of("advantage").needs,
        )
        add("ppo.micro_batch_size", -(-micro // 4), micro > 1)
        halves = settings.prompts_per_update % (2 * processes(run.config.trainer)) == 0
        add("ppo.prompts_per_update", settings.prompts_per_update // 2, halves)
        add("rollout_sampler.max_new_tokens", run.max_response_tokens // 2, run.max_response_tokens > 1)
    else:
        add(f"{job}.batch_size", run.settings(job).batch_size // 2, run.settings(job).batch_size > 1)
    add("trainer.precision", "bf16-mixed", run.config.trainer.get("precision") == "32-true")
    if processes(run.config.trainer) == 1:
        sharded = {"trainer.strategy": "fsdp2", "trainer.devices": 2}
        found.append(("trainer=fsdp2 trainer.devices=2", sharded))
    return found


def _provided(run: Run, job: str) -> tuple[str, ...]:
    """What a tuning may need: a stage that begins at random weights has none that are pretrained."""
    return () if job == "sft" and "corpus" in run.component_of("backbone").needs else ("pretrained",)


def _has_peft() -> bool:
    import importlib.util

    return importlib.util.find_spec("peft") is not None
