"""Groups of one prompt: every row once, none too large, in the order in which prompts come."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.feedback.grouping import PromptGroups, group_loader, prompt_groups


@given(prompts=st.lists(st.integers(0, 6), min_size=1, max_size=40), size=st.integers(1, 9))
def test_groups_are_of_one_prompt_and_hold_every_row_once(prompts, size):
    order, bounds = prompt_groups(np.array(prompts), size)
    groups = [order[start:end].tolist() for start, end in itertools.pairwise(bounds)]
    assert sorted(row for group in groups for row in group) == list(range(len(prompts)))
    assert all(1 <= len(group) <= size and group == sorted(group) for group in groups)
    of = [{prompts[row] for row in group} for group in groups]
    assert all(len(one) == 1 for one in of)
    assert list(dict.fromkeys(min(one) for one in of)) == list(dict.fromkeys(prompts)), "in the order in which prompts first come"
    counts = {prompt: sum(one == {prompt} for one in of) for prompt in set(prompts)}
    assert counts == {prompt: -(-prompts.count(prompt) // size) for prompt in set(prompts)}, "no group is smaller than it must be"


@given(prompts=st.lists(st.integers(0, 6), min_size=1, max_size=40), size=st.integers(1, 9), world=st.integers(1, 4))
def test_a_loader_gives_every_row_once_and_a_prompt_s_together(prompts, size, world):
    numbers = np.array(prompts)
    loaders = [group_loader(numbers, size, size, (0, rank, world), list, lambda rows: []) for rank in range(world)]
    batches = [[list(share) for share in loader] for loader in loaders]
    assert {len(shares) for shares in batches} == {len(loaders[0])}, "every process takes as many steps"
    assert sorted(row for shares in batches for share in shares for row in share) == list(range(len(prompts)))
    groups = [set(rows.tolist()) for rows in PromptGroups(numbers, size)]
    assert all(group <= set(share) or not group & set(share) for shares in batches for share in shares for group in groups)
