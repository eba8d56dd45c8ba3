"""The prompts of every update: all of them in turn, in an order of the seed's, shared by the processes."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.rollout.prompts import fitting_prompts, prompt_loader

PROMPTS = [f"It is {i}" for i in range(7)]
ROWS = list(map(TaskPrompt, PROMPTS))


def batches(language_model, updates=5, per_update=4, seed=0, rank=0, world=1, prompts=PROMPTS) -> list[list[str]]:
    loader = prompt_loader(list(map(TaskPrompt, prompts)), language_model, updates, per_update, 8, seed=seed, rank=rank, world=world)
    return [batch.prompts for batch in loader]


def test_every_update_has_its_prompts(language_model):
    found = batches(language_model)
    assert [len(batch) for batch in found] == [4] * 5
    assert set(Counter(itertools.chain(*found)).values()) <= {2, 3}, "20 of 7 prompts: each two or three times"


def test_a_pass_is_over_before_the_next_begins(language_model):
    drawn = list(itertools.chain(*batches(language_model, updates=7, per_update=3)))
    for start in (0, 7, 14):
        assert sorted(drawn[start : start + 7]) == PROMPTS
    assert drawn[:7] != drawn[7:14], "each pass has an order of its own"


def test_the_order_is_the_seed_s(language_model):
    assert batches(language_model, seed=1) == batches(language_model, seed=1) != batches(language_model, seed=2)


def test_two_processes_share_each_update(language_model):
    whole = batches(language_model)
    shares = [batches(language_model, rank=rank, world=2) for rank in (0, 1)]
    for update, batch in enumerate(whole):
        assert sorted(shares[0][update] + shares[1][update]) == sorted(batch)
        assert len(shares[0][update]) == len(shares[1][update]) == 2


def test_fewer_prompts_than_an_update_takes_are_repeated(language_model):
    (batch,) = batches(language_model, updates=1, per_update=4, prompts=["It"])
    assert batch == ["It"] * 4


@pytest.mark.parametrize(("wrong", "message"), [({"prompts": []}, "there are no prompts"), ({"world": 3}, "multiple of the 3 processes")])
def test_what_can_not_be_drawn_or_shared_is_refused(language_model, wrong, message):
    with pytest.raises(ConfigError, match=message):
        batches(language_model, **wrong)


def test_a_batch_is_encoded_with_room_for_the_response(language_model):
    (batch,) = prompt_loader([TaskPrompt("It"), TaskPrompt("a quiet fan")], language_model, 1, 2, 8, seed=0, rank=0, world=1)
    assert batch.prompt_ids.shape == batch.prompt_mask.shape
    assert sorted(batch.group.tolist()) == [0, 1]


LONG = "The kettle boils water quickly. " * 12


def test_an_overlong_prompt_is_left_out_and_counted(language_model):
    prompts = [*PROMPTS[:3], LONG, *PROMPTS[3:], LONG + "x"]
    checked = fitting_prompts(list(map(TaskPrompt, prompts)), [language_model], 8)
    assert checked.prompts == ROWS
    assert checked.overlong == 2
    assert "64 positions" in checked.reason


@pytest.mark.parametrize("count", [255, 256, 257, 600])
def test_prompts_keep_their_order_over_several_chunks(tiny_of, count):
    prompts = [f"It is {i}" for i in range(count)]
    with_long = [*prompts[: count // 2], LONG, *prompts[count // 2 :]]
    assert fitting_prompts(list(map(TaskPrompt, with_long)), [tiny_of("llama")], 8).prompts == list(map(TaskPrompt, prompts))


@pytest.mark.parametrize(("room", "remedy"), [(8, "filter it out$"), (60, "lower rollout_sampler.max_new_tokens to")])
def test_no_prompt_that_fits_is_an_error_with_its_limit(tiny_of, room, remedy):
    with pytest.raises(DataError, match=rf"none of the 2 prompts fits: .* up to {room} don't fit the model's 64 positions.*{remedy}"):
        fitting_prompts([TaskPrompt(LONG if room == 8 else "The kettle boils water quickly.")] * 2, [tiny_of("gpt2")], room)


def test_a_response_that_fills_the_model_names_its_setting(tiny_of):
    with pytest.raises(DataError, match=r"up to 64 tokens leaves none for a prompt.*lower rollout_sampler.max_new_tokens"):
        fitting_prompts(ROWS, [tiny_of("gpt2")], 64)


def test_the_smallest_model_binds(tiny_of):
    small, large = tiny_of("gpt2"), tiny_of("llama")
    large.model.config.max_position_embeddings = 640
    checked = fitting_prompts([*ROWS, TaskPrompt(LONG)], [large, small], 8)
    assert checked.prompts == ROWS
    assert "64 positions" in checked.reason
    assert fitting_prompts([*ROWS, TaskPrompt(LONG)], [large], 8).overlong == 0


def test_columns_come_with_their_prompts(language_model):
    rows = [TaskPrompt(prompt, {"answer": i} if i % 2 else {"level": str(i)}) for i, prompt in enumerate(PROMPTS)]
    (batch,) = prompt_loader(rows, language_model, 1, 7, 8, seed=0, rank=0, world=1)
    positions = [PROMPTS.index(prompt) for prompt in batch.prompts]
    assert batch.columns == {"level": [None if i % 2 else str(i) for i in positions], "answer": [i if i % 2 else None for i in positions]}
