"""An option under test, the configuration that chooses it, and records to try it on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.config import schema
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.feedback.batch import JudgementBatch, collate
from rlhf_lightning.feedback.judgements import PromptResponse, standardise
from rlhf_lightning.flow import Experience, Feedback, ScoredRollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.registry import Component, make
from rlhf_lightning.tensors import score_on_last_token


@dataclass(frozen=True)
class Trial:
    """An option under test.

    Attributes:
        component: the option.
        settings: what it is made with.
        example: a row, a text or a file's content that it reads; None for the contract's own.
        folder: an empty folder.
    """

    component: Component
    settings: dict[str, Any]
    example: Any
    folder: Path

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.component.target)

    def has(self, setting: str) -> bool:
        """Tell whether the test leaves a setting of this name unset."""
        names = {declared.name for declared in schema.settings_of(self.component.target)}
        return setting in names - self.settings.keys()

    def make(self, *args: Any, **settings: Any) -> Any:
        """Make the component from its run-time arguments."""
        return make(self.component.group, self.component.name, {**self.settings, **settings}, *args)


def compose_command(*overrides: str) -> DictConfig:
    """Compose the configuration of a command."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


CORPUS = ("The lamp: a good lamp.", "The fan: it is quiet, and it costs little.")


def small_model() -> LanguageModel:
    """An untrained model of one layer, width 16."""
    torch.manual_seed(0)
    return tiny(CORPUS * 4, layers=1, width=16, heads=2, vocabulary=300, positions=64)


def scored_rollout(responses: Sequence[str] = ("a good lamp", "a lamp", "bad", "lamp")) -> ScoredRollout:
    """Responses, two to a prompt, of up to five tokens; every other one was cut off. Deterministic."""
    generator = torch.Generator().manual_seed(0)
    rows, steps = len(responses), 5
    mask = (torch.arange(steps) < 2 + torch.arange(rows)[:, None] % 4).long()
    scores = torch.randn(rows, generator=generator)
    log_probs = -torch.rand(3, rows, steps, generator=generator) * mask
    return ScoredRollout(
        prompts=[f"The thing {row // 2}:" for row in range(rows)], prompt_ids=torch.ones(rows, 2, dtype=torch.long),
        prompt_mask=torch.ones(rows, 2, dtype=torch.long), group=torch.arange(rows) // 2, responses=list(responses),
        response_ids=mask.clone(), response_mask=mask, has_eos=torch.arange(rows) % 2 == 0, sampled_log_probs=log_probs[0], scores=scores,
        rewards=score_on_last_token(scores, mask), old_log_probs=log_probs[1], ref_log_probs=log_probs[2],
        entropy=torch.rand(rows, steps, generator=generator) * mask, values=torch.randn(rows, steps, generator=generator) * mask,
        kl_coef=0.1,
    )  # fmt: skip


def experience() -> Experience:
    """`scored_rollout` with advantages and returns."""
    scored = scored_rollout()
    assert scored.values is not None
    advantages = scored.rewards.sum(1, keepdim=True) * scored.response_mask
    return Experience.of(scored, advantages, scored.values + advantages)


def judgement_batch(*feedback: Feedback) -> JudgementBatch:
    """A batch of judgements whose texts are a token each, for a loss that reads scores."""
    return collate(standardise(feedback), _OneToken())


class _OneToken:
    def tokenise(self, texts: Sequence[PromptResponse]) -> PackedTokens:
        return PackedTokens.of([[0]] * len(texts))

    def response_offsets(self, text: PromptResponse) -> tuple[int, list[tuple[int, int]]]:
        return 0, [(0, len(text[1]))]
