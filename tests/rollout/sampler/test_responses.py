"""Stop strings: each sampler's responses against its own without them, and against transformers' generate."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.self_checks import check_ends
from rlhf_lightning.registry import make
from rlhf_lightning.rollout.sampler.continuous import continuous
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers
from tests.fixtures.models import make_tiny

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils water", "a quiet fan, and it costs"]
STOPS = ("e", "\n", " i")


@pytest.fixture(params=["gpt2", "t5"], scope="module")
def model(request: pytest.FixtureRequest, trunk_folder) -> LanguageModel:
    return make_tiny("gpt2") if request.param == "gpt2" else encoder_decoder([], path=trunk_folder("t5"))


def prompts_of(model: LanguageModel, steps: int) -> Prompts:
    prompts = model.encode_prompts(PROMPTS, steps).repeat(8)
    return dataclasses.replace(prompts, seeds=torch.arange(len(prompts)))


def rows(rollout: Rollout) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(rollout.response_ids, rollout.response_mask, strict=True)]


def check_stops(model: LanguageModel, rollout: Rollout, stops: tuple[str, ...], steps: int) -> int:
    """Compare each response with its ids decoded one by one; returns how many a stop string ended."""
    stopped = 0
    for i, ids in enumerate(rows(rollout)):
        texts = [
            model.decode(torch.tensor([ids[: n + 1]]), torch.ones(1, n + 1), rollout.select(torch.tensor([i])))[0] for n in range(len(ids))
        ]
        assert not any(stop in text for text in texts[:-1] for stop in stops)
        positions = [texts[-1].index(stop) for stop in stops if stop in texts[-1]]
        ends_with_eos = ids[-1] in model.eos_ids
        assert rollout.responses[i] == (texts[-1][: min(positions)] if positions else texts[-1])
        assert bool(rollout.has_eos[i]) == (bool(positions) or ends_with_eos)
        assert rollout.has_eos[i] or len(ids) == steps
        stopped += bool(positions)
    return stopped


@torch.no_grad()
def test_a_response_is_the_one_without_stop_strings_cut_behind_the_token_that_completes_the_first(model):
    prompts = prompts_of(model, 16)
    free, stopped = native(model, prompts, max_new_tokens=16), native(model, prompts, max_new_tokens=16, stop_strings=STOPS)
    for long, short in zip(rows(free), rows(stopped), strict=True):
        assert long[: len(short)] == short
    count = check_stops(model, stopped, STOPS, 16)
    assert count > 0
    width = stopped.response_ids.shape[1]
    difference = (stopped.sampled_log_probs - free.sampled_log_probs[:, :width]) * stopped.response_mask
    assert difference.abs().max() < 1e-5
    assert (Policy(model)(stopped).log_probs - stopped.sampled_log_probs).abs().max() < 2e-5
    assert check_ends(stopped, model.eos_ids, model.pad_id, 16, has_stop_strings=True).failure == ""
    assert "contradicts their last token" in check_ends(stopped, model.eos_ids, model.pad_id, 16).failure
    # Two processes, each with half of the rows.
    halves = [native(model, prompts.select(half), max_new_tokens=16, stop_strings=STOPS) for half in torch.arange(len(prompts)).chunk(2)]
    assert [row for half in halves for row in rows(half)] == rows(stopped)
    assert [text for half in halves for text in half.responses] == stopped.responses


def test_a_line_break_may_be_written_with_a_backslash_as_quotes_on_a_command_line_leave_it():
    assert make("rollout_sampler", "native", {"stop_strings": ["\\nUser:", "\n"]}).keywords["stop_strings"] == ("\nUser:", "\n")
    with pytest.raises(UserError, match="stop_strings"):
        make("rollout_sampler", "native", {"stop_strings": [""]})


@pytest.mark.parametrize("sampler", [transformers, continuous])
@torch.no_grad()
def test_the_other_samplers_end_at_the_same_tokens(model, sampler):
    if sampler is continuous and model.decoder_prefix is not None:
        pytest.skip("decoder-only models")
    torch.manual_seed(0)
    rollout = sampler(model, prompts_of(model, 16), max_new_tokens=16, stop_strings=STOPS)
    assert check_stops(model, rollout, STOPS, 16) > 0
    assert (Policy(model)(rollout).log_probs - rollout.sampled_log_probs).abs().max() < 2e-5


@torch.no_grad()
def test_greedy_ends_where_transformers_generate_ends(tiny_of):
    model = tiny_of("llama")
    prompts = model.encode_prompts(PROMPTS, 20)
    free = native(model, prompts, max_new_tokens=20, temperature=0.0)
    stops = tuple(text[i : i + 2] for text in free.responses for i in (3, 6) if len(text) > i + 1 and "\ufffd" not in text[i : i + 2])
    assert stops
    ours = native(model, prompts, max_new_tokens=20, temperature=0.0, stop_strings=stops)
    for i in range(len(prompts)):
        theirs = model.model.generate(
            input_ids=(before := prompts.prompt_ids[i][prompts.prompt_mask[i].bool()][None]), attention_mask=torch.ones_like(before),
            do_sample=False, max_new_tokens=20, eos_token_id=model.eos_ids, pad_token_id=model.pad_id, stop_strings=list(stops),
            tokenizer=model.tokenizer,
        )[0, before.shape[1] :]  # fmt: skip
        assert rows(ours)[i] == theirs.tolist()
    assert check_stops(model, ours, stops, 20) > 0


@torch.no_grad()
def test_a_stop_string_that_is_a_special_token_is_one_more_end_token(tiny_of):
    model = tiny_of("llama")
    tokenizer: Any = model.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    model.model.resize_token_embeddings(len(tokenizer))
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    output = model.model.get_output_embeddings().weight
    output[user] = output.mean(0) * 30
    rollout = native(model, prompts_of(model, 12), max_new_tokens=12, stop_strings=("<|user|>",))
    ended = [ids for ids in rows(rollout) if user in ids]
    assert ended
    assert all(ids.index(user) == len(ids) - 1 for ids in ended)
    assert not any("<|" in text for text in rollout.responses)
    with pytest.raises(ConfigError, match=r"stop_strings: '<\|user\|>\\n' .* give '<\|user\|>' alone"):
        native(model, prompts_of(model, 12), max_new_tokens=12, stop_strings=("<|user|>\n",))
