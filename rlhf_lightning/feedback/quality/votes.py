"""Feedback as columns of numbers: who judged which unit how. What the models of quality are fitted to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from rlhf_lightning.feedback.cleaning import origin_key
from rlhf_lightning.feedback.standardise import ranking_levels, unit_rating
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs


@dataclass(frozen=True)
class Votes:
    """N judgements of units, as columns.

    Attributes:
        record: [N] which record of the feedback said it.
        annotator: [N] index of the annotator's name; the number of names stands for all who gave none.
        unit: [N] what was judged.
        value: [N] the judgement.
        group: [N] data set and aspect: values of different groups don't compare. Index into Tables.groups.
    """

    record: np.ndarray
    annotator: np.ndarray
    unit: np.ndarray
    value: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    def take(self, rows: np.ndarray) -> Self:
        """The votes at these rows, by index or mask."""
        return dataclasses.replace(self, **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def shared(self) -> np.ndarray:
        """[N] whether another annotator judged the unit too. All who gave no name count as one."""
        return judged_by_several(self.unit, self.annotator)[self.unit] if len(self) else np.zeros(0, dtype=bool)


@dataclass(frozen=True)
class Comparisons(Votes):
    """Pairs of responses to one prompt. unit is the pair; value is 1 where `first` won, 0 where `second` did, 0.5 for a tie.

    Attributes:
        first, second: [N] the responses, in an order that depends on their texts alone.
        first_at, second_at: [N] where they stand among their record's responses.
        shown: [N] 1 where `first` was shown before `second`, -1 where after, 0 where it wasn't recorded.
        weight: [N] 2 / K for the pairs of a ranking of K: together they count as K - 1 comparisons, which is what it takes to say it.
    """

    first: np.ndarray
    second: np.ndarray
    first_at: np.ndarray
    second_at: np.ndarray
    shown: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Tables:
    """All votes of some feedback.

    Attributes:
        annotators: the names.
        groups: (data set, aspect) of each group; the aspect is "" but for ratings of one.
        ratings: value on 0..1 of its scale, unit is (group, prompt, response, turn).
        thumbs: value 1 up, 0 down; unit is (prompt, response).
        pairs: from rankings of two and of more; equal texts are left out.
        places: of responses in rankings of three or more, 0 the best; unit is the response among these responses, group the data set.
        among: [places] which set of responses a place is in.
    """

    annotators: list[str]
    groups: list[tuple[str, str]]
    ratings: Votes
    thumbs: Votes
    pairs: Comparisons
    places: Votes
    among: np.ndarray


def data_set(record: Feedback) -> str:
    """The name of the record's data set: its source, else the file it was read from, else "unnamed"."""
    return record.source or origin_key(record)[0] or "unnamed"


def judged_by_several(unit: np.ndarray, annotator: np.ndarray) -> np.ndarray:
    """[units] whether at least two annotators judged it."""
    together = np.unique(np.stack([unit, annotator]), axis=1)
    return np.asarray(np.bincount(together[0], minlength=int(unit.max()) + 1) > 1)


def tables_of(feedback: Iterable[Feedback]) -> Tables:
    """The votes in the feedback: ratings, thumbs, comparisons and places. Edits, spans and comments are none."""
    builder = _Builder()
    for record in feedback:
        builder.add(record)
    return builder.tables()


def digest(*parts: str) -> bytes:
    """Sixteen bytes that stand for the texts."""
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
        who = -1 if record.annotator is None else self._id("annotator", record.annotator)
        prompt = digest(record.prompt_text)
        texts = [prompt + digest(text) for text in record.responses]
        aspect = (judgement.aspect or "") if isinstance(judgement, Rating) else ""
        group = self._id("group", (data_set(record), aspect))
        if isinstance(judgement, Rating):
            unit = self._id("rating", (group, texts[0], judgement.turn))
            self.columns["rating"].append((index, who, unit, unit_rating(judgement), group))
        elif isinstance(judgement, Thumbs):
            self.columns["thumbs"].append((index, who, self._id("thumbs", texts[0]), float(judgement.up), group))
        else:
            self._add_ranking(record, judgement, texts, (index, who, group))

    def _add_ranking(self, record: Feedback, ranking: Ranking, texts: Sequence[bytes], at: tuple[int, int, int]) -> None:
        index, who, group = at
        ranked = [(text, rank, i) for i, (text, rank) in enumerate(zip(texts, ranking.ranks, strict=True)) if rank is not None]
        ranked.sort()
        for i, (text, rank, own) in enumerate(ranked):
            for other, rank_of_other, its in ranked[i + 1 :]:
                if text == other:
                    continue
                value = (1.0 + (rank < rank_of_other) - (rank > rank_of_other)) / 2
                shown = 0 if record.positions is None else (1 if record.positions[own] < record.positions[its] else -1)
                first, second = self._id("response", text), self._id("response", other)
                row = (index, who, self._id("pair", (first, second)), value, group, first, second, own, its, shown, 2 / len(ranked))
                self.columns["pair"].append(row)
        if len(texts) > 2:
            among = self._id("among", (group, *sorted(texts)))
            for level, responses in enumerate(ranking_levels(ranking)):
                for i in responses:
                    self.columns["place"].append((index, who, self._id("place", (among, texts[i])), level, group, among))

    def _id(self, kind: str, what: Hashable) -> int:
        known = self.ids.setdefault(kind, {})
        return known.setdefault(what, len(known))

    def tables(self) -> Tables:
        names = [str(name) for name in self.ids.get("annotator", {})]
        votes: dict[str, list[np.ndarray]] = {}
        for kind, width in (("rating", 5), ("thumbs", 5), ("pair", 11), ("place", 6)):
            table = np.array(self.columns[kind], dtype=np.float64).reshape(-1, width)
            whole = [column if i in (3, 10) else column.astype(np.int64) for i, column in enumerate(table.T)]
            whole[1][whole[1] < 0] = len(names)
            votes[kind] = whole
        groups: list[tuple[str, str]] = list(self.ids.get("group", {}))  # type: ignore[arg-type]
        *place_columns, among = votes["place"]
        return Tables(
            names, groups, Votes(*votes["rating"]), Votes(*votes["thumbs"]), Comparisons(*votes["pair"]), Votes(*place_columns), among
        )
