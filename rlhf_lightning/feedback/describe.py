"""A judgement in words: "ben: answer 2 best, then 1, then 3"."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_lightning.feedback.standardise import edit_spans
from rlhf_lightning.flow import Comment, Feedback, Ranking, Rating, Spans, Thumbs

MAX_LETTERS = 60
MAX_CHANGES = 3
MAX_TEXTS = 4


def describe_feedback(feedback: Feedback) -> str:
    """Describe what an annotator judged, with the beginnings of prompt and response."""
    who = f"{feedback.annotator}: " if feedback.annotator is not None else ""
    prompt = f" to {shorten(feedback.prompt_text)}" if feedback.prompt_text.strip() else ""
    return f"{who}{_VERBS[feedback.judgement.kind](feedback)}{prompt}"


def shorten(text: str, letters: int = MAX_LETTERS) -> str:
    """A text on one line in quotes, cut in its middle: the ends tell texts apart."""
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    half = (letters - 3) // 2
    return f"'{line}'" if len(line) <= letters else f"'{line[:half]}...{line[-half:]}'"


def _rating(feedback: Feedback) -> str:
    judgement = feedback.judgement
    assert isinstance(judgement, Rating)
    low, high = judgement.scale
    aspect = f" for {judgement.aspect}" if judgement.aspect is not None else ""
    return f"{judgement.value:g} on a scale of {low:g} to {high:g}{aspect}, for {shorten(feedback.responses[0])}"


def _ranking(feedback: Feedback) -> str:
    judgement = feedback.judgement
    assert isinstance(judgement, Ranking)
    if judgement.all_bad:
        return f"both bad: {_numbered_texts(feedback)}"
    numbers_by_rank: dict[int, list[str]] = {}
    for number, rank in enumerate(judgement.ranks, start=1):
        if rank is not None:
            numbers_by_rank.setdefault(rank, []).append(str(number))
    groups = [" and ".join(tied) if len(tied) <= MAX_CHANGES else f"{len(tied)} tied" for _, tied in sorted(numbers_by_rank.items())]
    if len(groups) == 1:
        return f"answers {groups[0]} {'tie' if len(feedback.responses) <= MAX_CHANGES else ''}: {_numbered_texts(feedback)}".replace(
            " :", ":"
        )
    unranked = [str(number) for number, rank in enumerate(judgement.ranks, start=1) if rank is None]
    rest = f"; {', '.join(unranked)} unranked" if unranked else ""
    return f"answer {groups[0]} best, then {', then '.join(groups[1:])}{rest}: {_numbered_texts(feedback)}"


def _numbered_texts(feedback: Feedback) -> str:
    letters = max(20, 2 * MAX_LETTERS // len(feedback.responses))
    texts = [f"{number} {shorten(response, letters)}" for number, response in enumerate(feedback.responses, start=1)]
    return ", ".join(texts[:MAX_TEXTS]) + f" and {len(texts) - MAX_TEXTS} more" * (len(texts) > MAX_TEXTS)


def _edit(feedback: Feedback) -> str:
    original, edited = feedback.responses
    changes = [
        f"{shorten(original[c.start : c.end], 30)} changed to {shorten(edited[c.edited_start : c.edited_end], 30)}"
        for c in edit_spans(original, edited)
    ]
    if not changes:
        return f"approved as it is: {shorten(original)}"
    more = f" and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
    return f"{', '.join(changes[:MAX_CHANGES])}{more}, in {shorten(original)}"


def _thumbs(feedback: Feedback) -> str:
    assert isinstance(feedback.judgement, Thumbs)
    return f"thumbs {'up' if feedback.judgement.up else 'down'}, for {shorten(feedback.responses[0])}"


def _spans(feedback: Feedback) -> str:
    assert isinstance(feedback.judgement, Spans)
    text = feedback.responses[0]
    marks = [
        f"{shorten(text[mark.start : mark.end], 30)} {f'{mark.label} ' if mark.label else ''}({mark.value:+g})"
        for mark in feedback.judgement.spans
    ]
    return f"marked {', '.join(marks[:MAX_CHANGES]) if marks else 'nothing'}, in {shorten(text)}"


def _comment(feedback: Feedback) -> str:
    judgement = feedback.judgement
    assert isinstance(judgement, Comment)
    text = feedback.responses[0]
    span = text if judgement.start is None else text[judgement.start : judgement.end]
    return f"wrote {shorten(judgement.text)} on {shorten(span)}"


_VERBS: dict[str, Callable[[Feedback], str]] = {
    "rating": _rating, "ranking": _ranking, "edit": _edit, "thumbs": _thumbs, "spans": _spans, "comment": _comment,
}  # fmt: skip
