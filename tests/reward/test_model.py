"""The reward model: one score whatever the padding, saved and loaded, and the same in plain transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import FramedPrompt, Message, prompt_text
from rlhf_lightning.model.packing import supports_packing
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.storage.folder import load_any_reward_model, load_reward_model, save_reward_model
from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer

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


TEMPLATE = (
    "{% for m in messages %}{{ '<|pad|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|pad|>assistant\n' }}{% endif %}"
)
PROMPT, RESPONSE = "It costs", " little"
CHAT = (Message(role="user", content=PROMPT),)


def write_classifier(folder: Any, trunk: str, template: str | None = None) -> str:
    """A foreign classifier with one label, untrained."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(trunk, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(trunk)
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def ids_of(path: str, prompt: Any = PROMPT, **settings: Any) -> list[int]:
    return load_reward_model(path, **settings).tokenise([(prompt, RESPONSE)]).ids.tolist()


def test_a_decoder_with_a_chat_template_reads_the_conversation_as_transformers_renders_it(trunk_folder, tmp_path):
    path = write_classifier(tmp_path, trunk_folder("llama"), TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSE}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert tokenizer.decode(theirs).endswith("little<|end|>\n")
    assert ids_of(path) == ids_of(path, layout="chat") == ids_of(path, CHAT) == ids_of(path, FramedPrompt("<", PROMPT, ">")) == theirs
    assert ids_of(path, eos=True) == [*theirs, tokenizer.eos_token_id]
    classifier = AutoModelForSequenceClassification.from_pretrained(path).eval()
    logit = classifier(input_ids=torch.tensor([theirs])).logits.item()
    scorer = RewardModelScorer(path=path)
    assert scorer.score([PROMPT, CHAT], [RESPONSE] * 2).tolist() == pytest.approx([logit] * 2, abs=1e-5)
    assert "layout=chat" in scorer.note
    assert "rollout_scorer.reward_model.layout=chat|pair|joined" in scorer.note
    assert load_reward_model(path).response_offsets((PROMPT, RESPONSE))[0] == len(theirs) - len(tokenizer("little<|end|>\n")["input_ids"])


@pytest.mark.parametrize("eos", [None, True, False])
def test_a_decoder_without_a_template_reads_one_text_with_or_without_an_end(trunk_folder, tmp_path, eos):
    path = write_classifier(tmp_path, trunk_folder("llama"))
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = tokenizer(PROMPT + RESPONSE)["input_ids"]
    expected = text if eos is False else [*text, tokenizer.eos_token_id]
    assert ids_of(path, eos=eos) == ids_of(path, layout="joined", eos=eos) == expected
    assert ("with an EOS" in RewardModelScorer(path=path, eos=eos).note) == (eos is not False)
    chat = ids_of(path, CHAT, layout="joined", eos=False)
    assert tokenizer.decode(chat) == f"User: {PROMPT}\nAssistant:{RESPONSE}"


@pytest.mark.parametrize("family", ["bert", "roberta", "bart"])
def test_an_encoder_reads_a_pair_or_one_text(trunk_folder, tmp_path, family):
    path = write_classifier(tmp_path, trunk_folder(family))
    tokenizer = AutoTokenizer.from_pretrained(path)
    pair = tokenizer(PROMPT, RESPONSE)
    assert ids_of(path) == ids_of(path, layout="pair") == pair["input_ids"]
    assert ids_of(path, layout="joined") == tokenizer(PROMPT + RESPONSE)["input_ids"]
    if family == "bert":
        joined = load_reward_model(path, layout="joined").tokenise([(PROMPT, RESPONSE)])
        assert joined.types is not None
        assert joined.types.tolist() == tokenizer(PROMPT + RESPONSE, return_token_type_ids=True)["token_type_ids"]


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("llama", {"layout": "chat"}, "has no chat template; choose pair or joined"),
        ("llama", {"layout": "pair"}, "has no template for pairs; take chat or joined"),
        ("bert", {"layout": "pair", "eos": True}, "writes its own end"),
        ("bert", {"layout": "joined", "eos": True}, "has no eos_token"),
    ],
)
def test_a_layout_that_the_tokenizer_does_not_have_is_rejected(trunk_folder, tmp_path, family, settings, message):
    path = write_classifier(tmp_path, trunk_folder(family))
    with pytest.raises(ConfigError, match=message):
        load_any_reward_model(path, **settings)


LINEAR = {"head": "linear", "head_settings": {}, "pooling": "last"}


def test_a_model_of_stage_reward_takes_no_other_layout(model_of, tmp_path):
    save_reward_model(model_of("llama"), tmp_path / "rm", LINEAR)
    for settings in ({"layout": "joined"}, {"eos": False}):
        with pytest.raises(ConfigError, match="reads texts as it was trained"):
            RewardModelScorer(path=str(tmp_path / "rm"), **settings)
    assert RewardModelScorer(path=str(tmp_path / "rm")).note == ""


@pytest.mark.parametrize(("card", "as_chat"), [({"chats": 5, "texts": 0}, True), ({"chats": 5, "texts": 1}, False), ({}, False)])
def test_a_model_that_learned_from_chats_reads_a_text_as_a_users_message(model_of, tmp_path, card, as_chat):
    model = model_of("llama")
    model.tokenizer.chat_template = TEMPLATE
    save_reward_model(model, tmp_path / "rm", LINEAR | card)
    scorer = RewardModelScorer(path=str(tmp_path / "rm"))
    text, framed, chat = scorer.score([PROMPT, FramedPrompt("<|x|>", PROMPT, ""), CHAT], [RESPONSE] * 3).tolist()
    assert text == pytest.approx(framed, abs=1e-5)
    assert (text == pytest.approx(chat, abs=1e-5)) == as_chat
    assert ("scored as the message of a user" in scorer.note) == as_chat
