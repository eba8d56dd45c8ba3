"""Interface of a rollout sampler with its settings bound."""

from __future__ import annotations

from typing import Protocol

from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel


class Sampler(Protocol):
    """Samples one response for each prompt."""

    def __call__(self, language_model: LanguageModel, prompts: Prompts, /) -> Rollout: ...
