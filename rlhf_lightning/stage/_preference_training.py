"""Training of a policy on preferences, for stage=preference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.feedback.split import Split
from rlhf_lightning.interfaces import Task
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.preference.examples import (
    Examples,
    TextTable,
    compared_examples,
    count_unused,
    preference_loader,
    thumbed_examples,
)
from rlhf_lightning.preference.implicit_reward import HeldOutRatios, ImplicitReward, fitting_judgements
from rlhf_lightning.preference.module import PreferenceModule
from rlhf_lightning.reward.evaluation.held_out import HeldOut
from rlhf_lightning.reward.evaluation.measure import measure_held_out
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import train_val_split, with_weights
from rlhf_lightning.stage._report import save_policy
from rlhf_lightning.stage._task import utility_of
from rlhf_lightning.stage._training import evaluated_size, on_device, train
from rlhf_lightning.tokenization.chat_template import ensure_chat_template
from rlhf_lightning.tokenization.encoding import LengthLimit, length_limit

METRICS = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}


@dataclass
class TrainedPreference:
    """The history of a training, its metrics on held-out feedback, and notes for the report."""

    history: list[dict[str, float]]
    held_out: HeldOut
    ratios: HeldOutRatios | None
    notes: list[str]


def train_preference(run: Run, intake: Intake, policy: LanguageModel, folder: Path, task: Task | None, name: str) -> TrainedPreference:
    """Train the policy in place on most prompts' judgements, and save a plain Hugging Face folder.

    Its implicit rewards are measured on the judgements of the other prompts.

    Args:
        task: of the feedback's prompts, if it is known: the length bias is then measured at equal utility.
        name: of the training, for logs and checkpoints.

    Raises:
        ConfigError: an encoder-decoder, too little feedback to hold some out, or nothing that the loss learns from.
    """
    if policy.decoder_prefix is not None:
        raise ConfigError("stage=preference takes decoder-only models yet: choose backbone=causal, or stage=ppo for this backbone")
    settings, loss = run.settings("preference"), run.build("preference_loss")
    division = train_val_split(standardise(with_weights(run, intake.feedback)), settings.validation_fraction, "preference")
    with run.time_stage("preference"):
        # Tokenise the texts that the loss compares, and those of the held-out judgements.
        ensure_chat_template(policy.tokenizer, (record.prompt for record in intake.feedback))
        limit = length_limit(settings.max_length, policy.max_length, "preference.max_length")
        table = TextTable(policy.tokenizer, limit.tokens, policy.eos_ids)
        examples = build_examples(run, division.training, table, limit)
        held_out, held_out_rows = fitting_judgements(division.held_out, table)
        needs_reference = "reference" in run.component_of("preference_loss").needs
        reference_rows = np.union1d(examples.text_rows() if needs_reference else [], held_out_rows).astype(int)
        evaluated = None if run.settings("evaluation").every is None else build_examples(run, division.held_out, table, limit)
        evaluated_rows: Any = evaluated.text_rows() if evaluated is not None and needs_reference else []
        notes = log_unused(run, division, examples, limit, len(division.held_out) - len(held_out), table.rewritten)

        # Train.
        def loader(rank: int, world: int) -> DataLoader[Any]:
            return preference_loader(examples, table, settings.batch_size, run.seed, rank, world, settings.micro_batch_size)

        def build(steps: int) -> PreferenceModule:
            return PreferenceModule(policy, loss, settings, steps, table, reference_rows, evaluated_rows)

        def held_out_loader(rank: int, world: int) -> DataLoader[Any]:
            assert evaluated is not None
            return preference_loader(evaluated, table, evaluated_size(settings, world).batch_size, run.seed, rank, world)

        module, trainer = train(run, name, settings, loader, build, METRICS, None if evaluated is None else held_out_loader)
        # Measure on the held-out judgements.
        assert module.reference is not None
        policy.model.eval()
        with on_device(trainer.strategy.root_device, policy.model):
            implicit = ImplicitReward(policy, loss, table, module.reference, held_out_rows)
            utility = None if task is None else utility_of(task)
            measured, ratios = measure_held_out(implicit, held_out, truth=utility), implicit.ratios(held_out)
        save_policy(run, trainer, folder, policy)
    return TrainedPreference(module.history, measured, ratios, notes)


def build_examples(run: Run, judged: Judgements, table: TextTable, limit: LengthLimit) -> Examples:
    """The comparisons or thumbs that the loss learns from. Raises ConfigError if there are none."""
    settings = run.settings("preference")
    if "thumbs" in run.component_of("preference_loss").needs:
        examples = thumbed_examples(judged, table, takes_pairs(run), settings.min_rating_gap, run.seed)
    else:
        examples = compared_examples(judged, table, settings.min_rating_gap)
    if not len(examples):
        cause = "no ranking or edit prefers a text, and no annotator rated two responses to one prompt differently"
        if examples.left_out:
            cause = f"{examples.left_out} are longer than {limit.tokens} tokens: {limit.remedy}"
        raise ConfigError(f"preference_loss={run.component_of('preference_loss').name} finds nothing to learn from: {cause}")
    return examples


def takes_pairs(run: Run) -> bool:
    """True if a loss on thumbs learns from comparisons too."""
    return bool(getattr(run.build("preference_loss"), "from_pairs", False))


def log_unused(run: Run, division: Split, examples: Examples, limit: LengthLimit, unmeasured: int, rewritten: int) -> list[str]:
    """Log, and return as notes for the report, the feedback that the policy doesn't learn from.

    Args:
        unmeasured: held-out judgements of texts that are too long.
        rewritten: responses of which the chat template drops a part.
    """
    name, notes = run.component_of("preference_loss").name, [division.note] if division.note else []
    thumbs = "thumbs" in run.component_of("preference_loss").needs
    unused = count_unused(division.training, thumbs, takes_pairs(run))
    if unused:
        counts = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(unused.items()))
        notes.append(f"preference_loss={name} doesn't learn from {counts}")
    if examples.left_out:
        notes.append(f"{examples.left_out} judgements have a text of more than {limit.tokens} tokens and are left out: {limit.remedy}")
    if unmeasured:
        notes.append(f"{unmeasured} held-out judgements have a text of more than {limit.tokens} tokens and are not measured")
    if rewritten:
        notes.append(f"the chat template drops a part of {rewritten} responses (such as their thoughts), which is not learned")
    if thumbs and len(set(examples.prompt.tolist())) == 1:
        notes.append("all thumbs are on one prompt, so that the KL of preference_loss=kto is estimated on that prompt's own responses")
    for note in notes:
        run.log(f"preference: {note}")
    return notes
