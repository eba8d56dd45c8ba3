"""Load a policy that a run saved, and generate with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.registry import make

if TYPE_CHECKING:
    from rlhf_lightning.flow import Prompt, Rollout
    from rlhf_lightning.model.language_model import LanguageModel


def load_policy(folder: Path | str) -> LanguageModel:
    """Load the policy that a run saved, or another Hugging Face model that generates texts.

    Args:
        folder: a local folder or a Hub name.

    Raises:
        UserError: no such model, or one that can't generate.
    """
    from rlhf_lightning.model.trunk import load_config, trunk_kind

    kind = "encoder_decoder" if trunk_kind(load_config(str(folder))) == "encoder_decoder" else "causal"
    language_model: LanguageModel = make("backbone", kind, {"path": str(folder)})(())
    return language_model


def generate(
    policy: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    stop_strings: Sequence[str] = (),
) -> list[str]:
    """Generate one response per prompt with the native sampler.

    Args:
        prompts: texts, or conversations as tuples of `Message`.
        temperature: of the softmax; 0 takes the likeliest token.
        stop_strings: texts before which a response ends.

    Raises:
        UserError: a prompt without room for its response.
    """
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "stop_strings": tuple(stop_strings)}
    sampler = make("rollout_sampler", "native", settings)
    batch = policy.encode_prompts(prompts, max_new_tokens).to(policy.model.device)
    rollout: Rollout = sampler(policy, batch)
    return rollout.responses
