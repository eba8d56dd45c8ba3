"""The records of the data flow: feedback, and Prompts -> Rollout -> ScoredRollout -> Experience.

Each step is a type that adds fields, so that none can be read before it exists.
Shapes: B responses, P prompt tokens (left-padded), T response tokens (right-padded).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor


class Record(BaseModel):
    """A strict, frozen record: wrong types, unknown fields, NaN and infinities are rejected."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


Prompt = str | tuple[Message, ...]
"""A text, or the messages of a chat before the response."""


class FramedPrompt(str):
    """A text prompt with a configured prefix and suffix, in which special tokens are recognised.

    As a string it is the joined text.
    """

    prefix: str
    content: str
    suffix: str

    def __new__(cls, prefix: str, content: str, suffix: str) -> Self:
        prompt = super().__new__(cls, f"{prefix}{content}{suffix}")
        prompt.prefix, prompt.content, prompt.suffix = prefix, content, suffix
        return prompt

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.prefix, self.content, self.suffix)


def prompt_text(prompt: Prompt) -> str:
    """Format a chat as "User: ...\\nAssistant: ...\\nUser: ...\\nAssistant:"; return a text unchanged."""
    if isinstance(prompt, str):
        return prompt
    return "".join(f"{message.role.capitalize()}: {message.content}\n" for message in prompt) + "Assistant:"


class Rating(Record):
    """A number that one annotator gave to responses[0], on the scale (lowest, highest)."""

    kind: Literal["rating"] = "rating"
    value: FiniteFloat
    scale: tuple[FiniteFloat, FiniteFloat]
    aspect: str | None = None
    """The rated aspect ("helpfulness"); None for the response as a whole."""
    turn: Annotated[int, Field(ge=0)] | None = None
    """Index of the rated turn in its dialogue, from 0; None outside of dialogues."""

    @model_validator(mode="after")
    def _on_scale(self) -> Self:
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale must be (lowest, highest), not {self.scale}")
        if not low <= self.value <= high:
            raise ValueError(f"rating {self.value:g} is off its scale {low:g} to {high:g}")
        return self


class Ranking(Record):
    """ranks[i] of responses[i]: lower is better, equal is a tie, None is unranked."""

    kind: Literal["ranking"] = "ranking"
    ranks: tuple[int | None, ...]
    margin: FiniteFloat | None = None
    """How much better the first is than the last, in the source's units, if known."""
    all_bad: bool = False
    """The annotator judged that none of them is good ("both bad")."""


class Edit(Record):
    """responses = (original, edited by a person). Equal texts are an approval."""

    kind: Literal["edit"] = "edit"


class Thumbs(Record):
    """Thumbs up or down for responses[0]."""

    kind: Literal["thumbs"] = "thumbs"
    up: bool


class SpanLabel(Record):
    """A span of responses[0], text[start:end] in characters, and its value: -1 bad to 1 good."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    value: Annotated[float, Field(ge=-1, le=1)]
    label: str | None = None  # category of the span ("Fluency/Grammar")


class Spans(Record):
    """Marked spans of responses[0], possibly none: errors, praise, or the steps of a solution."""

    kind: Literal["spans"] = "spans"
    spans: tuple[SpanLabel, ...]


class Comment(Record):
    """A written comment on responses[0], or on its span from start to end."""

    kind: Literal["comment"] = "comment"
    text: str
    start: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=0)] | None = None


class Skip(Record):
    """The annotator left the responses unjudged: counted, never learned from."""

    kind: Literal["skip"] = "skip"
    reason: str | None = None
    flagged: bool = False  # reported as faulty


Judgement = Annotated[Rating | Ranking | Edit | Thumbs | Spans | Comment | Skip, Field(discriminator="kind")]


class Feedback(Record):
    """One annotator's judgement of the responses to one prompt."""

    version: Literal[1] = 1
    prompt: Prompt
    """Empty if the responses were judged by themselves."""
    responses: tuple[str, ...]
    judgement: Judgement
    models: tuple[str | None, ...] | None = None
    """The author of each response."""
    positions: tuple[int, ...] | None = None
    """Display position of each response, from 0; None if unknown."""
    annotator: str | None = None
    time: datetime | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    """Duration of the judgement."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the reward loss."""
    selected_by: str | None = None
    """The option of feedback_selection that chose the question, "random" for the uniform part; None without a selection."""
    source: str | None = None
    """Name of the data set."""
    origin: str | None = None
    """file:line."""

    @property
    def prompt_text(self) -> str:
        return prompt_text(self.prompt)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        judgement, count = self.judgement, len(self.responses)
        if isinstance(judgement, Ranking) and count < 2:
            raise ValueError("a ranking needs at least two responses")
        if isinstance(judgement, Ranking) and len(judgement.ranks) != count:
            raise ValueError(f"{len(judgement.ranks)} ranks for {count} responses")
        expected = {"ranking": count, "skip": max(count, 1), "edit": 2}.get(judgement.kind, 1)
        if count != expected:
            raise ValueError(f"{judgement.kind} takes {expected} responses, not {count}")
        for name, values in (("models", self.models), ("positions", self.positions)):
            if values is not None and len(values) != count:
                raise ValueError(f"{len(values)} {name} for {count} responses")
        _check_spans(judgement, len(self.responses[0]))
        return self


