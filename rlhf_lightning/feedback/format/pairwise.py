"""Rows with a chosen and a rejected response."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import responses_of
from rlhf_lightning.feedback.format._metadata import RowFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "pairwise")
@dataclass(kw_only=True)
class PairwiseFormat(RowFormat):
    """A prompt with a chosen and a rejected response: a ranking of two.

    Prompt and responses are texts or lists of {"role", "content"} messages: TRL's preference rows, with a prompt or with one that
    chosen and rejected share. Texts without the prompt field that share a beginning up to a last "\\n\\nAssistant:" are taken as
    Anthropic's HH-RLHF stores them: the shared dialogue is the prompt, what follows, without surrounding blanks, the responses. An
    empty rejected response is rejected like an empty chosen one: it is mostly a failed export, and would teach little more than that texts
    have words. Ties are for the format `verdict`.

    Attributes:
        chosen, rejected: the names of the fields.
        margin: optional field, how much better the chosen one is; at least 0.
        models: optional fields, who wrote the chosen and the rejected response; or one field with a list of both.
    """

    chosen: str = "chosen"
    rejected: str = "rejected"
    margin: str | None = "margin"
    models: str | tuple[str, str] = ("chosen_model", "rejected_model")

    def __post_init__(self) -> None:
        looks_for = f"pairwise looks for '{self.chosen}' and '{self.rejected}'"
        self.declare(looks_for, self.chosen, self.rejected, self.margin, models=self.models)

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.chosen) is None and row.get(self.rejected) is None:
            return None
        prompt, responses = responses_of(row, self.prompt, (self.chosen, self.rejected))
        margin = None
        if self.margin is not None and row.get(self.margin) is not None:
            margin = row.number(self.margin)
            if margin < 0:
                raise DataError(f"{self.margin} is {margin:g}; the margin of the chosen response can't be below 0")
        return [Feedback(prompt=prompt, responses=responses, judgement=Ranking(ranks=(0, 1), margin=margin), **self.metadata(row))]
