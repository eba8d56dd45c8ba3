"""The records that flow through the house. Each step of the policy's flow is a type that adds fields, so that nothing can be read
before it exists: Prompts -> Rollout -> ScoredRollout -> Experience.

Shapes: B responses, P prompt tokens (left-padded), T response tokens (right-padded).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor


class Record(BaseModel):
    """A strict, frozen record: wrong types, unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


Prompt = str | tuple[Message, ...]
"""What a response answers: a text, or the messages of a chat before it."""


class FramedPrompt(str):
    """A text prompt between a prefix and a suffix by the author of the configuration, who may write special tokens in the two.

    It is the joined text wherever a text is wanted.
    """

    prefix: str
    content: str
    suffix: str

    def __new__(cls, prefix: str, content: str, suffix: str) -> Self:
        framed = super().__new__(cls, f"{prefix}{content}{suffix}")
        framed.prefix, framed.content, framed.suffix = prefix, content, suffix
        return framed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.prefix, self.content, self.suffix)


def prompt_text(prompt: Prompt) -> str:
    """A prompt as plain text: a chat as "User: ...\\nAssistant: ...\\nUser: ...\\nAssistant:". Texts stay as they are."""
    if isinstance(prompt, str):
        return prompt
    return "".join(f"{message.role.capitalize()}: {message.content}\n" for message in prompt) + "Assistant:"


class Rating(Record):
    """A number that one annotator gave to responses[0], on the scale (lowest, highest)."""

    kind: Literal["rating"] = "rating"
    value: FiniteFloat
    scale: tuple[FiniteFloat, FiniteFloat]
    aspect: str | None = None
    """What was rated ("helpfulness"); None for the response as a whole."""
    turn: Annotated[int, Field(ge=0)] | None = None
    """Where the rated turn stands in its dialogue, counted from 0; None for a rating that isn't one of a dialogue's turns."""

    @model_validator(mode="after")
    def _on_scale(self) -> Self:
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale must be (lowest, highest), not {self.scale}")
        if not low <= self.value <= high:
            raise ValueError(f"rating {self.value:g} is off its scale {low:g} to {high:g}")
        return self


class Ranking(Record):
    """ranks[i] is the place of responses[i]: lower is better, equal is a tie, None was left unranked. A pair is a ranking of two."""

    kind: Literal["ranking"] = "ranking"
    ranks: tuple[int | None, ...]
    margin: FiniteFloat | None = None
    """How much better the first is than the last, in the source's own units, where it was said."""
    all_bad: bool = False
    """The annotator said that none of them is good ("both bad")."""


class Edit(Record):
    """responses = (original, edited): a person improved the original. Equal texts are an approval.

    What changed is found by feedback.standardise.edit_spans, from the two texts alone.
    """

    kind: Literal["edit"] = "edit"


class Thumbs(Record):
    """Thumbs up or down for responses[0]."""

    kind: Literal["thumbs"] = "thumbs"
    up: bool


