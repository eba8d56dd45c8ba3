"""Phases of PPO and of supervised trainings, from the passes of their models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.evaluation.settings import EvaluationSettings
from rlhf_lightning.plan.fake_run import Texts
from rlhf_lightning.plan.models import Part, Roofline, largest_layer
from rlhf_lightning.plan.passes import PassMemory, PolicyPasses, RewardPasses, record_bytes
from rlhf_lightning.plan.phases import COLLECTING, EVALUATION, ROLLOUT, SCORING, STEP, TRAINING, Phase, Setup
from rlhf_lightning.policy.settings import PPOSettings

SCORING_BATCH = 64
"""Texts per batch of a reward model, and of the reference in preference optimisation."""


@dataclass(frozen=True)
class Generation:
    """Sizes and settings of sampled responses.

    Attributes:
        prompts: tokens of each prompt.
        max_tokens, mean_tokens: of a response.
    """

    prompts: tuple[int, ...]
    max_tokens: int
    mean_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0

    def rows(self, count: int) -> Generation:
        """The same with `count` rows, of these prompts in turn."""
        return dataclasses.replace(self, prompts=tuple(self.prompts[i % len(self.prompts)] for i in range(count)))

    @property
    def texts(self) -> Texts:
        return Texts.of(self.prompts, [self.mean_tokens] * len(self.prompts))


@dataclass(frozen=True)
class Job:
    """The models of a job and their passes.

    Attributes:
        trained: policy and critic, or the reward model. frozen: reference and reward model.
        policy, reward: the passes of the policy, and of the reward model.
    """

    setup: Setup
    roofline: Roofline
    trained: Sequence[Part]
    frozen: Sequence[Part] = ()
    policy: PolicyPasses | None = None
    reward: RewardPasses | None = None

    @property
    def parts(self) -> list[Part]:
        return [*self.trained, *self.frozen]

    @property
    def weights(self) -> float:
        return sum(part.weights for part in self.parts)

    @property
    def gradients(self) -> float:
        return sum(part.gradients for part in self.trained)

    @property
    def averages(self) -> float:
        """Bytes of Adam's averages."""
        return sum(part.optimiser for part in self.trained)

    def ppo_phases(self, settings: PPOSettings, generation: Generation, evaluation: EvaluationSettings) -> list[Phase]:
        """Rollout, scoring, optimisation; and the evaluation before and after."""
        assert self.policy is not None
        resident, texts = self.weights + self.gradients + self.averages, generation.texts
        all_texts = Texts(texts.lengths * self.setup.world_size, texts.predicted * self.setup.world_size)
        records = record_bytes(len(all_texts), max(generation.prompts), generation.mean_tokens)
        # Log-probabilities and scores of a rollout.
        forward = {"policy": self.policy.forward(texts.part(settings.num_minibatches))}
        if any(part.role == "reference" for part in self.frozen):
            forward["reference"] = self.policy.forward(texts.part(settings.num_minibatches), entropy=False, critic=False)
        if self.reward is not None:
            forward["reward model"] = self.reward.forward(texts.longest(SCORING_BATCH))
        scoring = Phase(SCORING, resident, forward, peak(forward), records + self._gathered_bytes, self._scoring_seconds(texts))
        # One micro-batch of a minibatch.
        minibatch = all_texts.part(settings.num_minibatches).part(self.setup.world_size)
        size = min(settings.micro_batch_size or len(minibatch), len(minibatch))
        accumulates = size < len(minibatch) or settings.ptx_coef > 0
        step = {"policy": self.policy.train_step(minibatch.first(size), entropy=settings.entropy_coef != 0, again=accumulates)}
        seconds = settings.epochs * settings.num_minibatches * self._train_seconds(minibatch)
        # Samples of an evaluation, and their log-probabilities.
        sampled = generation.rows(evaluation.batch_size)
        evaluated = self.generate(sampled, resident)
        log_probs = self.policy.forward(sampled.texts, critic=False)
        return [
            self.generate(generation, resident, self._gathered_bytes),
            scoring,
            Phase(TRAINING, self.weights + self.averages, step, peak(step), records + self._communication, seconds),
            Phase(STEP, resident, {}, 0.0, records + self._buckets),
            Phase(EVALUATION, resident, evaluated.passes, max(evaluated.transient, log_probs.peak)),
        ]

    def supervised_phases(self, batches: Sequence[Texts], reference: Texts | None = None) -> list[Phase]:
        """A training by Lightning's loop; the last step's gradients exist during the next forward pass.

        Args:
            batches: of one process; the largest is planned.
            reference: texts of one forward pass of the reference before the first step.
        """
        passes = self._passes
        largest = max(batches, key=lambda texts: texts.tokens)
        memory = passes.train_step(largest, chunked=False) if isinstance(passes, PolicyPasses) else passes.train_step(largest)
        seconds = sum(self._train_seconds(texts) for texts in batches) / len(batches)
        # On a GPU Adam copies the tensors that it updates, where it isn't one kernel.
        copies = 0.0 if self.setup.host else self.gradients
        resident = self.weights + self.averages
        transient = max(memory.peak, self.gradients + memory.forward)
        phases = [
            Phase(TRAINING, resident, {self.trained[0].role: memory}, transient, self._communication, seconds),
            Phase(STEP, resident + self.gradients, {}, copies, self._buckets),
        ]
        if reference is not None and isinstance(passes, PolicyPasses):
            forward = passes.forward(reference, chunked=False)
            phases.append(Phase(SCORING, resident + self.gradients, {"policy": forward}, forward.peak))
        elif isinstance(passes, RewardPasses):
            forward = passes.forward(largest.longest(SCORING_BATCH))
            phases.append(Phase(EVALUATION, resident + self.gradients, {"reward model": forward}, forward.peak))
        return phases

    def collect(self, generation: Generation, resident: float) -> Phase:
        """The samples for annotators, all in one batch, before anything is learned from them."""
        return dataclasses.replace(self.generate(generation, resident), name=COLLECTING, seconds=0.0)

    def generate(self, generation: Generation, resident: float, gathered: float = 0.0) -> Phase:
        """The sampling of responses."""
        assert self.policy is not None
        sizes = generation.prompts, generation.max_tokens, generation.temperature, generation.top_p
        passes = {"policy": self.policy.generate(*sizes)}
        seconds = self.roofline.generate(self.policy.trunk.model, generation.prompts, generation.mean_tokens, self._output_size)
        return Phase(ROLLOUT, resident, passes, peak(passes), gathered, seconds)

    @property
    def _passes(self) -> PolicyPasses | RewardPasses:
        passes = self.policy or self.reward
        assert passes is not None
        return passes

    @property
    def _buckets(self) -> float:
        """DDP's permanent copies of gradients."""
        return self.gradients if self.setup.strategy == "ddp" and self.setup.world_size > 1 else 0.0

    @property
    def _gathered_bytes(self) -> float:
        """FSDP2: the other shards of what is trained, during rollout and scoring."""
        return sum(part.weights for part in self.trained) * (self.setup.shards - 1)

    @property
    def _communication(self) -> float:
        """DDP's buckets; under FSDP2 the present layer and the next one, gathered with their gradients."""
        if self.setup.shards == 1 or self.policy is None:
            return self._buckets
        model = self.policy.policy.model
        output = model.get_output_embeddings()
        return 3 * largest_layer(model) + 2 * (output.weight.nbytes if output is not None else 0)

    @property
    def _output_size(self) -> int:
        layer = self.policy.policy.model.get_output_embeddings() if self.policy else None
        return 0 if layer is None else layer.weight.numel()

    def _scoring_seconds(self, texts: Texts) -> float:
        assert self.policy is not None
        trunks = [trunk.model for trunk in (self.policy.critic_trunk, self.reward and self.reward.trunk) if trunk]
        policy_and_reference = 2 * self.roofline.forward(self.policy.trunk.model, texts, self._output_size)
        return policy_and_reference + sum(self.roofline.forward(trunk, texts) for trunk in trunks)

    def _train_seconds(self, texts: Texts) -> float:
        seconds = self.roofline.train_step(self._passes.trunk.model, texts, self._output_size)
        critic = self.policy.critic_trunk if self.policy else None
        return seconds + (self.roofline.train_step(critic.model, texts) if critic else 0.0)


def peak(passes: dict[str, PassMemory]) -> float:
    """The largest peak of passes that run one after the other."""
    return max((memory.peak for memory in passes.values()), default=0.0)
