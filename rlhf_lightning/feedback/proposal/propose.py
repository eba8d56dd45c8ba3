"""Proposals of how to read a file, tried on its rows and ranked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.proposal.candidate import Candidate, Table
from rlhf_lightning.feedback.proposal.command import read_command
from rlhf_lightning.feedback.proposal.comparisons import propose_pairwise, propose_verdict
from rlhf_lightning.feedback.proposal.detect import Sample, read_sample
from rlhf_lightning.feedback.proposal.exports import propose_exports
from rlhf_lightning.feedback.proposal.fields import Field, fields_of
from rlhf_lightning.feedback.proposal.labelled import propose_dialogue, propose_stepwise, propose_thumbs
from rlhf_lightning.feedback.proposal.names import best_named
from rlhf_lightning.feedback.proposal.rankings import propose_ranking
from rlhf_lightning.feedback.proposal.ratings import propose_ratings
from rlhf_lightning.feedback.proposal.revisions import propose_comment, propose_edit, propose_spans
from rlhf_lightning.feedback.reading import parse_row
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.unknown_fields import UnknownFields
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import make

PROPOSERS: Sequence[Callable[[Table], Iterator[Candidate]]] = (
    propose_pairwise, propose_verdict, propose_ranking, propose_ratings, propose_thumbs, propose_dialogue, propose_stepwise, propose_edit,
    propose_spans, propose_comment,
)  # fmt: skip
INSIDE = (propose_ratings, propose_thumbs, propose_edit, propose_spans, propose_comment)
"""Formats of rows that a list of responses explodes into."""
SURE, MIN_SCORE, MIN_SHARE = 0.75, 0.35, 0.5
"""Score of a sure proposal, the lowest score, and the lowest share of rows that are read."""
_UNREAD = re.compile(r"(?:unknown )?field '([^']+)'(?: holds|, did you| is the second half)")


@dataclass(frozen=True)
class Proposal:
    """A way to read the file: formats with settings, tried on the rows.

    Attributes:
        candidates: the formats; several where each reads another judgement of the same rows.
        records: what the rows become, the first rows first.
        share: of the rows, read without an error.
        problem: the first error, if there is one.
        is_sure: a high score without a rival, and nothing assumed that the file doesn't say.
    """

    sample: Sample
    candidates: tuple[Candidate, ...]
    records: tuple[Feedback, ...]
    share: float
    problem: str
    is_sure: bool = False

    @property
    def score(self) -> float:
        return self.candidates[0].score * (0.3 + 0.7 * self.share)

    @property
    def overrides(self) -> list[str]:
        """The overrides that read the file."""
        return read_command(self.sample, self.candidates, self.share < 1)

    @property
    def assumptions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for candidate in self.candidates for note in candidate.assumptions))


def propose(path: str) -> tuple[Sample, list[Proposal]]:
    """Read the first rows of the file and propose how to read it, the likeliest first.

    Raises:
        DataError: nothing at the path, or a file that can't be opened.
    """
    sample = read_sample(path)
    if not sample.rows:
        return sample, []
    table = Table(sample, fields_of(row.data for row in sample.rows))
    candidates = list(propose_exports(table))
    if not candidates:
        candidates = [candidate for proposer in PROPOSERS for candidate in proposer(table)]
        candidates += [candidate for inner in exploded_tables(table) for candidate in _inside(inner)]
    proposals = [proposal for candidate in candidates if (proposal := try_candidate(sample, candidate)) is not None]
    proposals = _distinct(sorted(proposals, key=lambda proposal: -proposal.score))
    return sample, _with_companions(proposals)


def exploded_tables(table: Table) -> Iterator[Table]:
    """Tables with a row for each object of a list that holds texts."""
    for field in table.of_kind("objects"):
        inner = fields_of(field.items)
        outer = {path: other for path, other in table.fields.items() if other is not field}
        rows = len(field.items)
        nested = {f"{field.path}.{path}": dataclasses.replace(item, path=f"{field.path}.{path}") for path, item in inner.items()}
        repeated = {
            path: Field(path, [value for value, items in zip(other.values, field.values, strict=True) for _ in items], rows)
            for path, other in outer.items()
            if len(other.values) == len(field.values)
        }
        yield Table(table.sample, repeated | nested, (*table.explode, field.path))


def _inside(table: Table) -> Iterator[Candidate]:
    """Candidates that judge the texts inside the exploded list."""
    prefix = f"{table.explode[-1]}."
    texts = [field for field in table.texts if field.path.startswith(prefix) and field.words >= 3]
    if not texts:  # each item is a judgement of the row's response
        for proposer in (propose_ratings, propose_thumbs):
            for candidate in proposer(table):
                if all(path.startswith(prefix) for path in candidate.judgements):
                    yield dataclasses.replace(candidate, explode=table.explode)
        return
    response = best_named(texts, "response") or max(texts, key=lambda field: field.words)
    outer = [field for field in table.texts if not field.path.startswith(prefix)]
    prompt = best_named(outer, "prompt") or next((field for field in outer if field.words >= 3), None)
    rest = {path: field for path, field in table.fields.items() if path.startswith(prefix) or field.kind != "text" or field is prompt}
    view = Table(table.sample, rest, table.explode)
    for proposer in INSIDE:
        for candidate in proposer(view):
            if all(path.startswith(prefix) for path in candidate.judgements) and "messages" not in candidate.settings:
                texts_of = {"response": response.path, "prompt": prompt.path if prompt else None}
                yield dataclasses.replace(
                    candidate, settings={**candidate.settings, **texts_of}, explode=table.explode, score=candidate.score * 0.9
                )


def try_candidate(sample: Sample, candidate: Candidate) -> Proposal | None:
    """Read the sample's rows as the candidate says; None if too few can be read.

    Fields that may not be ignored silently are named in its assumptions.
    """
    for _ in range(6):
        try:
            form = make("feedback_format", candidate.format, dict(candidate.settings))
        except ConfigError:
            return None
        rows = _source_rows(sample, candidate)
        unknown = UnknownFields([getattr(form, "fields", None)])
        results = [parse_row(row, [form], unknown, None) if isinstance(row, Row) else row for row in rows]
        bad = [result for result in results if isinstance(result, BadLine)]
        unread = next((match[1] for line in bad if (match := _UNREAD.match(line.reason))), None)
        if unread is None or unread in candidate.ignore_fields:
            break
        note = f"`{unread}` is left out"
        candidate = dataclasses.replace(
            candidate, ignore_fields=(*candidate.ignore_fields, unread), assumptions=(*candidate.assumptions, note)
        )
    records = [record for result in results if isinstance(result, list) for record in result]
    share = 1 - len(bad) / max(1, len(results))
    if not records or share < MIN_SHARE or candidate.score < MIN_SCORE:
        return None
    problem = f"{bad[0].origin}: {bad[0].reason}" if bad else ""
    return Proposal(sample, (candidate,), tuple(records), share, problem)


def _source_rows(sample: Sample, candidate: Candidate) -> list[Row | BadLine]:
    from rlhf_lightning.feedback.row_source import read_paths

    def rows(path: str) -> Iterator[Row | BadLine]:
        return iter(sample.rows)

    try:
        return list(
            read_paths(
                rows, path=sample.path, explode=candidate.explode, ignore_fields=candidate.ignore_fields, rename=dict(candidate.rename)
            )
        )
    except DataError:
        return []


def _distinct(proposals: Sequence[Proposal]) -> list[Proposal]:
    """The proposals that read different judgements or read them differently."""
    by_settings: dict[tuple[Any, ...], Proposal] = {}
    for proposal in proposals:
        candidate = proposal.candidates[0]
        key = (candidate.format, str(sorted(candidate.settings.items(), key=str)), candidate.explode)
        by_settings.setdefault(key, proposal)
    return list(by_settings.values())


def _with_companions(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Join to the first proposal those that read other judgements of the same rows."""
    if not proposals:
        return []
    first, *others = proposals
    main = first.candidates[0]
    joined, rest, used = [first], [], set(main.judgements)
    kinds = {_kind(main)}
    for other in others:
        candidate = other.candidates[0]
        may_join = other.score >= 0.55 and other.share > 0.9 and _kind(candidate) not in kinds and used.isdisjoint(candidate.judgements)
        if (
            may_join
            and candidate.explode == main.explode
            and not (main.judgements & _values(candidate.settings))
            and _same_texts(main, candidate)
        ):
            joined.append(other)
            used |= candidate.judgements
            kinds.add(_kind(candidate))
        else:
            rest.append(other)
    rival = max((other.score for other in rest if not used.isdisjoint(other.candidates[0].judgements)), default=0.0)
    best = dataclasses.replace(
        first,
        candidates=tuple(proposal.candidates[0] for proposal in joined),
        records=_interleave([proposal.records for proposal in joined]),
        is_sure=first.score >= SURE and first.score - rival >= 0.05 and first.share >= 0.9,
    )
    return [best, *rest]


def _kind(candidate: Candidate) -> str:
    """The kind of judgement that a format reads: two formats of one kind would count one judgement twice."""
    return {"attributes": "rating", "verdict": "ranking", "pairwise": "ranking"}.get(candidate.format, candidate.format)


def _same_texts(a: Candidate, b: Candidate) -> bool:
    return all(a.settings.get(name) == b.settings.get(name) for name in ("prompt", "response") if name in a.settings and name in b.settings)


def _values(settings: Mapping[str, Any]) -> set[str]:
    flat = [item for value in settings.values() for item in (value if isinstance(value, tuple) else [value])]
    return {item for item in flat if isinstance(item, str)}


def _interleave(groups: Sequence[tuple[Feedback, ...]]) -> tuple[Feedback, ...]:
    return tuple(record for i in range(max(map(len, groups))) for group in groups if i < len(group) for record in [group[i]])
