"""Feedback as columns of numbers (annotator, unit, value), for the models of quality."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from rlhf_lightning.feedback.cleaning import origin_key
from rlhf_lightning.feedback.judgements import judgement_kind, prompt_share
from rlhf_lightning.feedback.standardise import ranking_levels, unit_rating
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs


@dataclass(frozen=True)
class Votes:
    """N judgements of units, as columns.

    Attributes:
        record: [N] index of the feedback record.
        annotator: [N] index of the annotator's name; all unnamed annotators have the index after the last name.
        unit: [N] the judged unit.
        value: [N] the judgement.
        group: [N] data set and aspect, index into Tables.groups; values of different groups aren't comparable.
    """

    record: np.ndarray
    annotator: np.ndarray
    unit: np.ndarray
    value: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    def take(self, rows: np.ndarray) -> Self:
        """Select votes by index or mask."""
        return dataclasses.replace(self, **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def is_shared(self) -> np.ndarray:
        """Return a mask [N] of votes on units that another annotator judged too.

        Unnamed annotators count as one.
        """
        return judged_by_several(self.unit, self.annotator)[self.unit] if len(self) else np.zeros(0, dtype=bool)


@dataclass(frozen=True)
class Comparisons(Votes):
    """Pairs of responses to one prompt; value is 1 if `first` won, 0 if `second` won, 0.5 for a tie.

    Attributes:
        first, second: [N] the responses, ordered by their texts.
        first_at, second_at: [N] their indices in the record's responses.
        display_order: [N] 1 if `first` was shown before `second`, -1 if after, 0 if unknown.
        weight: [N] 2 / K for the pairs of a ranking of K: together they count as K - 1 comparisons.
    """

    first: np.ndarray
    second: np.ndarray
    first_at: np.ndarray
    second_at: np.ndarray
    display_order: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Tables:
    """All votes of some feedback.

    Attributes:
        annotators: the names.
        groups: (data set, aspect) of each group; the aspect is "" except for ratings of an aspect.
        ratings: value on 0..1 of its scale, unit is (group, prompt, response, turn).
        thumbs: value 1 up, 0 down; unit is (prompt, response).
        pairs: from rankings of two and of more; equal texts are left out.
        ranks: of responses in rankings of three or more, 0 the best; unit is the response among these responses, group the data set.
        response_set: [ranks] the set of responses of each rank.
    """

    annotators: list[str]
    groups: list[tuple[str, str]]
    ratings: Votes
    thumbs: Votes
    pairs: Comparisons
    ranks: Votes
    response_set: np.ndarray


def data_set(record: Feedback) -> str:
    """Return the record's data set: its source, else the file it was read from, else "unnamed"."""
    return record.source or origin_key(record)[0] or "unnamed"


