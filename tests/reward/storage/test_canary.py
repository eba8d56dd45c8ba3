"""The canary of a reward model: quiet where all is well, loud at a wrong tokenizer, template, padding or weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.errors import DataError
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward import net
from rlhf_lightning.reward.storage.canary import TEXTS, check_canary, score_canary
from rlhf_lightning.reward.storage.folder import CARD, load_reward_model, save_reward_model

LINEAR = {"head": "linear", "head_settings": {}, "pooling": "last"}
FAMILIES = ["gpt2", "llama", "bert", "modernbert", "t5", "bart"]


@pytest.fixture
def saved(model_of, tmp_path):
    def save(family: str) -> str:
        model = model_of(family)
        model.normalise([prompt for prompt, _ in TEXTS], [response for _, response in TEXTS])
        save_reward_model(model, tmp_path / family, LINEAR)
        return str(tmp_path / family)

    return save


def checked(folder: str) -> None:
    model = load_reward_model(folder).eval()
    check_canary(model, model.score_texts, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_as_it_was_saved_passes(saved, family):
    folder = saved(family)
    card = json.loads(Path(folder, CARD).read_text())
    assert len(card["canary"]) == len(TEXTS)
    assert len({round(row["score"], 3) for row in card["canary"]}) > 1
    checked(folder)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_another_tokenizer_is_caught(saved, family):
    folder = saved(family)
    byte_level_bpe(["Another corpus, whose pieces are others. Hello, answers, questions, the sea."] * 20, 300).save_pretrained(folder)
    with pytest.raises(DataError, match=r"aren't the ones that it was trained with|the tokenizer is another model's"):
        checked(folder)


def test_another_order_of_the_vocabulary_is_caught(saved):
    """Every id is one that the model knows."""
    folder = saved("llama")
    file = Path(folder, "tokenizer.json")
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["e"], vocabulary["s"] = vocabulary["s"], vocabulary["e"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="aren't the ones that it was trained with"):
        checked(folder)


def test_another_chat_template_is_caught(saved):
    folder = saved("llama")
    checked(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '<|end|>' }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataError, match="chat template"):
        checked(folder)


def test_other_weights_are_caught(saved):
    folder = saved("llama")
    model = load_reward_model(folder).eval()
    with torch.no_grad():
        model.net.trunk.norm.weight.mul_(1.1)
    with pytest.raises(DataError, match="weights in the folder"):
        check_canary(model, model.score_texts, folder)


def test_padding_that_changes_scores_is_caught(trunk_folder, tmp_path, monkeypatch):
    """A classifier without a card, its rows padded on the left with no word on positions: GPT-2 then counts them from the padding."""
    classifier = AutoModelForSequenceClassification.from_pretrained(trunk_folder("gpt2"), num_labels=1)
    classifier.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(trunk_folder("gpt2")).save_pretrained(tmp_path)
    checked(str(tmp_path))

    def left_padded(tokens: PackedTokens, pad: int):
        longest = int(tokens.lengths.max())
        rows = tokens.ids.split(tokens.lengths.tolist())
        ids = torch.stack([torch.cat([torch.full((longest - len(row),), pad), row]) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != pad).long()}

    monkeypatch.setattr(net, "supports_packing", lambda trunk: False)
    checked(str(tmp_path))
    monkeypatch.setattr(net, "padded_inputs", left_padded)
    with pytest.raises(DataError, match="padding changes them"):
        checked(str(tmp_path))


def test_a_scorer_that_scores_other_texts_is_caught(saved):
    model = load_reward_model(saved("llama")).eval()
    with pytest.raises(DataError, match="texts together differ"):
        check_canary(model, lambda prompts, responses: model.score_texts(prompts, [text.strip() for text in responses]), "there")
    with pytest.raises(DataError, match="texts together differ"):
        check_canary(model, lambda prompts, responses: model.score_texts(prompts, responses) * float("nan"), "there")


def test_scores_on_a_tiny_scale_are_held_to_the_raw_ones(saved):
    """Rounding that is magnified by a deviation near 0 is no fault."""
    model = load_reward_model(saved("llama")).eval()
    model.deviation.fill_(1e-6)
    model.metadata["canary"] = score_canary(model)
    check_canary(model, model.score_texts, "there")


def test_half_precision_passes_within_its_own(trunk_folder, tmp_path):
    classifier = AutoModelForSequenceClassification.from_pretrained(trunk_folder("llama"), num_labels=1, dtype=torch.bfloat16)
    classifier.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(trunk_folder("llama")).save_pretrained(tmp_path)
    assert next(load_reward_model(str(tmp_path)).parameters()).dtype == torch.bfloat16
    checked(str(tmp_path))
