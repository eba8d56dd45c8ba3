"""Feedback ready to learn from: standardised, numbered by prompt, annotator and aspect, and never all in memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from rlhf_lightning.feedback.standardise import unit_rating, z_scores
from rlhf_lightning.feedback.words import normalise_text
from rlhf_lightning.flow import Feedback, Prompt, Ranking, Rating, prompt_text

KINDS = ("rating", "pair", "ranking", "edit", "thumbs", "spans", "comment")
Text = tuple[Prompt, str]
"""A prompt and a response to it: what a reward model scores."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A feedback record with what standardising knows of it; the record is read from `source` when asked for.

    Attributes:
        z_score: a rating on a common scale; None for the other kinds.
        annotator, aspect: places in the lists of `Judgements`.
    """

    source: Sequence[Feedback]
    index: int
    z_score: float | None = None
    annotator: int = 0
    aspect: int = 0

    @property
    def feedback(self) -> Feedback:
        return self.source[self.index]


_COLUMNS = [("index", "i8"), ("prompt", "u8"), ("z_score", "f8"), ("annotator", "i4"), ("aspect", "i4"), ("kind", "i1")]


class Judgements(Sequence[Judged]):
    """Feedback ready to learn from. 33 bytes for each record; the records themselves stay where they are.

    Attributes:
        source: the feedback, which may be a file.
        rows: a numpy record for each judgement: index into `source`, prompt (`prompt_number`), z_score (NaN for none), annotator and
            aspect (indices), kind (index into KINDS).
        annotators, aspects: names by index; index 0 is None, nobody known and the response as a whole.
        by_text: judgements are independent by their texts, not by their prompts: some have no prompt, or all have the same one.
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
        at, _, z_score, annotator, aspect, kind = self.rows[index].item()
        return Judged(self.source, at, z_score if KINDS[kind] == "rating" else None, annotator, aspect)

    def select(self, chosen: np.ndarray[Any, Any] | slice) -> Judgements:
        """Those of a slice, a mask or of indices."""
        return Judgements(self.source, self.rows[chosen], self.annotators, self.aspects, self.by_text)

    @property
    def kinds(self) -> set[str]:
        return {KINDS[kind] for kind in np.unique(self.rows["kind"])}

    def texts(self) -> list[Text]:
        """Every distinct prompt with response, in the order in which they first come."""
        found: dict[Text, None] = {}
        for judged in self:
            feedback = judged.feedback
            found.update(((feedback.prompt, response), None) for response in feedback.responses)
        return list(found)


def standardised(feedback: Sequence[Feedback]) -> Judgements:
    """Every record of a weight above 0, ratings with their z-score within the annotator's own ratings of the aspect.

    The feedback is gone through once, one record at a time, and must not change afterwards.
    """
    columns = {name: array({"f8": "d", "u8": "Q", "i8": "q", "i4": "l", "i1": "b"}[dtype]) for name, dtype in _COLUMNS}
    annotators: dict[str | None, int] = {None: 0}
    aspects: dict[str | None, int] = {None: 0}
    units = array("d")
    for index, record in enumerate(feedback):
        if record.weight == 0:
            continue
        aspect = 0
        if isinstance(record.judgement, Rating):
            aspect = aspects.setdefault(record.judgement.aspect, len(aspects))
            units.append(unit_rating(record.judgement))
        columns["index"].append(index)
        columns["prompt"].append(prompt_number(record.prompt))
        columns["annotator"].append(annotators.setdefault(record.annotator, len(annotators)))
        columns["aspect"].append(aspect)
        columns["kind"].append(KINDS.index(judgement_kind(record)))
    rows = np.zeros(len(columns["index"]), dtype=_COLUMNS)
    for name in ("index", "prompt", "annotator", "aspect", "kind"):
        rows[name] = np.asarray(columns[name])
    rated = rows["kind"] == KINDS.index("rating")
    rows["z_score"] = np.nan
    rows["z_score"][rated] = z_scores(units, rows["annotator"][rated].tolist(), rows["aspect"][rated].tolist())
    return Judgements(feedback, rows, tuple(annotators), tuple(aspects))


def prompt_share(prompt: Prompt) -> float:
    """A stable number in [0, 1) from the prompt's text (a chat's as `flow.prompt_text`), blind to Unicode form, case and white space."""
    return prompt_number(prompt) / 2**64


def prompt_number(prompt: Prompt) -> int:
    """`prompt_share` as a whole number of 64 bits."""
    return int.from_bytes(hashlib.sha256(normalise_text(prompt_text(prompt)).encode()).digest()[:8], "big")


def judgement_kind(feedback: Feedback) -> str:
    """ "rating", "edit", "thumbs", "spans", "comment", "pair" (an order of two, or a tie) or "ranking" (of three or more)."""
    if isinstance(feedback.judgement, Ranking):
        return "pair" if len(feedback.responses) == 2 else "ranking"
    return feedback.judgement.kind
