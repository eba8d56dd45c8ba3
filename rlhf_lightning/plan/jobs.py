"""The phases of each job: what stage/ does, in the order in which it does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.evaluation.settings import EvaluationSettings
from rlhf_lightning.plan.fake_run import Texts
from rlhf_lightning.plan.models import Part, largest_layer
from rlhf_lightning.plan.passes import Passes, PassMemory, Scoring, record_bytes
from rlhf_lightning.plan.phases import (
    COLLECTING,
    EVALUATION,
    HEAP_SLACK,
    ROLLOUT,
    SCORING,
    STEP,
    TRAINING,
    Phase,
    Setup,
    states_of,
    weights_of,
)  # fmt: skip
from rlhf_lightning.plan.time_estimate import Clock
from rlhf_lightning.policy.settings import PPOSettings

SCORED_TOGETHER = 64
"""Texts that a reward model, and the reference of preference optimisation, read at a time."""


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn: prompts' lengths, and the most and the mean tokens of a response."""

    prompts: tuple[int, ...]
    room: int
    mean: int
    temperature: float = 1.0
    top_p: float = 1.0

    def rows(self, count: int) -> Drawing:
        """So many rows, of these prompts in turn."""
        return dataclasses.replace(self, prompts=tuple(self.prompts[i % len(self.prompts)] for i in range(count)))

    @property
    def texts(self) -> Texts:
        return Texts.of(self.prompts, [self.mean] * len(self.prompts))


@dataclass(frozen=True)
class Models:
    """The models of a job and their passes.

    Attributes:
        trained: policy and critic, or the reward model. frozen: reference and reward model; whole or shared out, as the setup says.
        policy: its passes; reward: those of the reward model. critic: whether values are learned.
    """

    trained: Sequence[Part]
    frozen: Sequence[Part]
    policy: Passes | None = None
    reward: Scoring | None = None

    @property
    def parts(self) -> list[Part]:
        return [*self.trained, *self.frozen]


def ppo_phases(
    setup: Setup, models: Models, clock: Clock, settings: PPOSettings, drawing: Drawing, evaluation: EvaluationSettings
) -> list[Phase]:
    """Rollout, scoring, optimisation; and the measuring before and after."""
    assert models.policy is not None
    passes, resident = models.policy, weights_of(models.parts) + states_of(models.trained)
    texts = drawing.texts
    everyone = Texts(texts.lengths * setup.processes, texts.predicted * setup.processes)
    records = record_bytes(len(everyone), max(drawing.prompts), drawing.mean)
    whole = gathered_whole(setup, models)
    rollout = drawn(setup, models, clock, drawing, resident, whole)
    read = {"policy": passes.read(texts.part(settings.num_minibatches))}
    if not shares_weights(models):
        read["reference"] = passes.read(texts.part(settings.num_minibatches), entropy=False, critic=False)
    if models.reward is not None:
        read["reward model"] = models.reward.read(scored_together(texts))
    scoring = Phase(SCORING, resident, read, most(read), records + whole, scoring_seconds(models, clock, texts))
    minibatch = everyone.part(settings.num_minibatches).part(setup.processes)
    size = min(settings.micro_batch_size or len(minibatch), len(minibatch))
    micro, several = minibatch.first(size), size < len(minibatch) or settings.ptx_coef > 0
    learned = {"policy": passes.learned(micro, entropy=settings.entropy_coef != 0, again=several)}
    averages = weights_of(models.parts) + sum(part.optimiser for part in models.trained)
    seconds = settings.epochs * settings.num_minibatches * learned_seconds(models, clock, minibatch)
    training = Phase(TRAINING, averages, learned, most(learned), records + in_training(setup, models), seconds)
    step = Phase(STEP, resident, {}, 0.0, records + buckets(setup, models))
    measured = drawn(setup, models, clock, drawing.rows(evaluation.batch_size), resident, 0.0)
    read_at_once = {"policy": passes.read(drawing.rows(evaluation.batch_size).texts, critic=False)}
    looked = Phase(EVALUATION, resident, measured.taken, max(measured.at_once, most(read_at_once)))
    return [rollout, scoring, training, step, looked]


