"""stage=ppo: tune the policy against a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.registry import component_of, make, register
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._ppo_checks import check_ppo
from rlhf_lightning.stage._task import build_task
from rlhf_lightning.stage.sft import demonstrations_of, log_skipped

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.policy.experience import PPOComponents, Shaping
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.policy.objective import KLPenalty
    from rlhf_lightning.rollout.scoring import Scorer
    from rlhf_lightning.stage._planned_run import PlannedRun

PROGRESS_METRICS = {"objective/scores": "score", "objective/kl": "KL", "policy/entropy_avg": "entropy", "val/response_length": "length"}
"""Metrics of the progress bar, and their labels."""


@register("stage", "ppo", check=check_ppo)
def ppo(run: Run) -> float:
    """Tune the backbone against rollout_scorer on the task's prompts.

    Writes the folder policy/. Returns the mean score on held-out prompts after training.
    """
    from rlhf_lightning.evaluation.measure import score_doubts
    from rlhf_lightning.policy.alarms import alarm_notes
    from rlhf_lightning.report.policy import policy_metrics, ppo_curves, result_metrics, side_by_side
    from rlhf_lightning.stage._evaluation import evaluate_trained
    from rlhf_lightning.stage._report import write_report
    from rlhf_lightning.stage._task import critic_prompts, fitting_task
    from rlhf_lightning.stage._training import prepare_policy_and_reference
    from rlhf_lightning.stage.evaluate import build_scorer, evaluate_policy

    task = build_task(run)
    scorer = build_scorer(run, task)
    if run.settings("ppo").ptx_coef:
        demonstrations_of(task)  # raises before the model loads
    held_out = held_out_scorers(run, task, scorer)
    corpus = run.corpus(task)
    policy = run.language_model(corpus=corpus)
    notes: list[str] = []
    task = fitting_task(run, task, policy, *critic_prompts(run, policy, scorer), notes=notes)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    before = evaluate_policy(run, task, policy, scorer)
    module = train_ppo(run, policy, reference, scorer, task, run.folder / "policy", held_out)
    after = evaluate_trained(run, "ppo", before, task, policy, scorer, reference)
    write_report(
        run,
        "PPO",
        metrics=policy_metrics(before, after),
        curves=ppo_curves({"": module.history}),
        samples=side_by_side(before, after, run.settings("evaluation").samples),
        notes=[*notes, *score_doubts(after), *alarm_notes({"": module.history})],
        results=result_metrics(before, after),
    )
    run.log(f"policy: {run.folder / 'policy'}")
    return after.mean("score")


def held_out_scorers(run: Run, task: Task, scorer: Scorer | None = None) -> dict[str, Scorer]:
    """Scorers for monitoring, by metric: a held-out scorer or held-out tests, and the task's utility."""
    from functools import partial

    from rlhf_lightning.evaluation.metric.utility import utility
    from rlhf_lightning.policy.metrics import HELD_OUT_SCORES
    from rlhf_lightning.rollout.scoring import parts_with

    path = run.settings("ppo").held_out_scorer
    scorers: dict[str, Scorer] = {}
    for part in parts_with(scorer, "held_out").values():
        scorers[HELD_OUT_SCORES] = part.held_out
    if path:
        scorers[HELD_OUT_SCORES] = make("rollout_scorer", "reward_model", {"path": path})
    if task.has_utility:
        scorers["objective/utility"] = partial(utility, task)
    return scorers


def train_ppo(
    run: Run,
    policy: LanguageModel,
    reference: LanguageModel,
    scorer: Scorer,
    task: Task,
    folder: Path,
    held_out: Mapping[str, Scorer],
    name: str = "ppo",
    starts_at_reference: bool = True,
    stop_alarms: Sequence[str] = (),
) -> PPOModule:
    """Train the policy in place and save it as a plain Hugging Face folder.

    Args:
        reference: the policy itself if its adapters are trained, else a copy of its start.
        held_out: scorers for monitoring, by the metric of their mean score.
        starts_at_reference: whether policy and reference are equal now.
        stop_alarms: names of alarms (policy/alarms.py) that end the training.
    """
    import torch

    from rlhf_lightning.policy.model import Policy, reference_policy
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.rollout.prompts import prompt_loader
    from rlhf_lightning.stage._evaluation import policy_evaluation
    from rlhf_lightning.stage._report import save_policy
    from rlhf_lightning.training.datamodule import ShardedData

    settings = run.settings("ppo")
    with run.time_stage("ppo"):
        torch.manual_seed(run.seed)
        critic = run.build("policy_critic")(policy, scorer) if "values" in run.component_of("advantage").needs else None
        components = ppo_components(run, scorer, held_out, starts_at_reference, ptx_loader(run, task, policy), stop_alarms)
        module = PPOModule(Policy(policy, critic), reference_policy(policy, reference), components, settings, run.seed)
        trainer = run.trainer(name, 1, settings.updates, PROGRESS_METRICS)

        def loader(rank: int, world: int) -> DataLoader[Any]:
            prompts, batch_size = task.train_prompts(), settings.prompts_per_update
            return prompt_loader(
                prompts, policy, settings.updates, batch_size, run.max_response_tokens, seed=run.seed, rank=rank, world=world
            )

        run.fit(name, trainer, module, ShardedData(loader), policy_evaluation(run, task, module))
        save_policy(run, trainer, folder, policy)
    return module


