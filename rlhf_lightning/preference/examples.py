"""What a preference loss learns from, out of feedback of any kind: comparisons or thumbs, as columns of places in a table of texts.

Shapes: J judgements, U distinct texts of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.feedback.grouping import group_loader
from rlhf_lightning.feedback.judgements import Judged, Judgements, PromptResponse, judgement_kind, prompt_number
from rlhf_lightning.flow import Ranking, Thumbs
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.preference.texts import LEFT_OUT, TextTable
from rlhf_lightning.reward.evaluation.comparisons import weighted_comparisons

GROUPS_IN_BATCH = 4
"""A prompt with more judgements than this share of a batch comes in several groups: a batch should know more prompts than one."""
COMPARING = ("rating", "pair", "ranking", "edit")


@dataclass(frozen=True)
class Examples:
    """J judgements. chosen, rejected [J]: places of a pair's texts. For thumbs: given [J] the text, up [J] 1 or 0, mismatched [J] the place
    of its prompt with the response to another one. weight [J]; prompt [J] its number, or that of a
    text where judgements are independent by text.

    Attributes:
        places: "chosen" and "rejected", or "given" and "mismatched".
        left_out: judgements of which a text is too long.
    """

    places: dict[str, np.ndarray]
    weight: np.ndarray
    prompt: np.ndarray
    up: np.ndarray | None = None
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self) -> np.ndarray:
        """The table rows of all texts, each once."""
        return np.unique(np.concatenate(list(self.places.values())))


@dataclass(frozen=True)
class PreferenceBatch:
    """J judgements of U distinct texts.

    Attributes:
        tokens: the U texts. text_places: [U] where they stand in the table.
        index: [J] each, texts by their place in the batch: "chosen" and "rejected", or "given".
        weight: [J]. up: [J] thumbs, else None.
        mismatched, mismatched_places: prompts with responses to other prompts, for thumbs.
    """

    tokens: PackedTokens
    text_places: Tensor
    index: dict[str, Tensor]
    weight: Tensor
    up: Tensor | None = None
    mismatched: PackedTokens | None = None
    mismatched_places: Tensor | None = None

    def blank(self) -> PreferenceBatch:
        """The same, and none of it counts."""
        return dataclasses.replace(self, weight=torch.zeros_like(self.weight))

    def to(self, device: torch.device | str) -> PreferenceBatch:
        index = {name: value.to(device) for name, value in self.index.items()}
        rest = (self.up, self.mismatched, self.mismatched_places)
        moved = [None if value is None else value.to(device) for value in rest]
        return PreferenceBatch(self.tokens.to(device), self.text_places.to(device), index, self.weight.to(device), *moved)  # type: ignore[arg-type]


def compared_examples(judged: Judgements, table: TextTable, smallest_gap: float = 0.0) -> Examples:
    """Every comparison that the feedback states, weighed as `weighted_comparisons` says; their texts are added to the table."""
    found = list(weighted_comparisons(judged, smallest_gap))
    sides = {
        "chosen": [table.place((one.prompt, one.better)) for one, _ in found],
        "rejected": [table.place((one.prompt, one.worse)) for one, _ in found],
    }
    numbers = [prompt_number(one.better if judged.by_text else one.prompt) for one, _ in found]
    return _fitting(sides, [weight for _, weight in found], numbers)


def thumbed_examples(judged: Judgements, table: TextTable, from_pairs: bool, smallest_gap: float = 0.0, seed: int = 0) -> Examples:
    """Every thumb, and a thumb down for each response of a ranking said to be all bad; equal thumbs for one text are one, of their summed
    weight. Each gets the response of another prompt's thumb, drawn by `seed`.

    Args:
        from_pairs: the sides of a comparison are thumbs of its weight, too.
    """
    given: dict[tuple[PromptResponse, bool], float] = {}
    for text, up, weight in _thumbs(judged, from_pairs, smallest_gap):
        given[text, up] = given.get((text, up), 0.0) + weight
    texts = [text for text, _ in given]
    others = _from_elsewhere(texts, seed)
    sides = {
        "given": [table.place(text) for text in texts],
        "mismatched": [table.place((prompt, texts[other][1])) for (prompt, _), other in zip(texts, others, strict=True)],
    }
    thumbs = [float(up) for _, up in given]
    numbers = [prompt_number(response if judged.by_text else prompt) for prompt, response in texts]
    return _fitting(sides, list(given.values()), numbers, thumbs)


def _thumbs(judged: Judgements, from_pairs: bool, smallest_gap: float) -> Iterable[tuple[PromptResponse, bool, float]]:
    for record in judged:
        feedback = record.feedback
        if isinstance(feedback.judgement, Thumbs):
            yield (feedback.prompt, feedback.responses[0]), feedback.judgement.up, feedback.weight
        if isinstance(feedback.judgement, Ranking) and feedback.judgement.all_bad:
            yield from (((feedback.prompt, text), False, feedback.weight) for text in dict.fromkeys(feedback.responses))
    if from_pairs:
        for one, weight in weighted_comparisons(judged, smallest_gap):
            yield (one.prompt, one.better), True, weight
            yield (one.prompt, one.worse), False, weight


def _from_elsewhere(texts: Sequence[PromptResponse], seed: int) -> list[int]:
    """For each text another one, to another prompt; its own neighbour where there is a single prompt."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(texts)).tolist()
    found = [0] * len(texts)
    for at, text in enumerate(order):
        following = (order[(at + step) % len(order)] for step in range(1, len(order)))
        found[text] = next((other for other in following if texts[other][0] != texts[text][0]), order[(at + 1) % len(order)])
    return found


