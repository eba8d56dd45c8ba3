"""Standardised feedback for training, indexed by prompt, annotator and aspect; records stay on disk."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from rlhf_lightning.feedback.standardise import unit_rating, z_scores
from rlhf_lightning.feedback.words import normalise_text
from rlhf_lightning.flow import Feedback, Prompt, Ranking, Rating, Skip, prompt_text

KINDS = ("rating", "pair", "ranking", "edit", "thumbs", "spans", "comment")
PromptResponse = tuple[Prompt, str]
"""A prompt and a response to it: what a reward model scores."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A standardised feedback record, read from `source` on access.

    Attributes:
        z_score: a rating on a common scale; None for the other kinds.
        annotator, aspect: indices into the lists of `Judgements`.
    """

    source: Sequence[Feedback]
    index: int
    z_score: float | None = None
    annotator: int = 0
    aspect: int = 0

    @property
    def feedback(self) -> Feedback:
        return self.source[self.index]


_COLUMNS = [("index", "i8"), ("prompt", "u8"), ("z_score", "f8"), ("annotator", "i4"), ("aspect", "i4"), ("kind", "i1"), ("selected", "i1")]


class Judgements(Sequence[Judged]):
    """Standardised feedback: 34 bytes for each record, the records stay in their source.

    Attributes:
        source: the feedback, possibly a file.
        rows: a numpy record for each judgement: index into `source`, prompt (`prompt_number`), z_score (NaN for none), annotator and
            aspect (indices), kind (index into KINDS), selected (1 if an option of feedback_selection other than random chose the question).
        annotators, aspects: names by index; index 0 is None, an unknown annotator and the response as a whole.
        by_text: judgements are independent by text instead of by prompt: some have no prompt, or all have the same one.
    """

    def __init__(
        self,
        source: Sequence[Feedback],
        rows: np.ndarray[Any, Any],
        annotators: Sequence[str | None],
        aspects: Sequence[str | None],
        by_text: bool = False,
    ) -> None:
        self.source, self.rows, self.annotators, self.aspects, self.by_text = source, rows, annotators, aspects, by_text

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Judged: ...
    @overload
    def __getitem__(self, index: slice) -> Judgements: ...
    def __getitem__(self, index: int | slice) -> Judged | Judgements:
        if isinstance(index, slice):
            return self.select(index)
        source_index, _, z_score, annotator, aspect, kind, _ = self.rows[index].item()
        return Judged(self.source, source_index, z_score if KINDS[kind] == "rating" else None, annotator, aspect)

    def select(self, rows_chosen: np.ndarray[Any, Any] | slice) -> Judgements:
        """Select judgements by slice, mask or indices."""
        return Judgements(self.source, self.rows[rows_chosen], self.annotators, self.aspects, self.by_text)

    def uniform_part(self) -> Judgements:
        """The judgements of questions drawn at random, which measure a model without bias; all if none is."""
        uniform = self.rows["selected"] == 0
        return self if uniform.all() or not uniform.any() else self.select(uniform)

    @property
    def kinds(self) -> set[str]:
        return {KINDS[kind] for kind in np.unique(self.rows["kind"])}

    def texts(self) -> list[PromptResponse]:
        """Return the distinct pairs of prompt and response, by first occurrence."""
        texts: dict[PromptResponse, None] = {}
        for judged in self:
            feedback = judged.feedback
            texts.update(((feedback.prompt, response), None) for response in feedback.responses)
        return list(texts)


def standardise(feedback: Sequence[Feedback]) -> Judgements:
    """Index the records, but skips and those of weight 0, and standardise their ratings (`z_scores`).

    The feedback is iterated once, one record at a time, and must not change afterwards.
    """
    columns = {name: array({"f8": "d", "u8": "Q", "i8": "q", "i4": "l", "i1": "b"}[dtype]) for name, dtype in _COLUMNS}
    annotators: dict[str | None, int] = {None: 0}
    aspects: dict[str | None, int] = {None: 0}
    unit_ratings = array("d")
    for index, record in enumerate(feedback):
        if record.weight == 0 or isinstance(record.judgement, Skip):
            continue
        aspect = 0
        if isinstance(record.judgement, Rating):
            aspect = aspects.setdefault(record.judgement.aspect, len(aspects))
            unit_ratings.append(unit_rating(record.judgement))
        columns["index"].append(index)
        columns["prompt"].append(prompt_number(record.prompt))
        columns["annotator"].append(annotators.setdefault(record.annotator, len(annotators)))
        columns["aspect"].append(aspect)
        columns["kind"].append(KINDS.index(judgement_kind(record)))
        columns["selected"].append(not is_uniform(record))
    rows = np.zeros(len(columns["index"]), dtype=_COLUMNS)
    for name in ("index", "prompt", "annotator", "aspect", "kind", "selected"):
        rows[name] = np.asarray(columns[name])
    rated = rows["kind"] == KINDS.index("rating")
    rows["z_score"] = np.nan
    rows["z_score"][rated] = z_scores(unit_ratings, rows["annotator"][rated].tolist(), rows["aspect"][rated].tolist())
    return Judgements(feedback, rows, tuple(annotators), tuple(aspects))


def is_uniform(record: Feedback) -> bool:
    """True if the question was drawn at random, or no selection is recorded."""
    return record.selected_by in (None, "random")


def prompt_share(prompt: Prompt) -> float:
    """Hash the prompt's `flow.prompt_text` to [0, 1), ignoring Unicode form, case and white space."""
    return prompt_number(prompt) / 2**64


def prompt_number(prompt: Prompt) -> int:
    """Hash the prompt's normalised text to 64 bits."""
    return int.from_bytes(hashlib.sha256(normalise_text(prompt_text(prompt)).encode()).digest()[:8], "big")


def judgement_kind(feedback: Feedback) -> str:
    """Return the judgement's kind; a ranking of two is a "pair"."""
    if isinstance(feedback.judgement, Ranking):
        return "pair" if len(feedback.responses) == 2 else "ranking"
    return feedback.judgement.kind
