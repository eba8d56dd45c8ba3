"""stage=sft: warm the policy up on the task's demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._evaluation import check_demonstrations, split_demonstrations
from rlhf_lightning.stage._task import build_task

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from rlhf_lightning.interfaces import Demonstration, Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.sft.module import SFTModule
    from rlhf_lightning.stage._planned_run import PlannedRun


def check_combination(choices: ComposedConfig) -> None:
    """Refuse a command without what is trained or what it is trained on. Raises ConfigError."""
    choices.require("task", "backbone", "policy_tuning", "optimizer", "schedule")
    choices.run_checks("callback")
    check_demonstrations(choices)


@register("stage", "sft", check=check_combination)
def sft(run: Run) -> float:
    """Fine-tune the backbone on the task's demonstrations into policy/; returns the final loss."""
    from rlhf_lightning.report.policy import curve, evaluation_curves, mean_of_last
    from rlhf_lightning.stage._report import write_report

    notes: list[str] = []
    task = build_task(run, notes)
    demonstrations_of(task)  # refused before the model loads
    language_model = run.language_model(corpus=run.corpus(task))
    module = train_sft(run, task, language_model, run.folder / "policy")
    loss = mean_of_last(module.history, "sft/loss")
    curves = [curve("Loss", "step", "nats per token", {"loss": module.history}, "sft/loss"), *evaluation_curves({"": module.history})]
    write_report(run, "Supervised fine-tuning", results={"sft/loss": loss}, curves=curves, notes=notes)
    run.log(f"policy: {run.folder / 'policy'}")
    return loss


def train_sft(run: Run, task: Task, language_model: LanguageModel, folder: Path) -> SFTModule:
    """Train on the demonstrations, merge adapters, and save a plain Hugging Face folder.

    Raises:
        ConfigError: the task has no demonstrations.
    """
    from rlhf_lightning.model.adapters import merge_adapters
    from rlhf_lightning.stage._training import apply_tuning_for_sft

    demonstrations, held_out = split_demonstrations(run, demonstrations_of(task))
    module = fit_demonstrations(run, "sft", demonstrations, held_out, language_model, folder, tune=apply_tuning_for_sft)
    merge_adapters(language_model.model)
    return module


def fit_demonstrations(
    run: Run,
    name: str,
    demonstrations: Sequence[Demonstration],
    held_out: Sequence[Demonstration],
    language_model: LanguageModel,
    folder: Path,
    tune: Callable[[Run, LanguageModel], None] = lambda run, language_model: None,
) -> SFTModule:
    """Train on demonstrations and save a plain Hugging Face folder.

    Args:
        name: of the training, for logs and checkpoints.
        held_out: for evaluation.every; possibly empty.
        tune: chooses the trained weights.
    """
    from rlhf_lightning.sft.module import SFTModule, demonstration_loader
    from rlhf_lightning.sft.rows import conversation_of
    from rlhf_lightning.stage._report import save_policy
    from rlhf_lightning.stage._training import evaluated_size, train
    from rlhf_lightning.tokenization.chat_template import ensure_chat_template

    settings = run.settings("sft")
    ensure_chat_template(language_model.tokenizer, map(conversation_of, demonstrations))
    with run.time_stage("sft"):
        tune(run, language_model)
        skipped = demonstration_loader(demonstrations, language_model, settings, run.seed, 0, 1)[1]
        log_skipped(run, "sft", language_model, skipped, len(demonstrations))

        def loader(rank: int, world: int) -> DataLoader[Any]:
            micro = settings.micro_batch_size
            return demonstration_loader(demonstrations, language_model, settings, run.seed, rank, world, micro)[0]

        def held_out_loader(rank: int, world: int) -> DataLoader[Any]:
            return demonstration_loader(held_out, language_model, evaluated_size(settings, world), run.seed, rank, world)[0]

        def build(steps: int) -> SFTModule:
            return SFTModule(language_model, settings, steps)

        held_out_data = held_out_loader if held_out else None
        module, trainer = train(run, name, settings, loader, build, {"sft/loss": "loss"}, held_out_data)
        save_policy(run, trainer, folder, language_model)
    return module


def log_skipped(run: Run, name: str, language_model: LanguageModel, skipped: int, total: int) -> None:
    """Log how many demonstrations were too long, and which limit they exceed."""
    from rlhf_lightning.tokenization.encoding import length_limit

    limit = length_limit(run.settings("sft").max_length, language_model.max_length, "sft.max_length")
    if skipped:
        run.log(f"{name}: {skipped} of {total} demonstrations are longer than {limit.tokens} tokens and left out: {limit.remedy}")


def demonstrations_of(task: Task) -> list[Demonstration]:
    """The task's prompts with responses. Raises ConfigError where there are none."""
    demonstrations = task.demonstrations()
    if not demonstrations:
        raise ConfigError("the task has no demonstrations to learn from: with task=files give task.demonstrations=FILE.jsonl")
    return demonstrations


def rehearse(run: PlannedRun) -> Plan:
    """The phases of this stage, for stage=plan."""
    from rlhf_lightning.sft.module import demonstration_loader
    from rlhf_lightning.stage._training import apply_tuning_for_sft

    demonstrations = demonstrations_of(run.inputs.task)
    policy = run.language_model(corpus=run.inputs.corpus)
    apply_tuning_for_sft(run, policy)
    loader, _ = demonstration_loader(demonstrations, policy, run.settings("sft"), run.seed, 0, run.setup.world_size)
    job = run.policy_job(policy)
    return run.plan(job, job.supervised_phases(run.texts(loader)))
