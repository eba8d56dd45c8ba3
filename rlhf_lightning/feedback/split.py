"""Split judgements into training and held out by prompt, or by text if there are too few prompts."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlhf_lightning.feedback.judgements import Judgements, prompt_number

TRAINING, HELD_OUT, LEFT_OUT = 0, 1, -1
MAX_EXCESS = 2.0
"""Texts are split by hash unless that holds out more judgements than this multiple of the fraction."""


@dataclass(frozen=True)
class Split:
    """Training and held-out judgements.

    Attributes:
        by: the sides have no prompt in common, or no text.
        note: for the log, the report and the model card; empty for a split by prompt.
        left_out: number of judgements that compare texts of both sides.
    """

    training: Judgements
    held_out: Judgements
    by: Literal["prompt", "text"] = "prompt"
    note: str = ""
    left_out: int = 0


def split_judgements(judged: Judgements, fraction: float) -> Split:
    """Hold out about `fraction` of the prompts, or of the texts if there are no prompts or too few.

    A prompt's side depends only on its text. Texts that were judged together form connected components, each on one side: by a hash
    of their texts if that holds out about the fraction, else the smallest components up to it. If one component is too large,
    its texts are split, and judgements of texts on both sides are left out. One side may be empty, for example with one judgement.
    """
    without_prompt = judged.rows["prompt"] == np.uint64(prompt_number(""))
    if not without_prompt.all():
        sides = (judged.rows["prompt"] / 2.0**64 < fraction).astype(np.int8)
        texts = TextComponents.of(judged.select(without_prompt)) if without_prompt.any() else None
        groups = judged.rows["prompt"].copy()
        if texts is not None:
            sides[without_prompt], groups[without_prompt] = texts.sides(fraction), texts.groups
        if (sides == TRAINING).any() and (sides == HELD_OUT).any():
            note = "" if texts is None else f"{without_prompt.sum()} judgements without a prompt are held out by text, the others by prompt"
            return _division(judged, sides, groups, "prompt", note)
    texts = TextComponents.of(judged)
    sides = texts.sides(fraction)
    prompts = len(np.unique(judged.rows["prompt"]))
    scope = "without a prompt" if without_prompt.all() else f"on {prompts} prompt{'s, too few to divide' if prompts > 1 else ''}"
    counts = [len(np.unique(texts.ids[np.isin(texts.record, np.flatnonzero(sides == side))])) for side in (TRAINING, HELD_OUT)]
    note = (
        f"the {len(judged)} judgements are {scope}: held out by text, {counts[0]} texts to learn from and {counts[1]} held out, none "
        "on both sides"
    )
    return _division(judged, sides, texts.groups, "text", note)


def _division(judged: Judgements, sides: np.ndarray, groups: np.ndarray, by: Literal["prompt", "text"], note: str) -> Split:
    """Build the Split; training judgements without a prompt are batched by their texts.

    Of the held-out questions those that feedback_selection chose are left out, as metrics on them would be biased; unless all were chosen.
    """
    training = judged.select(sides == TRAINING)
    training.rows["prompt"] = groups[sides == TRAINING]
    held_out = judged.select(sides == HELD_OUT)
    training.by_text = held_out.by_text = bool(note)
    left_out = int((sides == LEFT_OUT).sum())
    if left_out:
        note += f"; {left_out} judgements compare a text of one side with one of the other and are left out"
    uniform = held_out.uniform_part()
    if len(uniform) < len(held_out):
        note += f"{'; ' if note else ''}held-out metrics are of the {len(uniform)} uniform questions among {len(held_out)}"
    return Split(training, uniform, by, note, left_out)


@dataclass(frozen=True)
class TextComponents:
    """The responses of J judgements as numbers, and connected components of texts judged together.

    Attributes:
        numbers: [T] of the distinct texts, ascending. ids, record: [N] text and judgement of each response.
        component: [J] of each judgement. groups: [J] a hash of its component's texts.
    """

    numbers: np.ndarray
    ids: np.ndarray
    record: np.ndarray
    component: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, judged: Judgements) -> TextComponents:
        """Read the judgements' texts; they are equal up to Unicode form, case and white space."""
        text_numbers, counts = array("Q"), array("q")
        for judgement in judged:
            responses = dict.fromkeys(judgement.feedback.responses)
            text_numbers.extend(prompt_number(text) for text in responses)
            counts.append(len(responses))
        numbers, ids = np.unique(np.frombuffer(text_numbers, dtype=np.uint64), return_inverse=True)
        record = np.repeat(np.arange(len(counts)), np.frombuffer(counts, dtype=np.int64))
        roots = _component_roots(len(numbers), ids, record)
        first = np.searchsorted(record, np.arange(len(counts)))
        component = roots[ids[first]]
        sizes = np.bincount(roots, minlength=len(numbers))
        group_of = numbers.copy()
        for root in np.flatnonzero(sizes > 1).tolist():  # the minimum of several numbers isn't uniform
            group_of[root] = int.from_bytes(hashlib.sha256(numbers[root].tobytes()).digest()[:8], "big")
        return cls(numbers, ids, record, component, group_of[component])

    def sides(self, fraction: float) -> np.ndarray:
        """Return [J] TRAINING, HELD_OUT or LEFT_OUT."""
        total = len(self.component)
        chosen = self.groups / 2.0**64 < fraction
        if not 0 < chosen.sum() <= max(1, min(MAX_EXCESS * fraction, 1.0) * total) or chosen.all():
            chosen = self._small_components(max(1, round(fraction * total)))
        if chosen.any() and not chosen.all():
            return chosen.astype(np.int8)
        return self._cut_by_text(fraction)

    def _small_components(self, budget: int) -> np.ndarray:
        """Return a mask [J] of the components that fit into the budget, in the order of their numbers.

        If none fits it is the smallest, unless that is more than half of all.
        """
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

    def _cut_by_text(self, fraction: float) -> np.ndarray:
        """Return the sides [J] by a cut in the texts' order that holds out about the fraction."""
        low, high = np.full(len(self.component), len(self.numbers)), np.full(len(self.component), -1)
        np.minimum.at(low, self.record, self.ids)
        np.maximum.at(high, self.record, self.ids)
        ends = np.arange(1, len(self.numbers))
        held_out = np.searchsorted(np.sort(high), ends)  # judgements with all texts before the cut
        training = len(low) - np.searchsorted(np.sort(low), ends)
        enough = (held_out >= 1) & (training >= 1) & (held_out >= fraction * (held_out + training))
        if not enough.any():
            return np.zeros(len(low), dtype=np.int8)
        cut = ends[enough.argmax()]
        return np.where(high < cut, HELD_OUT, np.where(low >= cut, TRAINING, LEFT_OUT)).astype(np.int8)


def _component_roots(count: int, ids: np.ndarray, record: np.ndarray) -> np.ndarray:
    """Return [T] the smallest text of each text's component; texts of one record are connected."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    together = np.flatnonzero(record[1:] == record[:-1])
    edges = (ids[together], ids[together + 1])
    component = connected_components(coo_array((np.ones(len(together)), edges), shape=(count, count)), directed=False)[1]
    _, first = np.unique(component, return_index=True)
    return np.asarray(first[component])
