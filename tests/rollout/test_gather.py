"""What two processes draw and gather is what one would have: the same rows, in the same order, with the same seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.errors import UserError
from rlhf_lightning.rollout.gather import concat_rollouts, drop_unscored, expand_prompts, gather_rollouts

PROMPTS = ["It", "a quiet fan, and", "The kettle", "Review of a lamp:\n"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("world", [2, 4])
def test_a_response_has_one_seed_however_many_processes_share_the_prompts(language_model, world):
    alone = expand_prompts(language_model.encode_prompts(PROMPTS, 4), 3, generator(), 0, 1)
    seeds = dict(zip(zip(alone.prompts, [0, 1, 2] * 4, strict=True), alone.seeds.tolist(), strict=True))
    assert len(set(seeds.values())) == 12
    for rank in range(world):
        share = expand_prompts(language_model.encode_prompts(PROMPTS[rank::world], 4), 3, generator(), rank, world)
        copies = [0, 1, 2] * (4 // world)
        assert [seeds[row] for row in zip(share.prompts, copies, strict=True)] == share.seeds.tolist()


def test_records_are_joined_to_a_common_width(scored_of):
    short, long = torch.tensor([[1, 1]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    one = scored_of(short, scores=torch.tensor([5.0]), old_log_probs=torch.tensor([[-1.0, -2.0]]))
    one = replace(one, columns={"answer": ["z"]}, component_scores={"a": torch.tensor([3.0])})
    two = scored_of(
        long, scores=torch.tensor([6.0, 7.0]), columns={"answer": ["x", None]}, component_scores={"a": torch.tensor([1.0, 2.0])}
    )
    one = replace(one, prompt_ids=torch.tensor([[0, 8, 9]]), prompt_mask=torch.tensor([[0, 1, 1]]))
    whole = concat_rollouts([two, one])
    assert whole.scores.tolist() == [6.0, 7.0, 5.0]
    assert whole.response_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert whole.old_log_probs[2].tolist() == [-1.0, -2.0, 0.0, 0.0]
    assert whole.prompt_ids[2].tolist() == [0, 8, 9], "prompts are padded on their left"
    assert whole.prompt_mask.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 1]]
    assert whole.responses == two.responses + one.responses
    assert whole.values is None
    assert whole.columns == {"answer": ["x", None, "z"]}
    assert whole.component_scores["a"].tolist() == [1.0, 2.0, 3.0]


def test_processes_gather_what_one_has(scored_of, monkeypatch):
    """The exchange itself is stood in for; tests/test_processes.py has real processes."""
    group = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    alone = scored_of(torch.ones(8, 2, dtype=torch.long), scores=torch.arange(8.0), group=group)
    shares = [alone.select(torch.tensor(rows)) for rows in ([0, 1, 4, 5], [2, 3, 6, 7])]
    shares = [replace(share, group=torch.tensor([0, 0, 1, 1])) for share in shares]

    def exchange(parts, own):
        parts[:] = [replace(shares[0], group=shares[0].group * 2), own]

    monkeypatch.setattr(torch.distributed, "all_gather_object", exchange)
    whole = gather_rollouts(shares[1], 1, 2)
    assert whole.scores.tolist() == alone.scores.tolist()
    assert whole.group.tolist() == group.tolist()
    assert whole.responses == alone.responses
    assert gather_rollouts(alone, 0, 1) is alone


NAN = math.nan


def test_the_others_are_valued_as_if_it_had_never_been_drawn(scored_of):
    scores, group = torch.tensor([1.0, NAN, 4.0, 2.0, 0.0, NAN]), torch.tensor([0, 0, 0, 1, 1, 2])
    kept, said = drop_unscored(scored_of(torch.ones(6, 2), scores=scores, group=group), 0.5, "mine")
    known = torch.tensor([0, 2, 3, 4])
    alone = scored_of(torch.ones(4, 2), scores=scores[known], group=group[known])
    torch.testing.assert_close(grpo(kept).advantages, grpo(alone).advantages, rtol=0, atol=0)
    assert kept.responses == ["response 0", "response 2", "response 3", "response 4"]
    assert said == "scorer mine couldn't score 2 of 6 responses (NaN or None), as 'response 1'; they are left out (objective/unscorable)"


def test_where_all_are_scored_the_record_stays(scored_of):
    scored = scored_of(torch.ones(3, 2))
    assert drop_unscored(scored, 0.0, "mine") == (scored, "")


def test_a_response_without_a_baseline_can_not_be_learned_from(scored_of):
    scored = scored_of(torch.ones(3, 2))
    scored.baseline_scores = torch.tensor([0.0, NAN, 1.0])
    assert drop_unscored(scored, 0.5, "mine")[0].responses == ["response 0", "response 2"]


@pytest.mark.parametrize(
    ("rows", "lost", "most", "stops"),
    [(20, 2, 0.1, False), (20, 3, 0.1, True), (4, 1, 0.0, False), (4, 2, 0.0, True), (1, 1, 0.9, True), (4, 4, 0.99, True)],
)
def test_one_may_be_lost_a_share_may_be_lost_and_never_all(scored_of, rows, lost, most, stops):
    scores = torch.tensor([NAN] * lost + [1.0] * (rows - lost))
    scored = scored_of(torch.ones(rows, 1), scores=scores)
    if stops:
        with pytest.raises(UserError, match=rf"scorer mine couldn't score {lost} of {rows} responses .* as 'response 0': more than"):
            drop_unscored(scored, most, "mine")
    else:
        assert len(drop_unscored(scored, most, "mine")[0]) == rows - lost
