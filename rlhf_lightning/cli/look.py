"""`rlhf-lightning look FILE...`: what a file of feedback is, and the command that reads it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.describe import describe_feedback
from rlhf_lightning.feedback.proposal.detect import MAX_ROWS, Sample
from rlhf_lightning.feedback.proposal.propose import Proposal, propose

MAX_PROPOSALS = 3
MAX_RECORDS = 3


def look(args: Sequence[str]) -> None:
    """Print what each file is, how it would be understood and the command to read it.

    Raises:
        ConfigError: no file.
        DataError: a file that can't be opened, or in which nothing can be read as feedback.
    """
    paths = [argument for argument in args if not argument.startswith("-")]
    if not paths or len(paths) < len(args):
        raise ConfigError("write `rlhf-lightning look FILE...`, as in `rlhf-lightning look ratings.csv`")
    unread = []
    for path in paths:
        sample, proposals = propose(path)
        print("".join(f"{safe_message(line)}\n" for line in _lines(sample, proposals)), end="", flush=True)
        if not proposals:
            unread.append(path)
    if unread:
        raise DataError(f"no format fits {', '.join(unread)}: docs/feedback.md shows the fields that each format reads")


def _lines(sample: Sample, proposals: Sequence[Proposal]) -> Iterator[str]:
    rows = f"{len(sample.rows)} rows" if sample.is_complete else f"more than {MAX_ROWS} rows, of which these are looked at"
    yield f"{sample.path}: {sample.description}; {rows}"
    if sample.faults:
        yield f"  {len(sample.faults)} lines can't be read, the first: {sample.faults[0].origin}: {sample.faults[0].reason}"
    if not proposals and sample.rows:
        yield f"  fields: {', '.join(sample.rows[0].data)}"
    for number, proposal in enumerate(proposals[:MAX_PROPOSALS], start=1):
        yield ""
        yield from _proposal_lines(number, proposal)


def _proposal_lines(number: int, proposal: Proposal) -> Iterator[str]:
    formats = " and ".join(candidate.format for candidate in proposal.candidates)
    certainty = "check it" if not proposal.is_sure else "likely" if proposal.assumptions else "sure"
    yield f"{number}. {formats} ({certainty if number == 1 else 'or'})"
    for reason in dict.fromkeys(reason for candidate in proposal.candidates for reason in candidate.reasons):
        yield f"     {reason}"
    for note in proposal.assumptions:
        yield f"     assumed: {note}"
    if proposal.problem:
        yield f"     {1 - proposal.share:.0%} of the rows can't be read, the first: {proposal.problem}"
    yield "   understood as"
    for record in proposal.records[:MAX_RECORDS]:
        yield f"     {describe_feedback(record)}"
    yield "   read it by"
    yield f"     python train.py stage=inspect {shlex.join(proposal.overrides)}"
