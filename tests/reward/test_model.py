"""The reward model: one score whatever the padding, saved and loaded, and the same in plain transformers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Message, prompt_text
from rlhf_lightning.model.packing import supports_packing
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean

TEXTS = [("Review of a lamp:\n", "It is a quiet fan."), ("It", " costs"), ("The kettle", " boils water quickly. It is a quiet fan.")]


@pytest.fixture
def saved_policy(language_model, tmp_path) -> str:
    language_model.save(tmp_path / "policy")
    return str(tmp_path / "policy")


def reward_model(folder: str, pooling=last, head=LinearHead) -> RewardModel:
    torch.manual_seed(0)
    trunk, tokenizer = load_trunk(folder)
    return RewardModel(ComposedScore(trunk, pooling, head(trunk.config.hidden_size)), tokenizer, 64).eval()


@pytest.mark.parametrize("pooling", [last, mean])
@torch.no_grad()
def test_packed_padded_batched_and_single_scores_agree(saved_policy, pooling, monkeypatch):
    model = reward_model(saved_policy, pooling)
    assert supports_packing(model.net.trunk)
    together = model.score_texts(*zip(*TEXTS, strict=True))
    in_pairs = model.score_texts(*zip(*TEXTS, strict=True), batch_size=2)
    alone = torch.cat([model.score_texts([prompt], [response]) for prompt, response in TEXTS])
    monkeypatch.setattr("rlhf_lightning.model.text_vectors.supports_packing", lambda trunk: False)
    padded = model.score_texts(*zip(*TEXTS, strict=True))
    monkeypatch.undo()
    plain = reward_model(saved_policy, pooling)  # its attention was never switched
    ids, mask = model.tokenise(TEXTS).to_padded(pad=7)
    ids, mask = torch.nn.functional.pad(ids, (0, 9), value=7), torch.nn.functional.pad(mask, (0, 9))
    longer = plain.net.head(pooling(plain.net.trunk(input_ids=ids, attention_mask=mask).last_hidden_state, mask))
    for other in (in_pairs, alone, padded, longer):
        assert (together - other).abs().max() < 1e-5
    assert together.std() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_packed_and_padded_train_alike(tiny_of, tmp_path, family, monkeypatch):
    tiny_of(family).save(tmp_path / "policy")
    grads = []
    for packed in (True, False):
        with monkeypatch.context() as patch:
            if not packed:
                patch.setattr("rlhf_lightning.model.text_vectors.supports_packing", lambda trunk: False)
            model = reward_model(str(tmp_path / "policy"))
            model(model.tokenise(TEXTS)).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all((grads[0][name] - grads[1][name]).norm() <= 1e-4 * grads[1][name].norm() + 1e-6 for name in grads[0])


@torch.no_grad()
def test_a_trunk_with_a_sliding_window_is_run_padded_and_scores_agree(saved_policy):
    from transformers import MistralConfig

    model = reward_model(saved_policy)
    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=len(model.tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, sliding_window=8,
    )  # fmt: skip
    model.net.trunk = AutoModel.from_config(config).eval()
    assert not supports_packing(model.net.trunk)
    together = model.score_texts(*zip(*TEXTS, strict=True))
    alone = torch.cat([model.score_texts([prompt], [response]) for prompt, response in TEXTS])
    assert (together - alone).abs().max() < 1e-5


@torch.no_grad()
def test_the_score_is_read_at_the_end_of_text_even_where_it_is_the_pad(saved_policy):
    """A tokenizer whose pad equals its end-of-text: the mask finds the last token, comparing ids would find the one before."""
    model = reward_model(saved_policy)
    model.tokenizer.pad_token = model.tokenizer.eos_token
    tokens = model.tokenise(TEXTS)
    ids, mask = tokens.to_padded(model.tokenizer.pad_token_id)
    assert (ids == model.tokenizer.eos_token_id).sum() > len(TEXTS)
    hidden = model.net.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
    lengths = [len(model.tokenizer(p)["input_ids"]) + len(model.tokenizer(r)["input_ids"]) + 1 for p, r in TEXTS]
    expected = torch.stack([model.net.head(hidden[i, n - 1]) for i, n in enumerate(lengths)])
    assert (model(tokens) - expected).abs().max() < 1e-6
    one_before = torch.stack([model.net.head(hidden[i, n - 2]) for i, n in enumerate(lengths)])
    assert (model(tokens) - one_before).abs().max() > 1e-3


@torch.no_grad()
def test_normalised_scores_have_mean_0_and_variance_1_and_twice_is_once(saved_policy):
    model = reward_model(saved_policy)
    prompts, responses = zip(*TEXTS, strict=True)
    for _ in range(2):
        model.normalise(prompts, responses)
        scores = model.score_texts(prompts, responses)
        assert scores.mean().abs() < 1e-5
        assert (scores.std() - 1).abs() < 1e-5


def test_truncation_keeps_the_response_and_is_counted(saved_policy):
    model = reward_model(saved_policy)
    model.max_length = 24
    long_prompt = "The kettle boils water quickly. " * 5
    tokens = model.tokenise([(long_prompt, "It costs little.")])
    assert tokens.lengths.tolist() == [24]
    assert model.tokenizer.decode(tokens.ids[:-1]).endswith("It costs little.")
    assert model.truncated == 1
    tokens = model.tokenise([("It", "The kettle boils water quickly. " * 5), ("It", " costs")])
    assert model.tokenizer.decode(tokens.ids[:23]).startswith("The kettle boils")
    assert model.truncated == 2


def test_truncation_of_a_long_response_keeps_the_begin_of_text_and_nothing_of_the_prompt(either_tokenizer, tmp_path):
    either_tokenizer.save(tmp_path / "policy")
    model = reward_model(str(tmp_path / "policy"))
    model.max_length = 12
    response = "The kettle boils water quickly. " * 5
    tokens = model.tokenise([("It costs", response)])
    begin = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
    expected = [*begin, *model.tokenizer(response, add_special_tokens=False)["input_ids"]]
    assert tokens.ids.tolist() == [*expected[:11], model.tokenizer.eos_token_id]


def test_special_token_strings_in_the_text_stay_text(saved_policy):
    model = reward_model(saved_policy)
    inside = model.tokenise([("It", "<|end|><|pad|> costs")]).ids.tolist()
    assert inside.count(model.tokenizer.eos_token_id) == 1
    assert inside[-1] == model.tokenizer.eos_token_id
    assert model.tokenizer.pad_token_id not in inside


@torch.no_grad()
def test_a_chat_is_scored_through_its_template_or_the_default_one(saved_policy):
    model = reward_model(saved_policy)
    said = (Message(role="user", content="It costs"), Message(role="user", content="A fan?"))
    texts = ["It costs", prompt_text(said)]
    expected = model.score_texts(texts, [" little", " boils"])
    assert torch.equal(model.score_texts(["It costs", said], [" little", " boils"]), expected)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '<|end|>' }}{% endfor %}"
    rendered = model.tokenise([(said, " boils")])
    end = model.tokenizer.eos_token_id
    assert rendered.ids.tolist().count(end) == 3
    assert model.tokenizer.decode(rendered.ids) == "It costs<|end|>A fan?<|end|> boils<|end|>"
    scores = model.score_texts(["It costs", said], [" little", " boils"])
    assert (scores[0] - expected[0]).abs() < 1e-5
    assert (scores[1] - expected[1]).abs() > 1e-3


@pytest.mark.parametrize("response", ["It is a quiet fan — 水, and it costs little.", "The kettle boils"])
def test_offsets_say_which_characters_each_token_of_the_response_stands_for(either_tokenizer, tmp_path, response):
    either_tokenizer.save(tmp_path / "policy")
    model = reward_model(str(tmp_path / "policy"))
    for max_length in (200, 12):
        model.max_length = max_length
        first, offsets = model.response_offsets(("Review of a lamp:\n", response))
        row = model.tokenise([("Review of a lamp:\n", response)]).ids.tolist()
        assert first + len(offsets) == len(row) - 1
        for token, (start, end) in zip(row[first:-1], offsets, strict=True):
            text = model.tokenizer.decode([token])
            assert "\ufffd" in text or text.strip() == response[start:end].strip()
        assert len(offsets) > 0


def test_a_tokenizer_that_knows_no_places_is_refused_for_stretches(saved_policy):
    model = reward_model(saved_policy)
    model.tokenizer = SimpleNamespace(is_fast=False)
    with pytest.raises(ConfigError, match=r"needs a fast tokenizer, and SimpleNamespace .*: .*tokenizer\.json"):
        model.response_offsets(("p", "a"))
