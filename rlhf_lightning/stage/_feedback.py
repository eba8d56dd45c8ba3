"""The feedback of a command: read, filtered, weighted and split."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.feedback.reading import NoFormatFits
from rlhf_lightning.registry import component_of, components
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.feedback.judgements import Judgements
    from rlhf_lightning.feedback.split import Split
    from rlhf_lightning.flow import Feedback, Prompt


def load_feedback(run: Run, tokenizers: Sequence[str] = ()) -> Intake:
    """Read and clean the feedback of the command's sources into feedback.jsonl of the run's folder.

    Args:
        tokenizers: folders or Hub names of the models that will read the chats: a row whose chat one of their templates rejects is bad.

    Raises:
        ConfigError: no source was chosen.
        DataError: bad lines, or nothing left after cleaning.
    """
    sources = run.build_all("feedback_source")
    if not sources:
        names = ", ".join(component.name for component in components("feedback_source"))
        raise ConfigError(
            "this command chooses no feedback_source and needs one: add `feedback_source=... feedback_source.NAME.path=...`; "
            f"there are: {names}"
        )
    rows = chain.from_iterable(source() for source in sources.values())
    try:
        return ingest(run, rows, list(run.build_all("feedback_format").values()), check=chat_check(tokenizers))
    except NoFormatFits as error:
        raise DataError(f"{error}{propose_for(run)}") from error


def propose_for(run: Run) -> str:
    """Lines for an error message on what the command's files look like."""
    from rlhf_lightning.feedback.proposal.propose import propose

    lines = []
    for node in run.config.feedback_source.values():
        paths = node.get("path", ())
        for path in [paths] if isinstance(paths, str) else paths:
            with contextlib.suppress(UserError):
                proposals = propose(path)[1]
                lines += [f"\n`rlhf-lightning look {path}` proposes: {shlex.join(proposals[0].overrides)}"] if proposals else []
    return "".join(lines)


def chat_check(paths: Sequence[str]) -> Callable[[Feedback], None]:
    """Build a check that raises DataError for a judged chat that a model's chat template rejects.

    Their tokenizers are loaded at the first chat; texts need none.
    """

    @functools.cache
    def tokenizers() -> list[PreTrainedTokenizerBase]:
        from rlhf_lightning.model.loading import load_tokenizer

        return [load_tokenizer(path) for path in paths]

    @functools.lru_cache(maxsize=256)
    def render(prompt: Prompt) -> None:
        from rlhf_lightning.tokenization.chat_template import prompt_ids

        for tokenizer in tokenizers():
            prompt_ids(tokenizer, prompt)

    def check(record: Feedback) -> None:
        if not isinstance(record.prompt, str) and record.judgement.kind != "skip":
            render(record.prompt)

    return check


def ingest(
    run: Run,
    rows: Iterable[Any],
    formats: Sequence[Any],
    file: str = "feedback.jsonl",
    check: Callable[[Feedback], None] | None = None,
) -> Intake:
    """Read rows into a file of clean feedback in the run's folder, one record at a time in memory."""
    from rlhf_lightning.feedback.intake import ingest
    from rlhf_lightning.feedback.reading import Reader
    from rlhf_lightning.feedback.store import FeedbackFile

    settings = run.settings("feedback")
    reader = Reader(
        rows, formats, on_bad=settings.on_bad, quarantine=run.folder / "quarantine.jsonl", max_bad_fraction=settings.max_bad_fraction,
        check=check,
    )  # fmt: skip
    on_all_records = [name for name, node in (run.config.get("feedback_filter") or {}).items() if "all_records" in component_of(node).needs]
    # Under several processes each reads for itself; the first one's file stays.
    store = partial(FeedbackFile.write, path=run.folder / file, keep=run.is_rank_zero)
    between = partial(FeedbackFile.write, path=run.folder / f"{file}.filtering", keep=False)
    return ingest(reader, run.build_all("feedback_filter"), on_all_records, store, between)


def backbone_tokenizer(run: Run) -> list[str]:
    """The backbone's path, where it has one: a tokenizer made on the spot has no chat template."""
    node = run.config.get("backbone")
    return [str(node.path)] if node and "path" in node else []


def with_weights(run: Run, feedback: Sequence[Feedback]) -> Sequence[Feedback]:
    """Weight the feedback by annotator as configured, with comments as weak ratings."""
    from rlhf_lightning.feedback.quality.reliability import annotator_weights
    from rlhf_lightning.feedback.store import WeightedFeedback

    settings = run.settings("feedback")
    weights = annotator_weights(feedback) if settings.annotator_weights == "reliability" else {}
    return WeightedFeedback(feedback, weights, run.build("feedback_comment"), settings.comment_weight)


def log_counts(run: Run, intake: Intake) -> None:
    """Log how many judgements of each kind there are."""
    run.log(f"{sum(intake.remaining.values())} judgements: {', '.join(f'{n} {kind}' for kind, n in sorted(intake.remaining.items()))}")


def train_val_split(judged: Judgements, fraction: float, section: str = "reward") -> Split:
    """Split off a held-out part that shares no prompt, or no text, with the training part.

    Raises:
        ConfigError: one of the parts would be empty.
    """
    from rlhf_lightning.feedback.split import split_judgements

    division = split_judgements(judged, fraction)
    if not division.training or not division.held_out:
        raise ConfigError(
            f"{len(judged)} judgements are too few, or share too many texts, to learn from some and hold others out: give feedback on more "
            f"prompts or texts, or change {section}.validation_fraction={fraction:g}"
        )
    return division
