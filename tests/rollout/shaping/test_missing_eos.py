from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.rollout.shaping.missing_eos import missing_eos


def test_only_a_response_that_did_not_end_pays_on_its_last_token(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    has_eos = torch.tensor([True, False, False, False])
    scored = scored_of(mask, scores=torch.tensor([1.0, 2.0, 3.0, 4.0]), has_eos=has_eos)
    shaped = missing_eos(scored, penalty=1.5)
    assert torch.equal(shaped.rewards, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [2.5, 0.0, 0.0]]))
    assert torch.equal(shaped.scores, scored.scores)
    assert scored.rewards[1, 2] == 2.0


def test_token_ids_are_not_read(scored_of: Any) -> None:
    """With pad == eos every padded row holds EOS ids; only the sampler knows which one ended the response."""
    mask, ids = torch.tensor([[1, 1, 0]]), torch.tensor([[5, 0, 0]])
    cut_off = missing_eos(scored_of(mask, response_ids=ids, has_eos=torch.tensor([False])))
    ended = missing_eos(scored_of(mask, response_ids=ids, has_eos=torch.tensor([True])))
    assert cut_off.rewards.tolist() == [[0.0, -1.0, 0.0]]
    assert ended.rewards.tolist() == [[0.0, 0.0, 0.0]]
