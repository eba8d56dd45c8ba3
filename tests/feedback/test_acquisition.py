"""Choice of questions: the uniform part, pairs, seconds, seeds."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.acquisition import Candidates, choose_questions, pairs_of, random_pairs
from rlhf_lightning.feedback.selection.d_optimal import d_optimal
from rlhf_lightning.feedback.selection.random import random
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import components, make


def pool(prompts: int = 20, responses: int = 4, width: int = 6, **fields) -> SelectionPool:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(prompts * responses, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(width, generator=generator, dtype=torch.float64)
    groups = [(f"p{i}", [f"r{i}.{j}" for j in range(responses)]) for i in range(prompts)]
    return SelectionPool(groups=groups, features=features, scores=features @ weight, **fields)


def choose(name: str, of: SelectionPool, budget: int, seed: int = 0, share_random: float = 0.2) -> list[Choice]:
    selection = make("feedback_selection", name, {})
    return choose_questions(name, selection, of, budget, torch.Generator().manual_seed(seed), share_random=share_random)


OPTIONS = sorted(component.name for component in components("feedback_selection") if component.name != "random")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_fifth_is_uniform_and_marked(name):
    chosen = choose(name, pool(), 31)
    assert Counter(choice.selected_by for choice in chosen) == {"random": 7, name: 24}
    assert len({(choice.group, choice.responses) for choice in chosen}) == 31
    assert chosen[:7] == random_pairs(pool(), 7, torch.Generator().manual_seed(0))
    assert chosen == choose(name, pool(), 31)
    assert chosen != choose(name, pool(), 31, seed=1)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_constant_for_all_responses_to_a_prompt_changes_nothing(name):
    plain = pool()
    shifts = torch.arange(20, dtype=torch.float64).repeat_interleave(4)
    members = plain.scores + torch.randn(5, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for base in (plain, dataclasses.replace(plain, members=members)):
        moved = dataclasses.replace(
            base,
            scores=base.scores + shifts,
            features=base.features + shifts[:, None],
            members=None if base.members is None else base.members + shifts,
        )
        # Posterior samples of the scores move with the features, so that the comparison is up to rounding.
        assert [(c.group, c.responses) for c in choose(name, moved, 20)] == [(c.group, c.responses) for c in choose(name, base, 20)]


def test_a_pool_without_a_reward_model_is_asked_at_random():
    chosen = choose("d_optimal", dataclasses.replace(pool(), features=None, scores=None), 10)
    assert {choice.selected_by for choice in chosen} == {"random"}
    assert len(chosen) == 10
    with pytest.raises(ConfigError, match="feedback_selection=random"):
        d_optimal(dataclasses.replace(pool(), features=None), 10, torch.Generator())


def test_random_has_no_other_part():
    chosen = choose_questions("random", random, pool(), 20, torch.Generator(), share_random=0.2)
    assert [choice.responses for choice in chosen] == [(0, 1, 2, 3)] * 20


def test_equal_texts_and_excluded_pairs_are_no_candidates():
    few = SelectionPool(groups=[("p", ["a", "b", "a"]), ("q", []), ("r", ["c", "d", "e"])], excluded=frozenset({(2, 0, 2)}))
    assert pairs_of(few).tolist() == [[0, 0, 1], [0, 1, 2], [2, 0, 1], [2, 1, 2]]


def test_gains_count_by_second():
    """A pair that takes ten times as long needs ten times the gain."""
    plain = pool(prompts=2, responses=2)
    gains = torch.tensor([5.0, 1.0], dtype=torch.float64)
    assert Candidates.of(plain).best(gains, 1)[0].group == 0
    slow = dataclasses.replace(plain, seconds=lambda prompt, responses: 100.0 if prompt == "p0" else 10.0)
    assert Candidates.of(slow).best(gains, 1)[0].group == 1
    assert {choice.group for choice in d_optimal(slow, 1, torch.Generator())} == {1}
