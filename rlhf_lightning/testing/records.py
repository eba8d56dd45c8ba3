"""Small records of the flow, for tests of plugins."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.feedback.batch import JudgementBatch, collate
from rlhf_lightning.feedback.judgements import PromptResponse, standardise
from rlhf_lightning.flow import Experience, Feedback, ScoredRollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.tensors import score_on_last_token

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
