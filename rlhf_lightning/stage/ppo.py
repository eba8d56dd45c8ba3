"""stage=ppo: tune the policy against a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.run import Run

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from rlhf_lightning.backbone.language_model import LanguageModel
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.rollout.scorer.scorer import Scorer


@register("stage", "ppo")
def ppo(run: Run) -> float:
    """Tune the backbone against rollout_scorer on the task's prompts; leaves the folder policy/. Returns the held-out mean score after."""
    check_combination(run)
    from rlhf_lightning.evaluation.figures import compared, metric_figures, ppo_curves, side_by_side
    from rlhf_lightning.stage.ending import end
    from rlhf_lightning.stage.evaluate import measured

    scorer = run.component("rollout_scorer")
    task = run.component("task")
    policy = run.language_model(corpus=run.corpus(task))
    reference = run.language_model(corpus=run.corpus(task))
    before = measured(run, task, policy, scorer, reference)
    module = train_ppo(run, policy, reference, scorer, task.train_prompts(), run.folder / "policy")
    after = measured(run, task, policy, scorer, reference)
    end(
        run,
        "PPO",
        figures=metric_figures(before, after),
        curves=ppo_curves({"": module.history}),
        samples=side_by_side(before, after, run.settings("evaluation").samples),
        results=compared(before, after),
    )
    run.say(f"policy: {run.folder / 'policy'}")
    return after.mean("score")


def check_combination(run: Run) -> None:
    """Refuse settings that don't go together, before any model loads.

    Raises:
        ConfigError: naming both settings.
    """
    settings, advantage = run.settings("ppo"), run.chosen("advantage")
    if "groups" in advantage.needs and settings.responses_per_prompt < 2:
        raise ConfigError(
            f"advantage={advantage.name} compares responses to one prompt: ppo.responses_per_prompt={settings.responses_per_prompt} "
            "must be at least 2"
        )
    responses = settings.prompts_per_update * settings.responses_per_prompt
    if responses < settings.minibatches:
        raise ConfigError(
            f"ppo.minibatches={settings.minibatches} is more than the {responses} responses of an update "
            "(ppo.prompts_per_update x ppo.responses_per_prompt)"
        )


def train_ppo(
    run: Run,
    policy: LanguageModel,
    reference: LanguageModel,
    scorer: Scorer,
    prompts: Sequence[str],
    folder: Path,
    name: str = "ppo",
) -> PPOModule:
    """Train the policy in place and save it as a plain Hugging Face folder."""
    import torch

    from rlhf_lightning.datamodule import ShardedData
    from rlhf_lightning.policy.model import Critic, Policy
    from rlhf_lightning.policy.module import PPOModule, PPOParts
    from rlhf_lightning.rollout.prompts import prompt_loader

    settings = run.settings("ppo")
    with run.timed("ppo"):
        torch.manual_seed(run.seed)
        critic = Critic(policy, settings.critic == "separate") if "values" in run.chosen("advantage").needs else None
        parts = PPOParts(
            sampler=run.component("rollout_sampler"),
            scorer=scorer,
            shapings=list(run.components("rollout_shaping").values()),
            advantage=run.component("advantage"),
            loss=run.component("policy_loss"),
            reduction=run.component("policy_reduction"),
            value_loss=run.component("policy_value_loss"),
            kl_control=run.component("policy_kl_control"),
        )
        module = PPOModule(Policy(policy, critic), Policy(reference), parts, settings)
        figures = {
            "objective/scores": "score",
            "objective/kl": "KL",
            "policy/entropy_avg": "entropy",
            "val/response_length": "length",
        }
        trainer = run.trainer(name, 1, settings.updates, figures)

        def loader(rank: int, world: int) -> DataLoader[Any]:
            updates, share = settings.updates, settings.prompts_per_update
            return prompt_loader(prompts, policy, updates, share, run.response_room, seed=run.seed, rank=rank, world=world)

        trainer.fit(module, ShardedData(loader))
        run.save(trainer, folder, policy.save)
    return module
