"""The steps of a round: sample, judge, learn the reward, learn the policy, compare.

Each step is computed once and then read from the run's folder (rounds/ledger.py): a resumed run continues at the last finished one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import make
from rlhf_lightning.rounds import artefacts
from rlhf_lightning.rounds.artefacts import Group
from rlhf_lightning.rounds.ledger import START, Ledger
from rlhf_lightning.rounds.settings import RoundsSettings
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage import _restored
from rlhf_lightning.stage._round_feedback import load_feedback_so_far, split_feedback
from rlhf_lightning.stage._round_policy import LEARNERS
from rlhf_lightning.stage._sampling import sample_groups
from rlhf_lightning.stage._task import utility_of
from rlhf_lightning.stage.evaluate import evaluate_policy
from rlhf_lightning.stage.sft import train_sft

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured, MetricFunction
    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.interfaces import Annotator, Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.rollout.scoring import Scorer
    from rlhf_lightning.stage._reward_training import TrainedReward

ATTEMPT_STRIDE = 500
"""More rounds than a run has."""


@dataclass
class Loop:
    """The state of stage=rounds between its steps.

    Attributes:
        policy: trained in place. reference: the initial policy; the policy itself where its adapters are trained.
        watched: scorers that are logged during a policy's training and never learned from, by metric.
        extra_metrics: measured on held-out prompts beside the evaluation metrics, for the target.
        trunk: folder or Hub name of the base model of reward models.
        number: of the present round. rounds: the numbers of the rounds so far.
    """

    run: Run
    settings: RoundsSettings
    ledger: Ledger
    task: Task
    annotators: Annotator
    policy: LanguageModel
    reference: LanguageModel
    trunk: str
    watched: dict[str, Scorer]
    extra_metrics: dict[str, MetricFunction]
    notes: list[str]
    number: int = START
    rounds: list[int] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.run.folder / f"round_{self.number}"

    @property
    def sampling_number(self) -> int:
        """The number of the round, another one at each attempt of a round that is redone."""
        return self.number + ATTEMPT_STRIDE * (self.ledger.attempt(self.number) - 1)

    def begin(self, number: int) -> None:
        """Begin a round."""
        self.number = number
        self.rounds.append(number)


@dataclass
class LearnedReward:
    """The reward model of a round, its feedback, and the second model that only watches, if any."""

    intake: Intake
    trained: TrainedReward
    scorer: Scorer
    watching: Scorer | None = None


def warm_up(run: Run, ledger: Ledger, task: Task, policy: LanguageModel) -> str:
    """Fine-tune the policy on the task's demonstrations, if there are any.

    Returns the base model of reward models.
    """
    folder, path = run.folder / "sft", run.config.backbone.get("path")
    if path is not None and not task.demonstrations():
        run.log("the task has no demonstrations: the backbone is the initial policy")
        return str(path)
    entry = _restored.saved_training(run, ledger, START, "sft")
    if entry is None:
        train_sft(run, task, policy, folder)
        ledger.commit(START, "sft", **_restored.training_record(run, "sft"), models={"sft": artefacts.weight_hashes(folder)})
    else:
        artefacts.load_weights(policy, folder)
    return str(folder)


def measure_start(loop: Loop) -> Measured:
    """Measure the initial policy on the held-out prompts."""
    path = loop.run.folder / artefacts.MEASURED
    if loop.ledger.entry(START, "evaluated") is not None:
        return artefacts.read_measured(path)
    measured = evaluate_policy(loop.run, loop.task, loop.reference, None, extra=loop.extra_metrics)
    if loop.run.is_rank_zero:
        artefacts.write_measured(path, measured)
    loop.ledger.commit(START, "evaluated", metrics=measured.means())
    return measured


def sample(loop: Loop) -> list[Group]:
    """Sample responses to the round's prompts."""
    path = loop.folder / artefacts.SAMPLES

    def compute() -> dict[str, Any]:
        settings = loop.settings
        groups = sample_groups(loop.run, loop.task, loop.policy, settings.prompts, settings.responses, loop.sampling_number)
        artefacts.write_groups(path, groups)
        return {"prompts": len(groups), "responses": sum(len(group.responses) for group in groups)}

    with loop.run.time_stage("collect"):
        loop.ledger.do(loop.number, "sampled", compute)
    return artefacts.read_groups(path)


