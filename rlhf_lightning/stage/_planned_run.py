"""A run with fake models and real data, which each stage assembles by its own code."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations, has_checkpointing
from rlhf_lightning.model.loading import load_tokenizer
from rlhf_lightning.model.trunk import clamp_length
from rlhf_lightning.plan.device import Device, keeps_freed
from rlhf_lightning.plan.fake_run import Texts, fake_mode, to_fake
from rlhf_lightning.plan.jobs import Generation, Job
from rlhf_lightning.plan.models import Part, Roofline, Trunk, policy_of_path, states_per_weight, trunk_of_path
from rlhf_lightning.plan.passes import PolicyPasses, RewardPasses
from rlhf_lightning.plan.phases import Phase, Plan, Setup
from rlhf_lightning.policy.model import Critic, zero_init_value_head
from rlhf_lightning.registry import component_of, option
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.rollout.prompts import fitting_prompts, prompt_loader
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer, load_feedback, with_weights
from rlhf_lightning.training.trainer import process_count

if TYPE_CHECKING:
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel

META_GROUPS = ("backbone", "policy_tuning", "reward_tuning")
"""Groups whose components make or change models."""


@dataclass
class Inputs:
    """The task and the feedback of a command, read once for all of its plans."""

    run: Run

    @cached_property
    def task(self) -> Task:
        task: Task = self.run.build("task")
        return task

    @cached_property
    def corpus(self) -> list[str]:
        return self.run.corpus(self.task)

    @cached_property
    def judgements(self) -> Judgements:
        return standardise(with_weights(self.run, load_feedback(self.run, backbone_tokenizer(self.run)).feedback))


class PlannedRun(Run):
    """The run of plan.job with models made from their configs, without weights.

    Args:
        inputs: shared by all plans of a command.
        base: bytes of a process after its imports.

    Attributes:
        notes: assumptions, for the report.
    """

    def __init__(self, config: DictConfig, inputs: Inputs, device: Device, base: float) -> None:
        job = option("stage", config.plan.job)
        super().__init__(changed_config(config, {"stage": OmegaConf.structured(job.config)}), inputs.run.folder, inputs.run.console)
        self.inputs, self.device, self.base = inputs, device, base
        self.notes: list[str] = []
        self.mode = fake_mode()

    def with_changes(self, changes: Mapping[str, Any]) -> PlannedRun:
        """The same run with other settings."""
        return PlannedRun(changed_config(self.config, changes), self.inputs, self.device, self.base)

    def log(self, text: str) -> None:
        """Print nothing."""

    def build(self, group: str, *args: Any) -> Any:
        """As in a run, with models on the device "meta"; a pretrained backbone has the shapes of its config."""
        if group == "task":
            return self.inputs.task
        node = self.config.get(group)
        if group == "backbone" and "path" in node:
            return on_meta(lambda corpus: self._planned_policy(node))
        component = super().build(group, *args)
        return on_meta(component) if group in META_GROUPS else component

    def _planned_policy(self, node: DictConfig) -> LanguageModel:
        policy = policy_of_path(str(node.path), str(node.get("dtype", "float32")))
        if node.get("activation_checkpointing"):
            checkpoint_activations(policy.model)
        return policy

    def corpus(self, task: Task) -> list[str]:
        return self.inputs.corpus

    @cached_property
    def setup(self) -> Setup:
        """Processes, strategy and precision."""
        trainer: Any = OmegaConf.to_container(self.config.trainer, resolve=True)
        world_size, strategy, host = process_count(trainer), str(trainer.get("strategy", "auto")), self.device.host
        kind = "single" if world_size == 1 else "fsdp2" if strategy.startswith("fsdp") else "ddp"
        return Setup(
            precision=str(trainer.get("precision", "32-true")),
            host=host,
            world_size=world_size,
            strategy=kind,
            base=self.base,
            shard_frozen=bool(trainer.get("shard_frozen", False)),
            keeps_freed=host and keeps_freed(),
        )

    @cached_property
    def optimizer_states(self) -> float:
        """Bytes of the optimizer's state for each byte of trained weights."""
        return states_per_weight(self.build("optimizer"))

    def policy_job(
        self, policy: LanguageModel, reference: LanguageModel | None = None, critic: Critic | None = None, scorer: Any = None
    ) -> Job:
        """The job of a trained policy.

        Args:
            reference: the policy itself if its adapters are trained; None without one.
            scorer: the trunk of a frozen reward model.
        """
        setup = self.setup
        to_fake(self.mode, policy.model.eval())
        trained, frozen = [Part.of("policy", policy.model, setup.shards, self.optimizer_states)], []
        if critic is not None:
            trained.append(Part.of("critic", critic, setup.shards, self.optimizer_states))
        if reference is not None and reference is not policy:
            frozen.append(Part.of("reference", reference.model.requires_grad_(False), setup.frozen_shards))
        if scorer is not None:
            frozen.append(Part.of("reward model", to_fake(self.mode, scorer).requires_grad_(False), setup.frozen_shards))
        critic_trunk = None if critic is None or critic.trunk is None else Trunk.of(critic.trunk)
        passes = PolicyPasses(
            self.mode, policy, Trunk.of(policy.trunk), setup.precision, setup.host, critic_trunk, has_critic=critic is not None
        )
        scoring = None if scorer is None else RewardPasses(self.mode, Trunk.of(scorer), "32-true", setup.host)
        return Job(setup, Roofline(self.device, setup.precision), trained, frozen, passes, scoring)

    def reward_job(self, trunk: Any) -> Job:
        """The job of a trained reward model."""
        setup = self.setup
        passes = RewardPasses(self.mode, Trunk.of(to_fake(self.mode, trunk)), setup.precision, setup.host)
        return Job(
            setup,
            Roofline(self.device, setup.precision),
            [Part.of("reward model", trunk, setup.shards, self.optimizer_states)],
            reward=passes,
        )

    def critic(self, policy: LanguageModel, scorer: Any) -> Critic:
        """The critic chosen by policy_critic.

        Args:
            scorer: the trunk of the reward model.
        """
        to_fake(self.mode, policy.model)
        with self.mode:
            if "reward_model" in self.component_of("policy_critic").needs:  # its weights don't matter, only their shapes
                trunk = copy.deepcopy(to_fake(self.mode, scorer)).requires_grad_(True)
                if has_checkpointing(policy.model):
                    checkpoint_activations(trunk)
                return Critic(zero_init_value_head(policy.width), trunk)
            critic: Critic = self.build("policy_critic")(policy, None)
            return critic

    def plan(self, job: Job, phases: Iterable[Phase]) -> Plan:
        return Plan(self.setup, job.parts, list(phases))

    def reward_trunk(self) -> Any:
        """The backbone's trunk, on which a reward model is made."""
        node = self.config.backbone
        trunk = on_meta(trunk_of_path)(str(node.path)) if "path" in node else self.build("backbone")(self.inputs.corpus).trunk
        if node.get("activation_checkpointing"):
            checkpoint_activations(trunk)
        return trunk

    def reward_model(self, trunk: Any) -> RewardModel:
        """A reward model on a trunk, for the lengths of its texts."""
        path, no_module = self.config.backbone.get("path"), cast(Any, None)
        tokenizer = load_tokenizer(str(path)) if path else self.build("backbone")(self.inputs.corpus).tokenizer
        return RewardModel(ComposedScore(trunk, no_module, no_module), tokenizer, clamp_length(trunk, self.settings("reward").max_length))

    def scorer_trunk(self) -> Any:
        """The trunk of the first rollout_scorer=reward_model; None without one, or of one without a trunk."""
        nodes = self.config.rollout_scorer.values()
        paths = [Path(str(node.path)) for node in nodes if component_of(node).name == "reward_model"]
        with_trunk = [path for path in paths if not path.is_dir() or (path / "config.json").is_file()]
        if len(with_trunk) > 1:
            self.notes.append(f"planned with the first of {len(with_trunk)} reward models in rollout_scorer")
        return on_meta(trunk_of_path)(str(with_trunk[0])) if with_trunk else None

    def texts(self, loader: Iterable[Any]) -> list[Texts]:
        """The sizes of a loader's first batches of packed texts."""
        return [Texts.of_packed(getattr(batch, "tokens", batch)) for batch in itertools.islice(loader, self.settings("plan").batches)]

    @property
    def has_feedback(self) -> bool:
        """False if the job collects its own feedback."""
        return bool(self.config.get("feedback_source"))

    def collected_texts(self, policy: LanguageModel, section: str, count: int) -> list[Texts]:
        """A batch of feedback on the policy's own samples: `count` texts, with the longest responses."""
        self.notes.append(f"{section}: there is no feedback yet; planned for {count} different texts a step, with the longest responses")
        generation = self.generation(policy).rows(-(-count // self.setup.world_size))
        return [Texts.of(generation.prompts, [generation.mean_tokens + 1] * len(generation.prompts))]

    def generation(self, policy: LanguageModel) -> Generation:
        """The largest of the first batches of prompts of one process."""
        ppo, settings, sampler = self.settings("ppo"), self.settings("plan"), self.config.rollout_sampler
        max_tokens = self.max_response_tokens
        prompts = fitting_prompts(self.inputs.task.train_prompts(), [policy], max_tokens).prompts
        batches = prompt_loader(
            prompts, policy, min(settings.batches, ppo.updates), ppo.prompts_per_update, max_tokens,
            seed=self.seed, rank=0, world=self.setup.world_size,
        )  # fmt: skip
        largest = max((batch.prompt_mask.sum(1).tolist() for batch in batches), key=sum)
        lengths = tuple(length for length in largest for _ in range(ppo.responses_per_prompt))
        if settings.response_tokens is None:
            note = f"responses are planned as long as they may be, {max_tokens} tokens; plan.response_tokens=N plans for a mean length"
            self.notes.append(note)
        mean = min(settings.response_tokens or max_tokens, max_tokens)
        return Generation(lengths, max_tokens, mean, float(sampler.get("temperature", 1.0)), float(sampler.get("top_p", 1.0)))


def changed_config(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """A copy of a configuration with other values at these keys."""
    copy = OmegaConf.merge(config, {})
    assert isinstance(copy, DictConfig)
    OmegaConf.set_struct(copy, False)
    for key, value in changes.items():
        OmegaConf.update(copy, key, value, merge=False)
    return copy


def on_meta(function: Any) -> Any:
    """The function with its tensors made on the device "meta"."""

    def call(*args: Any) -> Any:
        with torch.device("meta"):
            return function(*args)

    return call
