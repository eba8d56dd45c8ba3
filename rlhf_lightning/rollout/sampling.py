"""Interface of a rollout sampler with its settings bound, and the columns of its prompts."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel


class Sampler(Protocol):
    """Samples one response for each prompt."""

    def __call__(self, language_model: LanguageModel, prompts: Prompts, /) -> Rollout: ...


def sample_responses(sampler: Sampler, language_model: LanguageModel, prompts: Prompts) -> Rollout:
    """Sample one response for each prompt; the rollout has the columns of the prompts."""
    return dataclasses.replace(sampler(language_model, prompts), columns=prompts.columns)
