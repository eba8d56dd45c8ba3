"""How foreign classifiers read texts: each layout against transformers' own ids, and the models of stage=reward as they were trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import FramedPrompt, Message
from rlhf_lightning.reward.storage.folder import load_any_reward_model, load_reward_model, save_reward_model
from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer

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