def _check_spans(judgement: Judgement, length: int) -> None:
    spans = judgement.spans if isinstance(judgement, Spans) else (judgement,) if isinstance(judgement, Comment) else ()
    for start, end in ((span.start, span.end) for span in spans):
        if (start is None) != (end is None):
            raise ValueError("a comment on a span needs its start and its end")
        if start is not None and end is not None and not start < end <= length:
            raise ValueError(f"the span {start} to {end} is not inside the response of {length} characters")


@dataclass(kw_only=True)
class Prompts:
    """Prompts ready for the policy.

    Attributes:
        prompts: the texts or conversations, B of them.
        prompt_ids, prompt_mask: [B, P], left-padded.
        group: [B] index of the row's prompt in the batch; responses to one prompt share it.
        seeds: [B] of each response's sampling, so that it doesn't depend on the rest of the batch; None draws them too.
        columns: other columns of the prompts' rows by name, B values each; None where a row lacks one.
    """

    prompts: list[Prompt]
    prompt_ids: Tensor
    prompt_mask: Tensor
    group: Tensor
    seeds: Tensor | None = None
    columns: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, rows: Tensor) -> Self:
        """Select rows, for minibatches."""
        indices = rows.tolist()
        return self._map(lambda v: v[rows] if isinstance(v, Tensor) else [v[i] for i in indices] if isinstance(v, list) else v)

    def repeat(self, times: int) -> Self:
        """Repeat each row `times`, adjacent, for several responses to a prompt; seeds are dropped."""
        return dataclasses.replace(self.select(torch.arange(len(self), device=self.group.device).repeat_interleave(times)), seeds=None)

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda value: value.to(device) if isinstance(value, Tensor) else value)

    def _map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function to each field, and to each value of a field that is a dictionary."""
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            fields[field.name] = {key: function(v) for key, v in value.items()} if isinstance(value, dict) else function(value)
        return type(self)(**fields)


@dataclass(kw_only=True)
class Rollout(Prompts):
    """Responses sampled from the policy.

    Attributes:
        responses: the texts, without special tokens and up to a stop string.
        response_ids, response_mask: [B, T], right-padded; the mask includes the EOS, or the token that completes a stop string, and
            nothing after it.
        has_eos: [B] the response ended with an EOS or a stop string.
        sampled_log_probs: [B, T] log-probability of each token in the sampler; 0 outside the mask.
        temperature: of the sampler and of all log-probabilities of these tokens.
    """

    responses: list[str]
    response_ids: Tensor
    response_mask: Tensor
    has_eos: Tensor
    sampled_log_probs: Tensor
    temperature: float = 1.0


@dataclass(kw_only=True)
class ScoredRollout(Rollout):
    """A rollout with scores, log-probabilities and values.

    Attributes:
        scores: [B] from the scorer, before shaping.
        rewards: [B, T]; the score on the last response token, or on the tokens that it is for, changed by shapings.
        old_log_probs, ref_log_probs: [B, T] under the behaviour policy and the frozen reference; 0 outside the mask.
        entropy: [B, T] in nats, of the behaviour policy's full distribution; 0 outside the mask.
        values: [B, T] critic's estimate before each token; None without a critic.
        kl_coef: current weight of the KL penalty.
        baseline_scores: [B] of the greedy response to each row's prompt; None if the estimator needs none.
        component_scores, score_weights: [B] of each of several scorers by name, NaN where one doesn't apply, and its weight; else empty.
    """

    scores: Tensor
    rewards: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    entropy: Tensor
    values: Tensor | None
    kl_coef: float
    baseline_scores: Tensor | None = None
    component_scores: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    score_weights: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(kw_only=True)
class Experience(ScoredRollout):
    """A scored rollout with advantages [B, T], and returns [B, T] for an estimator with a critic."""

    advantages: Tensor
    returns: Tensor | None

    @classmethod
    def of(cls, scored: ScoredRollout, advantages: Tensor, returns: Tensor | None = None) -> Experience:
        fields = {field.name: getattr(scored, field.name) for field in dataclasses.fields(scored)}
        return cls(**fields, advantages=advantages, returns=returns)
