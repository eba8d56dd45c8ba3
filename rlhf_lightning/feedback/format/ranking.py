"""Rows with several responses in an order."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, finite, kind_of
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "ranking")
class RankingFormat:
    """A prompt and responses with places, lower is better and equal is a tie; or with scores, higher is better.

    Either `responses` is a list of texts beside a list of places, or a list of objects that hold a text and a place or score each.
    Only the order of places counts: [1, 3, 3] and [0, 1, 1] are the same, one winner and a tie, and are kept as the latter.
    A score that is a list, one number per rater, makes one ranking per rater. Scores may be true and false where all are.

    Args:
        prompt, responses: the names of the fields.
        ranks: the field with the list of places, where the responses are texts: ranks[i] is the place of responses[i].
        text_field, rank_field: in an object, its text and its place.
        score_field: in an object, its score; used in place of `rank_field` when given.
        annotator: optional field, who ranked; the raters of score lists are rater0, rater1, ...
    """

    def __init__(
        self,
        *,
        prompt: str = "prompt",
        responses: str = "responses",
        ranks: str = "ranking",
        text_field: str = "text",
        rank_field: str = "rank",
        score_field: str | None = None,
        annotator: str | None = "annotator",
    ) -> None:
        self.prompt, self.responses, self.ranks, self.annotator = prompt, responses, ranks, annotator
        self.text_field, self.rank_field, self.score_field = text_field, rank_field, score_field
        self.fields = frozenset(name for name in (prompt, responses, ranks, annotator) if name is not None)
        inner = score_field if score_field is not None else rank_field
        self.looks_for = f"ranking looks for '{ranks}', or '{responses}' as objects with '{text_field}' and '{inner}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        given = row.get(self.responses)
        objects = isinstance(given, list) and any(isinstance(item, dict) for item in given)
        if row.get(self.ranks) is None and not objects:
            return None
        items = row.items(self.responses)
        inner = [row.inside(item if objects else {self.text_field: item}, f"{self.responses}[{i}]") for i, item in enumerate(items)]
        texts = tuple(item.text(self.text_field) for item in inner)
        if len(texts) < 2:
            raise DataError(f"{self.responses} has one response; a ranking needs at least two")
        prompt, annotator = row.text(self.prompt), row.label(self.annotator)
        orders: Sequence[Sequence[float]]
        if objects and self.score_field is not None:
            orders, several = self._by_score(inner, self.score_field)
        else:
            orders, several = [self._by_rank(row, inner, objects)], False
        return [
            Feedback(
                prompt=prompt,
                responses=texts,
                judgement=Ranking(ranks=_levels(order)),
                annotator=f"rater{i}" if several else annotator,
                origin=row.origin,
            )
            for i, order in enumerate(orders)
        ]

    def _by_rank(self, row: Row, inner: list[Row], objects: bool) -> list[int]:
        if objects:
            places = [(item.where + self.rank_field, item.get(self.rank_field)) for item in inner]
        else:
            listed = row.items(self.ranks)
            if len(listed) != len(inner):
                raise DataError(f"{self.ranks} has {len(listed)} places for {len(inner)} {self.responses}")
            places = [(f"{self.ranks}[{i}]", place) for i, place in enumerate(listed)]
        for name, place in places:
            if not isinstance(place, int) or isinstance(place, bool):
                raise DataError(f"{name} must be a whole number, not {kind_of(place)}")
        return [place for _, place in places]

    def _by_score(self, inner: list[Row], field: str) -> tuple[list[list[float]], bool]:
        """One list of negated scores per rater, and whether each response has a list of them."""
        values = [item.get(field) for item in inner]
        if all(isinstance(value, bool) for value in values):
            return [[-float(value) for value in values]], False
        if not any(isinstance(value, list) for value in values):
            return [[-item.number(field) for item in inner]], False
        lists = [item.items(field) for item in inner]
        if len({len(scores) for scores in lists}) > 1:
            raise DataError(f"{field} must have as many scores in each of the {self.responses}, not {[len(scores) for scores in lists]}")
        scores = [
            [-finite(value, f"{item.where}{field}[{i}]") for i, value in enumerate(values)]
            for item, values in zip(inner, lists, strict=True)
        ]
        return [list(rater) for rater in zip(*scores, strict=True)], True


def _levels(order: Sequence[float]) -> tuple[int, ...]:
    """Places from 0 without gaps."""
    level = {place: i for i, place in enumerate(sorted(set(order)))}
    return tuple(level[place] for place in order)