def _fitting(sides: dict[str, list[int]], weight: list[float], prompt: list[int], up: list[float] | None = None) -> Examples:
    """The judgements whose texts are all in the table."""
    places = {name: np.array(values, dtype=np.int64) for name, values in sides.items()}
    fits = np.ones(len(weight), dtype=bool)
    for values in places.values():
        fits &= values != LEFT_OUT
    numbers = np.array(prompt, dtype=np.uint64)
    thumbs = None if up is None else np.array(up)[fits]
    kept = {name: values[fits] for name, values in places.items()}
    return Examples(kept, np.array(weight)[fits], numbers[fits], thumbs, int((~fits).sum()))


def count_unused(judged: Iterable[Judged], thumbs: bool, from_pairs: bool) -> dict[str, int]:
    """How many judgements of each kind the loss can't learn from."""
    learned = {*(("thumbs",) if thumbs else ()), *(COMPARING if from_pairs or not thumbs else ())}
    counts: dict[str, int] = {}
    for record in judged:
        feedback = record.feedback
        kind = judgement_kind(feedback)
        if kind not in learned and not (thumbs and isinstance(feedback.judgement, Ranking) and feedback.judgement.all_bad):
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def preference_loader(
    examples: Examples, table: TextTable, batch_size: int, seed: int, rank: int, world: int, micro_batch_size: int | None = None
) -> DataLoader[np.ndarray]:
    """Batches of about `batch_size` judgements, new ones in every epoch; each process takes its share of every batch. What was said about
    one prompt comes together, so that its responses are read once."""
    largest = max(1, batch_size // GROUPS_IN_BATCH)
    return group_loader(
        examples.prompt,
        largest,
        batch_size,
        (seed, rank, world),
        lambda rows: batch_of(examples, table, rows),
        PreferenceBatch.blank,
        micro_batch_size,
    )


def batch_of(examples: Examples, table: TextTable, rows: np.ndarray) -> PreferenceBatch:
    """The judgements of these rows, each of their texts once."""
    sides = {name: places[rows] for name, places in examples.places.items() if name != "mismatched"}
    places, inverse = np.unique(np.concatenate(list(sides.values())), return_inverse=True)
    index = {name: torch.from_numpy(part) for name, part in zip(sides, np.split(inverse, len(sides)), strict=True)}
    weight = torch.from_numpy(examples.weight[rows]).float()
    if examples.up is None:
        return PreferenceBatch(table.packed(places), torch.from_numpy(places), index, weight)
    up, others = torch.from_numpy(examples.up[rows]).float(), examples.places["mismatched"][rows]
    return PreferenceBatch(
        table.packed(places), torch.from_numpy(places), index, weight, up, table.packed(others), torch.from_numpy(others)
    )
