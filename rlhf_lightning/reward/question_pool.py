"""Scores and features of the responses that people could be asked about, for feedback_selection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judged
from rlhf_lightning.flow import Prompt
from rlhf_lightning.interfaces import SelectionPool
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
from rlhf_lightning.reward.model import RewardModel

BATCH = 64
MAX_COMPARISONS = 20_000
"""Earlier comparisons that inform a selection, the newest."""


def question_pool(model: RewardModel, groups: Sequence[tuple[Prompt, Sequence[str]]], judged: Iterable[Judged]) -> SelectionPool:
    """The pool of groups with the model's outputs, and the comparisons that were answered.

    The features are what the model's head reads, phi(x, y), unless it reads tokens; scores are log-odds, before the normalisation.
    """
    comparisons = judged_comparisons(judged)[-MAX_COMPARISONS:]
    texts = [(prompt, response) for prompt, responses in groups for response in responses]
    answered = dict.fromkeys(text for row in comparisons for text in ((row.prompt, row.better), (row.prompt, row.worse)))
    scores, features, members = read_texts(model, [*texts, *answered])
    count = len(texts)
    rows = {text: count + i for i, text in enumerate(answered)}
    better = torch.tensor([rows[row.prompt, row.better] for row in comparisons], dtype=torch.long)
    worse = torch.tensor([rows[row.prompt, row.worse] for row in comparisons], dtype=torch.long)
    return SelectionPool(
        groups=groups,
        scores=scores[:count],
        features=None if features is None else features[:count],
        members=None if members is None else members[:, :count],
        past_differences=None if features is None else features[better] - features[worse],
        past_scores=scores[better] - scores[worse],
    )


@torch.no_grad()
def read_texts(model: RewardModel, texts: Sequence[tuple[Prompt, str]]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Raw scores [N], features [N, D] and members [M, N] of texts, None if there are none.

    In float64 on the CPU.
    """
    scores, features, members = [], [], []
    head: Any = getattr(model.net, "head", None)

    def capture(module: Any, inputs: tuple[Any, ...]) -> None:
        if len(inputs) == 1 and inputs[0].dim() == 2:
            features.append(inputs[0].double().cpu())

    hook = None if head is None else head.register_forward_pre_hook(capture)
    try:
        for start in range(0, len(texts), BATCH):
            output = model.raw_scores(model.tokenise(texts[start : start + BATCH]).to(model.mean.device))
            scores.append(output.scores.double().cpu())
            if output.members is not None:
                members.append(output.members.double().cpu())
    finally:
        if hook is not None:
            hook.remove()
    return torch.cat(scores), torch.cat(features) if features else None, torch.cat(members, 1) if members else None
