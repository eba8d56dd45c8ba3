"""Share of a response that is copied from its prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.feedback.words import words_of
from rlhf_lightning.flow import Rollout, prompt_text
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register

LONGEST = 4


@register("evaluation_metric", "copy_rate")
def copy_rate(task: Task, rollout: Rollout) -> Tensor:
    """Share of each response's word 4-grams that are in its prompt, [B]; 1 for a copy, 0 for new words.

    Of a response of fewer words all its words together count. An empty response has 0. The complement is the novelty of summaries
    (See, Liu and Manning 2017).
    """
    return torch.tensor(
        [_share(prompt_text(prompt), response) for prompt, response in zip(rollout.prompts, rollout.responses, strict=True)]
    )


def _share(prompt: str, response: str) -> float:
    source, words = words_of(prompt), words_of(response)
    size = min(LONGEST, len(words))
    if not size:
        return 0.0
    in_prompt = {tuple(source[i : i + size]) for i in range(len(source) - size + 1)}
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return sum(gram in in_prompt for gram in grams) / len(grams)
