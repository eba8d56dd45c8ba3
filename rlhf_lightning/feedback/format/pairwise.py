"""Rows with a chosen and a rejected response."""

from __future__ import annotations

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.unread import shared_start
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register

TURN = "\n\nAssistant:"


@register("feedback_format", "pairwise")
class PairwiseFormat:
    """A prompt with a chosen and a rejected response: a ranking of two.

    A row without the prompt field, whose texts share a beginning up to a last "\\n\\nAssistant:", is taken as Anthropic's HH-RLHF
    stores it: the shared dialogue is the prompt, what follows, without surrounding blanks, the responses. An empty rejected
    response is refused like an empty chosen one: it is mostly a failed export, and would teach little but that texts have words.
    Lists of messages are not read.

    Args:
        prompt, chosen, rejected: the names of the fields.
        margin: optional field, how much better the chosen one is; at least 0.
        annotator: optional field, who judged.
    """

    def __init__(
        self,
        *,
        prompt: str = "prompt",
        chosen: str = "chosen",
        rejected: str = "rejected",
        margin: str | None = "margin",
        annotator: str | None = "annotator",
    ) -> None:
        self.prompt, self.chosen, self.rejected, self.margin, self.annotator = prompt, chosen, rejected, margin, annotator
        self.fields = frozenset(name for name in (prompt, chosen, rejected, margin, annotator) if name is not None)
        self.looks_for = f"pairwise looks for '{chosen}' and '{rejected}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.chosen) is None and row.get(self.rejected) is None:
            return None
        chosen, rejected = row.text(self.chosen), row.text(self.rejected)
        if row.has(self.prompt):
            prompt = row.text(self.prompt)
        else:
            prompt, chosen, rejected = self._split(chosen, rejected)
        margin = None
        if self.margin is not None and row.get(self.margin) is not None:
            margin = row.number(self.margin)
            if margin < 0:
                raise DataError(f"{self.margin} is {margin:g}; it says how much better the chosen one is, so it can't be below 0")
        judgement = Ranking(ranks=(0, 1), margin=margin)
        who = row.label(self.annotator)
        return [Feedback(prompt=prompt, responses=(chosen, rejected), judgement=judgement, annotator=who, origin=row.origin)]

    def _split(self, chosen: str, rejected: str) -> tuple[str, str, str]:
        end = chosen[: shared_start(chosen, rejected)].rfind(TURN)
        if end < 0:
            raise DataError(f"field '{self.prompt}' is missing, and the texts share no dialogue up to {TURN!r}")
        end += len(TURN)
        answers = chosen[end:].strip(), rejected[end:].strip()
        for name, answer in zip((self.chosen, self.rejected), answers, strict=True):
            if not answer:
                raise DataError(f"{name} has no text after the shared dialogue")
        return chosen[:end], *answers
