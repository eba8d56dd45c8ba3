"""The records that flow through the house. Each step of the policy's flow is a type that adds fields, so that nothing can be read
before it exists: Prompts -> Rollout -> ScoredRollout -> Experience.

Shapes: B responses, P prompt tokens (left-padded), T response tokens (right-padded).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor


class Record(BaseModel):
    """A strict, frozen record: wrong types, unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Rating(Record):
    """A number that one annotator gave to responses[0], on the scale (lowest, highest)."""

    kind: Literal["rating"] = "rating"
    value: FiniteFloat
    scale: tuple[FiniteFloat, FiniteFloat]

    @model_validator(mode="after")
    def _on_scale(self) -> Self:
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale must be (lowest, highest), not {self.scale}")
        if not low <= self.value <= high:
            raise ValueError(f"rating {self.value:g} is off its scale {low:g} to {high:g}")
        return self


class Ranking(Record):
    """ranks[i] is the place of responses[i]: lower is better, equal is a tie. A pair is a ranking of two."""

    kind: Literal["ranking"] = "ranking"
    ranks: tuple[int, ...]
    margin: FiniteFloat | None = None
    """How much better the first is than the last, in the source's own units, where it was said."""


class Edit(Record):
    """responses = (original, edited): a person improved the original. Equal texts are an approval."""

    kind: Literal["edit"] = "edit"


Judgement = Annotated[Rating | Ranking | Edit, Field(discriminator="kind")]


class Feedback(Record):
    """What one annotator said about the responses to one prompt."""

    version: Literal[1] = 1
    prompt: str
    responses: tuple[str, ...]
    judgement: Judgement
    annotator: str | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    """How much this judgement counts in the reward loss."""
    origin: str | None = None
    """Where it was read: file:line."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        judgement, count = self.judgement, len(self.responses)
        if isinstance(judgement, Ranking):
            if count < 2:
                raise ValueError("a ranking needs at least two responses")
            if len(judgement.ranks) != count:
                raise ValueError(f"{len(judgement.ranks)} ranks for {count} responses")
        expected = {"rating": 1, "edit": 2}.get(judgement.kind, count)
        if count != expected:
            raise ValueError(f"{judgement.kind} takes {expected} responses, not {count}")
        return self


@dataclass(kw_only=True)
class Prompts:
    """Prompts ready for the policy.

    Attributes:
        prompts: the texts, B of them.
        prompt_ids, prompt_mask: [B, P], left-padded.
        group: [B] which prompt of the batch a row is; responses to the same prompt share it.
    """

    prompts: list[str]
    prompt_ids: Tensor
    prompt_mask: Tensor
    group: Tensor

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
        """Each row `times` over, neighbours: for several responses to a prompt."""
        return self.select(torch.arange(len(self), device=self.group.device).repeat_interleave(times))

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
        values: [B, T] critic's estimate before each token; None without a critic.
        kl_coef: weight of the KL penalty now.
    """

    scores: Tensor
    rewards: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    values: Tensor | None
    kl_coef: float


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
