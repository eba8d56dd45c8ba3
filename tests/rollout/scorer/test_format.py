from __future__ import annotations

import torch

from rlhf_lightning.rollout.scorer.format import FormatScorer

TEXTS = ["<think>2 + 2\nis 4</think>\nso 4", "<think>a", "so <think>a</think>", "<think>a<think></think>", " <think></think> "]


def test_the_default_is_trl_s_format_of_thoughts(scored_of):
    rollout = scored_of(torch.ones(5, 1), responses=TEXTS)
    assert FormatScorer()(rollout) == [True, False, False, False, True]


def test_a_part_or_the_whole_matches(scored_of):
    rollout = scored_of(torch.ones(2, 1), responses=["#### 42", "it is #### 42"])
    assert FormatScorer(pattern=r"#### \d+")(rollout) == [True, False]
    assert FormatScorer(pattern=r"#### \d+", match="search")(rollout) == [True, True]