def judged_by_several(unit: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """Return a mask [units] of those judged by at least two annotators."""
    distinct = np.unique(np.stack([unit, annotator]), axis=1)
    return np.asarray(np.bincount(distinct[0], minlength=int(unit.max()) + 1) > 1)


def tables_of(feedback: Iterable[Feedback]) -> Tables:
    """Collect the ratings, thumbs, comparisons and ranks; edits, spans and comments are ignored."""
    builder = _Builder()
    for record in feedback:
        builder.add(record)
    return builder.tables()


def digest(*parts: str) -> bytes:
    """Hash texts to 16 bytes."""
    content = "\0".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Builder:
    def __init__(self) -> None:
        self.count = 0
        self.ids: dict[str, dict[Hashable, int]] = {}
        self.columns: dict[str, list[tuple[float, ...]]] = {"rating": [], "thumbs": [], "pair": [], "place": []}

    def add(self, record: Feedback) -> None:
        judgement, index = record.judgement, self.count
        self.count += 1
        if not isinstance(judgement, Rating | Thumbs | Ranking):
            return
        annotator = -1 if record.annotator is None else self._id("annotator", record.annotator)
        prompt = digest(record.prompt_text)
        texts = [prompt + digest(text) for text in record.responses]
        aspect = (judgement.aspect or "") if isinstance(judgement, Rating) else ""
        group = self._id("group", (data_set(record), aspect))
        if isinstance(judgement, Rating):
            unit = self._id("rating", (group, texts[0], judgement.turn))
            self.columns["rating"].append((index, annotator, unit, unit_rating(judgement), group))
        elif isinstance(judgement, Thumbs):
            self.columns["thumbs"].append((index, annotator, self._id("thumbs", texts[0]), float(judgement.up), group))
        else:
            self._add_ranking(record, judgement, texts, (index, annotator, group))

    def _add_ranking(self, record: Feedback, ranking: Ranking, texts: Sequence[bytes], at: tuple[int, int, int]) -> None:
        index, annotator, group = at
        ranked = [(text, rank, i) for i, (text, rank) in enumerate(zip(texts, ranking.ranks, strict=True)) if rank is not None]
        ranked.sort()
        for number, (text, rank, i) in enumerate(ranked):
            for other, other_rank, j in ranked[number + 1 :]:
                if text == other:
                    continue
                value = (1.0 + (rank < other_rank) - (rank > other_rank)) / 2
                positions = record.positions
                display_order = 0 if positions is None else 1 if positions[i] < positions[j] else -1
                first, second = self._id("response", text), self._id("response", other)
                pair = self._id("pair", (first, second))
                row = (index, annotator, pair, value, group, first, second, i, j, display_order, 2 / len(ranked))
                self.columns["pair"].append(row)
        if len(texts) > 2:
            response_set = self._id("among", (group, *sorted(texts)))
            for level, responses in enumerate(ranking_levels(ranking)):
                for i in responses:
                    self.columns["place"].append(
                        (index, annotator, self._id("place", (response_set, texts[i])), level, group, response_set)
                    )

    def _id(self, kind: str, key: Hashable) -> int:
        id_of = self.ids.setdefault(kind, {})
        return id_of.setdefault(key, len(id_of))

    def tables(self) -> Tables:
        names = [str(name) for name in self.ids.get("annotator", {})]
        votes: dict[str, list[np.ndarray]] = {}
        for kind, width in (("rating", 5), ("thumbs", 5), ("pair", 11), ("place", 6)):
            table = np.array(self.columns[kind], dtype=np.float64).reshape(-1, width)
            columns = [column if i in (3, 10) else column.astype(np.int64) for i, column in enumerate(table.T)]
            columns[1][columns[1] < 0] = len(names)
            votes[kind] = columns
        groups: list[tuple[str, str]] = list(self.ids.get("group", {}))  # type: ignore[arg-type]
        *place_columns, response_set = votes["place"]
        return Tables(
            names,
            groups,
            Votes(*votes["rating"]),
            Votes(*votes["thumbs"]),
            Comparisons(*votes["pair"]),
            Votes(*place_columns),
            response_set,
        )


@dataclass(frozen=True)
class FeedbackSample:
    """A sample of feedback, and counts of all feedback.

    Attributes:
        index: of the records, in their order. records: the records.
        judgements: total counts by data set and kind.
    """

    index: list[int]
    records: list[Feedback]
    judgements: dict[str, Counter[str]] = field(default_factory=dict)


def sample_by_prompt(feedback: Sequence[Feedback], cap: int) -> FeedbackSample:
    """Sample feedback by a hash of its prompt up to the cap; all of it if it fits.

    The prompts don't depend on the order of the feedback; the last one may be partial. Without a prompt, the alphabetically first
    response is hashed. A ranking of K costs its K (K - 1) / 2 pairs, other judgements 1.
    """
    judgements: dict[str, Counter[str]] = {}
    share, cost = np.empty(len(feedback)), np.empty(len(feedback))
    for index, record in enumerate(feedback):
        judgements.setdefault(data_set(record), Counter())[judgement_kind(record)] += 1
        share[index] = prompt_share(record.prompt_text or min(record.responses))
        ranked = len(record.responses) if isinstance(record.judgement, Ranking) else 2
        cost[index] = ranked * (ranked - 1) / 2
    if cost.sum() <= cap:
        return FeedbackSample(list(range(len(feedback))), list(feedback), judgements)
    order = np.argsort(share, kind="stable")
    rows = np.sort(order[: int(np.searchsorted(np.cumsum(cost[order]), cap, side="right"))])
    return FeedbackSample(rows.tolist(), [feedback[int(i)] for i in rows], judgements)
