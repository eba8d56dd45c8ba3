"""From what a command chose to the models and phases of its job: models from configs alone, and the batches that the job would have."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import option
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import backbone_tokenizer, read, with_weights
from rlhf_lightning.stage.reward import divided

if TYPE_CHECKING:
    from rlhf_lightning.feedback.judgements import Judgements
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.cache import PlanCache
    from rlhf_lightning.plan.fake_run import Texts
    from rlhf_lightning.plan.jobs import Drawing, Models
    from rlhf_lightning.plan.phases import Phase, Setup

WITHOUT_REWARD_TRUNK = ("features",)
"""Heads that have no trunk."""


@dataclass
class Assembly:
    """The models and phases of one plan."""

    known: PlanCache
    run: Run
    setup: Setup
    mode: Any

    def of(self, job: str) -> tuple[Models, list[Phase]]:
        made: dict[str, Any] = {
            "sft": self.sft, "reward": self.reward, "preference": self.preference, "ppo": self.ppo, "rounds": self.rounds,
        }  # fmt: skip
        found: tuple[Models, list[Phase]] = made[job]()
        return found

    def sft(self) -> tuple[Models, list[Phase]]:
        from rlhf_lightning.plan.jobs import Models, supervised_phases
        from rlhf_lightning.plan.phases import SFT_HEAP_SLACK

        policy = self.policy(tuned=not self.from_nothing)
        models = Models([self.part("policy", policy.model)], [], self.passes(policy))
        return models, supervised_phases(self.setup, models, self.clock, self.demonstrations(policy), heap_slack=SFT_HEAP_SLACK)

    def preference(self) -> tuple[Models, list[Phase]]:
        from rlhf_lightning.plan.jobs import SCORED_TOGETHER, Models, supervised_phases
        from rlhf_lightning.plan.phases import PREFERENCE_HEAP_SLACK

        policy = self.policy()
        models = Models([self.part("policy", policy.model)], self.references(policy), self.passes(policy))
        batches = self.compared(policy)
        longest = sorted(((n, p) for texts in batches for n, p in zip(texts.lengths, texts.predicted, strict=True)), reverse=True)
        together = type(batches[0])(*(tuple(column) for column in zip(*longest[:SCORED_TOGETHER], strict=True)))
        referred = together if "reference" in self.run.component_of("preference_loss").needs else None
        return models, supervised_phases(self.setup, models, self.clock, batches, reference=referred, heap_slack=PREFERENCE_HEAP_SLACK)

    def reward(self) -> tuple[Models, list[Phase]]:
        from rlhf_lightning.plan.jobs import Models, supervised_phases
        from rlhf_lightning.plan.models import Trunk
        from rlhf_lightning.plan.passes import Scoring
        from rlhf_lightning.plan.phases import REWARD_HEAP_SLACK

        if self.run.component_of("reward_head").name in WITHOUT_REWARD_TRUNK:
            raise ConfigError("reward_head=features has no trunk: it is a regression that takes the features of the texts, and no plan")
        trunk = self.reward_trunk(tuned=True)
        scoring = Scoring(self.mode, Trunk.of(trunk), self.setup.precision, self.setup.host)
        models = Models([self.part("reward model", trunk)], [], None, scoring)
        return models, supervised_phases(self.setup, models, self.clock, self.judged(trunk), heap_slack=REWARD_HEAP_SLACK)

    def ppo(self) -> tuple[Models, list[Phase]]:
        return self.policy_phases(self.scorer_trunk())

    def rounds(self) -> tuple[Models, list[Phase]]:
        """Warm-up, samples for the annotators, reward model, PPO; the policy and its start stay from the samples on."""
        import dataclasses

        from rlhf_lightning.plan.jobs import Models, collecting
        from rlhf_lightning.plan.phases import weights_of

        trunk = self.reward_trunk()
        models, tuned = self.policy_phases(trunk)
        stay = weights_of([models.trained[0], *[part for part in models.frozen if part.role == "reference"]])
        phases = [dataclasses.replace(phase, name=f"sft: {phase.name}", seconds=0.0) for phase in self.sft()[1]]
        rows = _stage_setting("rounds", "prompts") * _stage_setting("rounds", "responses")
        held = Models(models.trained[:1], models.frozen, models.policy)
        phases.append(collecting(self.setup, held, self.clock, self.drawing(models.policy.policy).rows(rows)))  # type: ignore[union-attr]
        for phase in self.reward()[1]:
            phases.append(dataclasses.replace(phase, name=f"reward: {phase.name}", resident=phase.resident + stay, seconds=0.0))
        return models, [*phases, *tuned]

    def policy_phases(self, scorer: Any) -> tuple[Models, list[Phase]]:
        from rlhf_lightning.plan.jobs import Models, ppo_phases
        from rlhf_lightning.plan.models import Trunk
        from rlhf_lightning.plan.passes import Scoring

        run, policy = self.run, self.policy()
        scoring = None if scorer is None else Scoring(self.mode, Trunk.of(scorer), "32-true", self.setup.host)
        frozen = self.references(policy)
        if scorer is not None:
            frozen.append(self.part("reward model", scorer.requires_grad_(False), self.setup.frozen_shares))
        critic = self.critic(policy, scorer) if "values" in run.component_of("advantage").needs else None
        trained = [self.part("policy", policy.model), *([] if critic is None else [self.part("critic", critic)])]
        own = None if critic is None or critic.trunk is None else critic.trunk
        models = Models(trained, frozen, self.passes(policy, own, critic is not None), scoring)
        drawing = self.drawing(policy)
        return models, ppo_phases(self.setup, models, self.clock, run.settings("ppo"), drawing, run.settings("evaluation"))

    @property
    def clock(self) -> Any:
        from rlhf_lightning.plan.time_estimate import Clock

        return Clock(self.known.device, self.setup.precision)

    @property
    def from_nothing(self) -> bool:
        """The backbone begins at random weights."""
        return "corpus" in self.run.component_of("backbone").needs

    @property
    def task(self) -> Task:
        task: Task = self.known.once("task", lambda: self.run.build("task"))
        return task

    def part(self, role: str, model: Any, shares: int | None = None) -> Any:
        from rlhf_lightning.plan.models import Part

        return Part.of(role, model, self.setup.shares if shares is None else shares)

    def policy(self, tuned: bool = True) -> LanguageModel:
        """The backbone without numbers, what is trained chosen by policy_tuning."""
        import torch

        from rlhf_lightning.plan.fake_run import to_fake
        from rlhf_lightning.plan.models import policy_of_path

        run = self.run
        if "reading" in run.component_of("backbone").needs:
            job, name = run.settings("plan").job, run.component_of("backbone").name
            raise ConfigError(f"plan.job={job} needs a model that writes texts, and backbone={name} only reads: choose backbone=causal")
        with torch.device("meta"):
            if "path" in run.config.backbone:
                dtype = getattr(torch, str(run.config.backbone.get("dtype", "float32")))
                model = policy_of_path(str(run.config.backbone.path), dtype)
            else:
                model = run.build("backbone")(self.corpus)
            if tuned:
                run.build("policy_tuning")(model.model)
        to_fake(self.mode, model.model.eval())
        return model

    def references(self, policy: LanguageModel) -> list[Any]:
        """The reference, which is a second copy unless adapters are trained."""
        from rlhf_lightning.model.adapters import has_adapters

        if has_adapters(policy.model):
            return []
        return [self.part("reference", self.policy(tuned=False).model.requires_grad_(False), self.setup.frozen_shares)]

    def critic(self, policy: LanguageModel, scorer: Any) -> Any:
        import copy

        from rlhf_lightning.policy.model import Critic, zero_init_value_head

        with self.mode:
            if "reward_model" in self.run.component_of("policy_critic").needs:
                return Critic(zero_init_value_head(policy.width), copy.deepcopy(scorer).requires_grad_(True))
            return self.run.build("policy_critic")(policy, None)

    def passes(self, policy: LanguageModel, critic_trunk: Any = None, has_critic: bool = False) -> Any:
        from rlhf_lightning.plan.models import Trunk
        from rlhf_lightning.plan.passes import Passes

        own = None if critic_trunk is None else Trunk.of(critic_trunk)
        return Passes(self.mode, policy, Trunk.of(policy.trunk), self.setup.precision, self.setup.host, own, has_critic)

    def scorer_trunk(self) -> Any:
        """The trunk of rollout_scorer=reward_model; None of a scorer that is no model."""
        import torch

        from rlhf_lightning.plan.fake_run import to_fake
        from rlhf_lightning.plan.models import trunk_of_path

        scorer = self.run.config.rollout_scorer
        path = str(scorer.get("path", ""))
        not_a_model = Path(path).is_dir() and not (Path(path) / "config.json").is_file()
        if self.run.component_of("rollout_scorer").name != "reward_model" or not_a_model:
            return None
        with torch.device("meta"):
            trunk = trunk_of_path(path).requires_grad_(False)
        return to_fake(self.mode, trunk)

    def reward_trunk(self, tuned: bool = False) -> Any:
        """What a reward model is trained on: the backbone's trunk, all of it or what reward_tuning trains."""
        import torch

        from rlhf_lightning.plan.fake_run import to_fake
        from rlhf_lightning.plan.models import trunk_of_path

        node = self.run.config.backbone
        with torch.device("meta"):
            trunk = trunk_of_path(str(node.path)) if "path" in node else self.run.build("backbone")(self.corpus).trunk
            if tuned:
                self.run.build("reward_tuning")(trunk)
        return to_fake(self.mode, trunk)

    @property
    def corpus(self) -> list[str]:
        found: list[str] = self.known.once("corpus", lambda: self.run.corpus(self.task))
        return found

    def drawing(self, policy: LanguageModel) -> Drawing:
        """The largest of the first batches of prompts of one process."""
        from rlhf_lightning.plan.jobs import Drawing
        from rlhf_lightning.rollout.prompts import fitting_prompts, prompt_loader

        run, settings = self.run, self.run.settings("ppo")
        sampler, about, room = run.config.rollout_sampler, run.settings("plan"), run.max_response_tokens

        def batches() -> list[list[int]]:
            prompts = fitting_prompts(self.task.train_prompts(), [policy], room).prompts
            loader = prompt_loader(
                prompts, policy, min(about.batches, settings.updates), settings.prompts_per_update, room,
                seed=run.seed, rank=0, world=self.setup.processes,
            )  # fmt: skip
            return [batch.prompt_mask.sum(1).tolist() for batch in loader]

        found = self.known.once(f"prompts {settings.prompts_per_update} {self.setup.processes} {room}", batches)
        lengths = tuple(length for length in max(found, key=sum) for _ in range(settings.responses_per_prompt))
        mean = min(about.response_tokens or room, room)
        if about.response_tokens is None:
            self.known.note(f"responses are planned as long as they may be, {room} tokens; plan.response_tokens says how long they are")
        return Drawing(lengths, room, mean, float(sampler.get("temperature", 1.0)), float(sampler.get("top_p", 1.0)))

    def demonstrations(self, policy: LanguageModel) -> list[Texts]:
        from rlhf_lightning.sft.module import demonstration_loader
        from rlhf_lightning.stage.sft import demonstrations_of

        settings = self.run.settings("sft")

        def batches() -> list[Texts]:
            loader, _ = demonstration_loader(demonstrations_of(self.task), policy, settings, self.run.seed, 0, self.setup.processes)
            return self.sizes(loader)

        found: list[Texts] = self.known.once(f"demonstrations {settings.batch_size} {self.setup.processes}", batches)
        return found

    def sizes(self, loader: Any) -> list[Texts]:
        """The sizes of a loader's first batches of packed texts."""
        import itertools

        return [sizes_of(getattr(batch, "tokens", batch)) for batch in itertools.islice(loader, self.run.settings("plan").batches)]

    def judgements(self, section: str) -> Judgements | None:
        """The feedback to learn from; None where the job would collect it first."""
        from rlhf_lightning.feedback.judgements import standardised

        if not self.run.config.get("feedback_source"):
            return None
        run, fraction = self.run, self.run.settings(section).validation_fraction
        feedback = self.known.once("feedback", lambda: read(run, backbone_tokenizer(run)).feedback)
        found: Judgements = self.known.once(
            f"judgements {section}", lambda: divided(standardised(with_weights(run, feedback)), fraction, section).training
        )
        return found

    def own_texts(self, section: str, texts: int) -> list[Texts]:
        """Where the feedback will be on the policy's own samples: as many texts as judgements, as long as they may be."""
        from rlhf_lightning.plan.fake_run import Texts

        self.known.note(f"{section}: no feedback is there yet; planned for {texts} different texts a step, with the longest responses")
        drawing = self.drawing(self.policy(tuned=False)).rows(-(-texts // self.setup.processes))
        return [Texts.of(drawing.prompts, [drawing.mean + 1] * len(drawing.prompts))]

    def judged(self, trunk: Any) -> list[Texts]:
        """Batches of the reward model's training."""
        from rlhf_lightning.model.loading import load_tokenizer
        from rlhf_lightning.model.trunk import clamp_length
        from rlhf_lightning.reward.model import RewardModel
        from rlhf_lightning.reward.module import feedback_loader
        from rlhf_lightning.reward.net import ComposedScore

        run, settings = self.run, self.run.settings("reward")
        training = self.judgements("reward")
        if training is None:
            return self.own_texts("reward", settings.batch_size)
        path = run.config.backbone.get("path")
        tokenizer = load_tokenizer(str(path)) if path else self.policy(tuned=False).tokenizer
        pooling: Any = None
        reader = RewardModel(ComposedScore(trunk, pooling, pooling), tokenizer, clamp_length(trunk, settings.max_length))
        name = f"judged {settings.batch_size} {self.setup.processes}"
        found: list[Texts] = self.known.once(
            name, lambda: self.sizes(feedback_loader(training, reader, settings.batch_size, run.seed, 0, self.setup.processes))
        )
        return found

    def compared(self, policy: LanguageModel) -> list[Texts]:
        """Batches of preference optimisation."""
        from rlhf_lightning.preference.examples import preference_loader
        from rlhf_lightning.preference.texts import TextTable
        from rlhf_lightning.stage.preference import examples_of
        from rlhf_lightning.tokenization.length_limit import length_limit

        run, settings = self.run, self.run.settings("preference")
        training = self.judgements("preference")
        if training is None:
            return self.own_texts("preference", 2 * settings.batch_size)

        def batches() -> list[Texts]:
            limit = length_limit(settings.max_length, policy.max_length, "preference.max_length")
            table = TextTable(policy.tokenizer, limit.tokens, policy.eos_ids)
            examples = examples_of(run, training, table, limit)
            return self.sizes(preference_loader(examples, table, settings.batch_size, run.seed, 0, self.setup.processes))

        found: list[Texts] = self.known.once(f"compared {settings.batch_size} {self.setup.processes}", batches)
        return found


def sizes_of(tokens: Any) -> Texts:
    """Of packed texts that say where their responses begin, or not."""
    from rlhf_lightning.plan.fake_run import Texts

    lengths: Sequence[int] = tokens.lengths.tolist()
    starts = [0] * len(lengths) if tokens.response_start is None else tokens.response_start.tolist()
    return Texts(tuple(lengths), tuple(max(0, length - max(1, start)) for length, start in zip(lengths, starts, strict=True)))


def _stage_setting(stage: str, name: str) -> int:
    """The default of a stage's own setting, which stage=plan stands in the place of."""
    return int(inspect.signature(option("stage", stage).target).parameters[name].default)
