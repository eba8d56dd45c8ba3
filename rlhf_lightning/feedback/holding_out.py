"""Divide judgements into some to learn from and some held out, with no prompt on both sides, or no text where prompts can't be divided."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlhf_lightning.feedback.judgements import Judgements, prompt_number

TRAINING, HELD_OUT, LEFT_OUT = 0, 1, -1
LARGEST_EXCESS = 2.0
"""Times the wanted fraction: texts are divided by their own numbers unless more judgements than this would be held out."""


@dataclass(frozen=True)
class Division:
    """Judgements to learn from and held out.

    Attributes:
        by: what no text of one side shares with the other: its prompt, or the text itself.
        note: for the log, the report and the model card; empty where all is divided by prompt.
        left_out: judgements that compare a text of one side with a text of the other.
    """

    training: Judgements
    held_out: Judgements
    by: Literal["prompt", "text"] = "prompt"
    note: str = ""
    left_out: int = 0


def divide(judged: Judgements, fraction: float) -> Division:
    """Hold out about `fraction` of the prompts, or of the texts where there are no prompts or too few to divide.

    A prompt's side depends on its text alone. Texts that were judged together are on one side: connected components, whose side depends on
    their texts alone where that holds out about the fraction, else the smallest are filled up to it. Where one component is too large,
    its texts are divided, and judgements of texts on both sides are left out. One side may be empty: a single judgement, say.
    """
    without_prompt = judged.rows["prompt"] == np.uint64(prompt_number(""))
    if not without_prompt.all():
        sides = (judged.rows["prompt"] / 2.0**64 < fraction).astype(np.int8)
        texts = Texts.of(judged.select(without_prompt)) if without_prompt.any() else None
        groups = judged.rows["prompt"].copy()
        if texts is not None:
            sides[without_prompt], groups[without_prompt] = texts.sides(fraction), texts.groups
        if (sides == TRAINING).any() and (sides == HELD_OUT).any():
            note = "" if texts is None else f"{without_prompt.sum()} judgements without a prompt are held out by text, the others by prompt"
            return _division(judged, sides, groups, "prompt", note)
    texts = Texts.of(judged)
    sides = texts.sides(fraction)
    prompts = len(np.unique(judged.rows["prompt"]))
    why = "without a prompt" if without_prompt.all() else f"on {prompts} prompt{'s, too few to divide' if prompts > 1 else ''}"
    counts = [len(np.unique(texts.ids[np.isin(texts.record, np.flatnonzero(sides == side))])) for side in (TRAINING, HELD_OUT)]
    note = (
        f"the {len(judged)} judgements are {why}: held out by text, {counts[0]} texts to learn from and {counts[1]} held out, none on both "
        "sides"
    )
    return _division(judged, sides, texts.groups, "text", note)


def _division(judged: Judgements, sides: np.ndarray, groups: np.ndarray, by: Literal["prompt", "text"], note: str) -> Division:
    """The two sides. Training judgements without a prompt are batched by their texts, not as if they were on one prompt."""
    training = judged.select(sides == TRAINING)
    training.rows["prompt"] = groups[sides == TRAINING]
    held_out = judged.select(sides == HELD_OUT)
    training.by_text = held_out.by_text = bool(note)
    left_out = int((sides == LEFT_OUT).sum())
    if left_out:
        note += f"; {left_out} judgements compare a text of one side with one of the other and are left out"
    return Division(training, held_out, by, note, left_out)


@dataclass(frozen=True)
class Texts:
    """The responses of J judgements as numbers, and the connected components of those that were judged together.

    Attributes:
        numbers: [T] of the distinct texts, ascending. ids, record: [N] of each response, its text and its judgement.
        component: [J] of each judgement. groups: [J] a number of its component that depends on its texts alone.
    """

    numbers: np.ndarray
    ids: np.ndarray
    record: np.ndarray
    component: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, judged: Judgements) -> Texts:
        """Read the judgements' texts. Texts are alike that differ in Unicode form, case and white space alone."""
        said, counts = array("Q"), array("q")
        for one in judged:
            responses = dict.fromkeys(one.feedback.responses)
            said.extend(prompt_number(text) for text in responses)
            counts.append(len(responses))
        numbers, ids = np.unique(np.frombuffer(said, dtype=np.uint64), return_inverse=True)
        record = np.repeat(np.arange(len(counts)), np.frombuffer(counts, dtype=np.int64))
        roots = _connected(len(numbers), ids, record)
        first = np.searchsorted(record, np.arange(len(counts)))
        component = roots[ids[first]]
        sizes = np.bincount(roots, minlength=len(numbers))
        group_of = numbers.copy()
        for root in np.flatnonzero(sizes > 1).tolist():  # the smallest of several numbers is no uniform draw
            group_of[root] = int.from_bytes(hashlib.sha256(numbers[root].tobytes()).digest()[:8], "big")
        return cls(numbers, ids, record, component, group_of[component])

    def sides(self, fraction: float) -> np.ndarray:
        """[J] TRAINING, HELD_OUT or LEFT_OUT."""
        total = len(self.component)
        chosen = self.groups / 2.0**64 < fraction
        if not 0 < chosen.sum() <= max(1, min(LARGEST_EXCESS * fraction, 1.0) * total) or chosen.all():
            chosen = self._smallest(max(1, round(fraction * total)))
        if chosen.any() and not chosen.all():
            return chosen.astype(np.int8)
        return self._cut(fraction)

    def _smallest(self, budget: int) -> np.ndarray:
        """[J] the judgements of components, in the order of their numbers, that fit into the budget; the smallest where none fits, unless
        it is more than half of all."""
        groups, sizes = np.unique(self.groups, return_counts=True)
        chosen: list[Any] = []
        for group, size in zip(groups, sizes.tolist(), strict=True):
            if size <= budget:
                chosen.append(group)
                budget -= size
        smallest = int(sizes.argmin())
        if not chosen and sizes[smallest] * 2 <= sizes.sum():
            chosen = [groups[smallest]]
        return np.isin(self.groups, np.array(chosen, dtype=np.uint64))

    def _cut(self, fraction: float) -> np.ndarray:
        """[J] the texts divided by number so that the wanted fraction of the judgements that stay on one side is held out."""
        low, high = np.full(len(self.component), len(self.numbers)), np.full(len(self.component), -1)
        np.minimum.at(low, self.record, self.ids)
        np.maximum.at(high, self.record, self.ids)
        ends = np.arange(1, len(self.numbers))
        held_out = np.searchsorted(np.sort(high), ends)  # all of whose texts come before the cut
        training = len(low) - np.searchsorted(np.sort(low), ends)
        enough = (held_out >= 1) & (training >= 1) & (held_out >= fraction * (held_out + training))
        if not enough.any():
            return np.zeros(len(low), dtype=np.int8)
        cut = ends[enough.argmax()]
        return np.where(high < cut, HELD_OUT, np.where(low >= cut, TRAINING, LEFT_OUT)).astype(np.int8)


def _connected(count: int, ids: np.ndarray, record: np.ndarray) -> np.ndarray:
    """[T] the smallest text of each text's component, texts of one record being connected."""
    parent = list(range(count))

    def root(text: int) -> int:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    together = np.flatnonzero(record[1:] == record[:-1])
    for one, other in zip(ids[together].tolist(), ids[together + 1].tolist(), strict=True):
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return np.array([root(text) for text in range(count)], dtype=np.int64)