def supervised_phases(
    setup: Setup,
    models: Models,
    clock: Clock,
    batches: Sequence[Texts],
    *,
    chunked: bool = False,
    reference: Texts | None = None,
    heap_slack: float = HEAP_SLACK,
) -> list[Phase]:
    """A training by Lightning's own loop, in which the last step's gradients are there while the next batch is read.

    Args:
        batches: of one process; the largest is planned.
        reference: texts that are read together before the first step.
    """
    averages = weights_of(models.parts) + sum(part.optimiser for part in models.trained)
    gradients = sum(part.gradients for part in models.trained)
    largest = max(batches, key=lambda texts: texts.tokens)
    passes = models.policy.learned(largest, chunked=chunked) if models.policy else scorer(models).learned(largest)
    peak = max(passes.peak, gradients + passes.forward)
    learned = {models.trained[0].role: passes}
    seconds = sum(learned_seconds(models, clock, texts) for texts in batches) / len(batches)
    phases = [Phase(TRAINING, averages, learned, peak, in_training(setup, models), seconds, heap_slack)]
    # On a GPU, where it isn't one kernel, Adam takes a copy of what it steps.
    beside = 0.0 if setup.host else gradients
    phases.append(Phase(STEP, averages + gradients, {}, beside, buckets(setup, models)))
    if reference is not None and models.policy is not None:
        read = models.policy.read(reference, chunked=False)
        phases.append(Phase(SCORING, averages + gradients, {"policy": read}, read.peak))
    elif models.reward is not None:
        read = models.reward.read(scored_together(largest))
        phases.append(Phase(EVALUATION, averages + gradients, {"reward model": read}, read.peak))
    return phases


def collecting(setup: Setup, models: Models, clock: Clock, drawing: Drawing) -> Phase:
    """The samples that annotators judge, all at a time, on the CPU, before anything is learned from them."""
    return dataclasses.replace(drawn(setup, models, clock, drawing, weights_of(models.parts), 0.0), name=COLLECTING, seconds=0.0)


def drawn(setup: Setup, models: Models, clock: Clock, drawing: Drawing, resident: float, gathered: float) -> Phase:
    assert models.policy is not None
    taken = {"policy": models.policy.drawn(drawing.prompts, drawing.room, drawing.temperature, drawing.top_p)}
    seconds = clock.drawn(models.policy.trunk.model, drawing.prompts, drawing.mean, output_of(models))
    return Phase(ROLLOUT, resident, taken, most(taken), gathered, seconds)


def most(taken: dict[str, PassMemory]) -> float:
    return max((one.peak for one in taken.values()), default=0.0)


def scored_together(texts: Texts) -> Texts:
    """The longest texts that a reward model reads at a time."""
    order = sorted(range(len(texts)), key=lambda i: -texts.lengths[i])[:SCORED_TOGETHER]
    return Texts(tuple(texts.lengths[i] for i in order), tuple(texts.predicted[i] for i in order))


def scorer(models: Models) -> Scoring:
    assert models.reward is not None
    return models.reward


def shares_weights(models: Models) -> bool:
    """The reference is the policy with its adapters off."""
    return all(part.role != "reference" for part in models.frozen)


def buckets(setup: Setup, models: Models) -> float:
    """DDP copies gradients into buckets, which stay."""
    return sum(part.gradients for part in models.trained) if setup.strategy == "ddp" and setup.processes > 1 else 0.0


def gathered_whole(setup: Setup, models: Models) -> float:
    """FSDP2: the whole weights of what is trained while responses are drawn and read."""
    return sum(part.weights for part in models.trained) * (setup.shares - 1)


def in_training(setup: Setup, models: Models) -> float:
    """DDP's buckets; under FSDP2 the layer at work and the next one, with their gradients, brought together."""
    if setup.shares == 1 or models.policy is None:
        return buckets(setup, models)
    model = models.policy.policy.model
    output = model.get_output_embeddings()
    return 3 * largest_layer(model) + 2 * (output.weight.nbytes if output is not None else 0)


def output_of(models: Models) -> int:
    layer = models.policy.policy.model.get_output_embeddings() if models.policy else None
    return 0 if layer is None else layer.weight.numel()


def scoring_seconds(models: Models, clock: Clock, texts: Texts) -> float:
    passes = models.policy
    assert passes is not None
    spent = 2 * clock.read(passes.trunk.model, texts, output_of(models))
    spent += clock.read(passes.critic_trunk.model, texts) if passes.critic_trunk else 0.0
    return spent + (clock.read(models.reward.trunk.model, texts) if models.reward else 0.0)


def learned_seconds(models: Models, clock: Clock, texts: Texts) -> float:
    if models.policy is None:
        return clock.learned(scorer(models).trunk.model, texts)
    critic = models.policy.critic_trunk
    return clock.learned(models.policy.trunk.model, texts, output_of(models)) + (clock.learned(critic.model, texts) if critic else 0.0)