def ptx_loader(run: Run, task: Task, policy: LanguageModel) -> Callable[[int, int], DataLoader[Any]] | None:
    """Make the loader of (rank, world) of the ptx loss's demonstrations; None without ppo.ptx_coef."""
    from rlhf_lightning.sft.module import demonstration_loader

    if not run.settings("ppo").ptx_coef:
        return None
    demonstrations = demonstrations_of(task)
    _, skipped = demonstration_loader(demonstrations, policy, run.settings("sft"), run.seed, 0, 1)
    log_skipped(run, "ppo.ptx_coef", policy, skipped, len(demonstrations))
    return lambda rank, world: demonstration_loader(demonstrations, policy, run.settings("sft"), run.seed, rank, world)[0]


def ppo_components(
    run: Run,
    scorer: Scorer,
    held_out: Mapping[str, Scorer],
    starts_at_reference: bool,
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None,
    stop_alarms: Sequence[str] = (),
) -> PPOComponents:
    """Build the components of an iteration from the configuration."""
    from rlhf_lightning.policy.experience import PPOComponents
    from rlhf_lightning.policy.objective import objective

    has_correction = bool(run.config.get("policy_correction"))
    correction = run.build("policy_correction") if has_correction else None
    kl_penalty = run.build("policy_kl")
    stop_strings = tuple(run.config.rollout_sampler.get("stop_strings") or ())
    greedy = {"max_new_tokens": run.max_response_tokens, "temperature": 0.0, "stop_strings": stop_strings}
    return PPOComponents(
        sampler=run.build("rollout_sampler"),
        scorer=scorer,
        shapings=reward_shapings(run, kl_penalty),
        advantage=run.build("advantage"),
        loss=objective(run.build("policy_loss"), correction, kl_penalty.per_token_loss),
        reduction=run.build("policy_reduction"),
        value_loss=run.build("policy_value_loss"),
        kl_control=run.build("policy_kl_control"),
        held_out=held_out,
        starts_at_reference=starts_at_reference,
        has_correction=has_correction,
        demonstrations=demonstrations,
        greedy=make("rollout_sampler", "native", greedy) if "greedy" in run.component_of("advantage").needs else None,
        stop_alarms=stop_alarms,
        log=run.log,
    )


def reward_shapings(run: Run, kl_penalty: KLPenalty) -> list[Shaping]:
    """The shapings in order, with the KL penalty before those that need complete rewards (whitening)."""
    shapings: list[Shaping] = list(run.build_all("rollout_shaping").values())
    nodes = (run.config.get("rollout_shaping") or {}).values()
    position = next((i for i, node in enumerate(nodes) if "rewards" in component_of(node).needs), len(shapings))
    return [*shapings[:position], kl_penalty.shape_rewards, *shapings[position:]]


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan."""
    return rehearse_with_scorer(run, run.scorer_trunk())


def rehearse_with_scorer(run: PlannedRun, scorer: Any) -> Plan:
    """The phases of PPO.

    Args:
        scorer: the trunk of the reward model; None for a scorer without one.
    """
    from rlhf_lightning.stage._training import prepare_policy_and_reference

    corpus = run.inputs.corpus
    policy = run.language_model(corpus=corpus)
    reference = prepare_policy_and_reference(run, policy, lambda: run.language_model(corpus=corpus))
    critic = run.critic(policy, scorer) if "values" in run.component_of("advantage").needs else None
    job = run.policy_job(policy, reference, critic, scorer)
    return run.plan(job, job.ppo_phases(run.settings("ppo"), run.generation(policy), run.settings("evaluation")))