class SpanLabel(Record):
    """A stretch of responses[0], text[start:end] in characters, and how good it is: -1 bad to 1 good."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    value: Annotated[float, Field(ge=-1, le=1)]
    label: str | None = None
    """What was said about it ("Fluency/Grammar")."""


class Spans(Record):
    """Stretches of responses[0] that were marked: spans of errors or praise, or the steps of a solution. None marked is fine."""

    kind: Literal["spans"] = "spans"
    spans: tuple[SpanLabel, ...]


class Comment(Record):
    """What a person wrote about responses[0], or about the stretch of it from start to end."""

    kind: Literal["comment"] = "comment"
    text: str
    start: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=0)] | None = None


Judgement = Annotated[Rating | Ranking | Edit | Thumbs | Spans | Comment, Field(discriminator="kind")]


class Feedback(Record):
    """What one annotator said about the responses to one prompt."""

    version: Literal[1] = 1
    prompt: Prompt
    """Empty text where the responses were judged by themselves."""
    responses: tuple[str, ...]
    judgement: Judgement
    models: tuple[str | None, ...] | None = None
    """Who wrote each response."""
    positions: tuple[int, ...] | None = None
    """Where each response stood when it was judged, the first 0; None where the order was not recorded."""
    annotator: str | None = None
    time: datetime | None = None
    """When it was said."""
    seconds: Annotated[float, Field(ge=0)] | None = None
    """How long it took."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """How much this judgement counts in the reward loss."""
    source: str | None = None
    """The name of the data set."""
    origin: str | None = None
    """Where it was read: file:line."""

    @property
    def prompt_text(self) -> str:
        return prompt_text(self.prompt)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        judgement, count = self.judgement, len(self.responses)
        if isinstance(judgement, Ranking):
            if count < 2:
                raise ValueError("a ranking needs at least two responses")
            if len(judgement.ranks) != count:
                raise ValueError(f"{len(judgement.ranks)} ranks for {count} responses")
        expected = {"ranking": count, "edit": 2}.get(judgement.kind, 1)
        if count != expected:
            raise ValueError(f"{judgement.kind} takes {expected} responses, not {count}")
        for name, given in (("models", self.models), ("positions", self.positions)):
            if given is not None and len(given) != count:
                raise ValueError(f"{len(given)} {name} for {count} responses")
        _check_stretches(judgement, len(self.responses[0]))
        return self


def _check_stretches(judgement: Judgement, length: int) -> None:
    stretches: list[tuple[int, int]] = []
    if isinstance(judgement, Spans):
        stretches = [(span.start, span.end) for span in judgement.spans]
    elif isinstance(judgement, Comment) and (judgement.start is not None or judgement.end is not None):
        if judgement.start is None or judgement.end is None:
            raise ValueError("a comment on a stretch needs its start and its end")
        stretches = [(judgement.start, judgement.end)]
    for start, end in stretches:
        if not start < end <= length:
            raise ValueError(f"the stretch {start} to {end} is not inside the response of {length} characters")


@dataclass(kw_only=True)
class Prompts:
    """Prompts ready for the policy.

    Attributes:
        prompts: the texts, B of them.
        prompt_ids, prompt_mask: [B, P], left-padded.
        group: [B] which prompt of the batch a row is; responses to the same prompt share it.
        seeds: [B] what each response is drawn with, so that it is the same in whatever company it is drawn; None draws them too.
    """

    prompts: list[str]
    prompt_ids: Tensor
    prompt_mask: Tensor
    group: Tensor
    seeds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Tensor) -> Self:
        """The same record with the chosen rows, for minibatches."""
        chosen: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value[rows]
            elif isinstance(value, list):
                value = [value[i] for i in rows.tolist()]
            chosen[field.name] = value
        return type(self)(**chosen)

    def repeat(self, times: int) -> Self:
        """Each row `times` over, neighbours: for several responses to a prompt. Seeds are left out, for they would be drawn alike."""
        return dataclasses.replace(self.select(torch.arange(len(self), device=self.group.device).repeat_interleave(times)), seeds=None)

    def to(self, device: torch.device | str) -> Self:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
        return type(self)(**moved)


@dataclass(kw_only=True)
class Rollout(Prompts):
    """Responses drawn from the policy.

    Attributes:
        responses: the texts, without special tokens.
        response_ids, response_mask: [B, T], right-padded; the mask covers the EOS, never what follows it.
        has_eos: [B] whether the response ended by itself.
        sampled_log_probs: [B, T] log-probability of each token as the sampler saw it; 0 outside the mask.
        temperature: of the sampler; every log-probability of these tokens is taken at it.
    """

    responses: list[str]
    response_ids: Tensor
    response_mask: Tensor
    has_eos: Tensor
    sampled_log_probs: Tensor
    temperature: float = 1.0


@dataclass(kw_only=True)
class ScoredRollout(Rollout):
    """A rollout with what is needed to value it.

    Attributes:
        scores: [B] from the scorer, before shaping.
        rewards: [B, T]; starts as the score on the last response token, shapings change it.
        old_log_probs, ref_log_probs: [B, T] under the behaviour policy and the frozen reference; 0 outside the mask.
        entropy: [B, T] in nats, of the behaviour policy's full distribution; 0 outside the mask.
        values: [B, T] critic's estimate before each token; None without a critic.
        kl_coef: weight of the KL penalty now.
        baseline_scores: [B] of the greedy response to each row's prompt; None where the estimator needs none.
    """

    scores: Tensor
    rewards: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    entropy: Tensor
    values: Tensor | None
    kl_coef: float
    baseline_scores: Tensor | None = None


@dataclass(kw_only=True)
class Experience(ScoredRollout):
    """A scored rollout with advantages [B, T], and returns [B, T] where the estimator trains a critic."""

    advantages: Tensor
    returns: Tensor | None

    @classmethod
    def of(cls, scored: ScoredRollout, advantages: Tensor, returns: Tensor | None = None) -> Experience:
        fields = {field.name: getattr(scored, field.name) for field in dataclasses.fields(scored)}
        return cls(**fields, advantages=advantages, returns=returns)


def score_on_last_token(scores: Tensor, response_mask: Tensor) -> Tensor:
    """[B] scores laid on the last response token of each row, [B, T]; a row without response tokens gets no reward."""
    inside = response_mask.bool()
    last = inside & (inside.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(last, scores[:, None], torch.zeros_like(scores[:, None]))