def judge(loop: Loop, questions: list[Group]) -> None:
    """Let the annotators judge the questions, and write their feedback.

    Raises:
        ConfigError: there is no feedback.
    """

    def compute() -> dict[str, Any]:
        groups = [(group.prompt, list(group.responses)) for group in questions]
        feedback = loop.annotators.judge(groups, number=loop.sampling_number)
        if not feedback:
            raise ConfigError(
                f"round {loop.number}: no feedback: the annotators judge nothing (feedback_annotator), or all samples are empty"
            )
        artefacts.write_feedback(loop.folder / artefacts.FEEDBACK, artefacts.with_selection(feedback, questions))
        kinds = artefacts.counts(feedback)
        return {
            "judgements": len(feedback),
            "kinds": kinds,
            **artefacts.effort(feedback, loop.annotators),
        }

    with loop.run.time_stage("collect"):
        loop.ledger.do(loop.number, "judged", compute)


def learn_reward(loop: Loop) -> LearnedReward:
    """Train the reward model on the feedback of all rounds so far, or read the one that was trained."""
    from rlhf_lightning.stage._reward_training import train_reward

    run, number, folder = loop.run, loop.number, loop.folder / "reward_model"
    intake = load_feedback_so_far(run, loop.rounds, loop.settings.age_decay)
    learned, watched = split_feedback(intake.feedback, loop.settings.watched_feedback)
    earlier = [run.folder / f"round_{n}" / "reward_model" for n in loop.rounds[:-1]] if loop.settings.warm_reward else []
    warm = earlier[-1] if earlier else None
    saved = _restored.saved_training(run, loop.ledger, number, "reward")
    trained = train_reward(
        run, learned, loop.trunk if warm is None else str(warm), folder, f"reward {number}", utility_of(loop.task), saved,
        is_warm=warm is not None,
    )  # fmt: skip
    watching = None
    if watched:
        path = loop.folder / "watching_model"
        name = f"reward {number} watching"
        train_reward(run, watched, loop.trunk, path, name, saved=saved)
        watching = make("rollout_scorer", "reward_model", {"path": str(path)})
    if saved is None:
        models = {model: artefacts.weight_hashes(loop.folder / model) for model in ("reward_model", "watching_model")}
        accuracy = trained.measured.accuracy.get("all")
        record = _restored.training_record(run, f"reward {number}") | {"accuracy": None if accuracy is None else accuracy.mean}
        loop.ledger.commit(number, "reward", **record, warning=trained.warning, models=models)
    return LearnedReward(intake, trained, make("rollout_scorer", "reward_model", {"path": str(folder)}), watching)


def learn_policy(loop: Loop, samples: list[Group], reward: LearnedReward) -> list[dict[str, float]]:
    """Train the policy by stage.train, or read it; returns the metrics of every step."""
    run, folder, adapters = loop.run, loop.folder / "policy", loop.folder / artefacts.ADAPTERS
    saved = _restored.saved_training(run, loop.ledger, loop.number, "policy")
    if saved is not None:
        artefacts.load_weights(loop.policy, folder, adapters)
        _restored.restore_card(run, folder, loop.policy)
        history: list[dict[str, float]] = artefacts.read_json(loop.folder / artefacts.HISTORY)
        return history
    history = LEARNERS[loop.settings.train](loop, samples, reward)
    if run.is_rank_zero:
        artefacts.save_adapters(loop.policy, adapters)
        artefacts.write_json(loop.folder / artefacts.HISTORY, history)
    record = _restored.training_record(run, policy_training(loop))
    loop.ledger.commit(loop.number, "policy", **record, models={"policy": artefacts.weight_hashes(folder)})
    return history


def policy_training(loop: Loop) -> str:
    """The name of the present round's policy training, for logs and checkpoints."""
    return f"{'sft' if loop.settings.train == 'sft_best' else loop.settings.train} {loop.number}"
