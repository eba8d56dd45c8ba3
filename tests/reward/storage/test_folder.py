"""The folder of a reward model: saved, loaded, the same in plain transformers, and on the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.pooling.attention import AttentionPooling
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.storage.folder import (
    CARD,
    HEAD_WEIGHTS,
    download_reward_model,
    load_reward_model,
    push_reward_model,
    save_reward_model,
)
from rlhf_lightning.reward.tuning.lora import lora

FAMILIES = ["gpt2", "llama", "bert", "roberta", "modernbert", "t5", "bart"]
TEXTS = [
    ("Review of a lamp:", "It is a quiet fan."),
    ("It", " costs"),
    ("The kettle", "boils water quickly. It is a quiet fan."),
    ("", "fan"),
]
LINEAR = {"head": "linear", "head_settings": {}, "pooling": "last"}


def scores_of(model: RewardModel) -> torch.Tensor:
    return model.score_texts(*zip(*TEXTS, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_a_linear_head_on_the_last_token_is_a_classifier_of_transformers_bitwise(model_of, tmp_path, family):
    model = model_of(family)
    model.normalise(*zip(*TEXTS, strict=True))
    tokens = model.tokenise(TEXTS)
    save_reward_model(model, tmp_path / "rm", LINEAR)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rm")
    assert classifier.config.num_labels == 1
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    ids, mask = tokens.to_padded(tokenizer.pad_token_id)
    logits = classifier(input_ids=ids, attention_mask=mask).logits[:, 0]
    # The same padded forward through the model that was trained: each token times w, then the last.
    hidden = model.net.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
    ours = model.net.head.weight(hidden)[range(len(TEXTS)), tokens.lengths - 1, 0]
    assert torch.equal(logits, ours)
    # Packed, the sums run in another order.
    assert (logits - model.net(tokens)).abs().max() < 1e-5
    card = json.loads((tmp_path / "rm" / CARD).read_text())
    assert card["exports"] == "classifier"
    assert ((logits - card["mean"]) / card["deviation"] - scores_of(model)).abs().max() < 1e-4
    # Without the card the folder is a classifier like any other.
    (tmp_path / "rm" / CARD).unlink()
    assert (load_reward_model(str(tmp_path / "rm")).eval()(tokens) - logits).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "head", "settings"), [("mlp", MLPHead, {"hidden": 16}), ("linear", LinearHead, {})], ids=["mlp", "linear"]
)
@pytest.mark.parametrize("pooling", [last, mean, AttentionPooling], ids=["last", "mean", "attention"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_any_trunk_head_and_pooling_comes_back_bitwise(model_of, tmp_path, family, name, head, settings, pooling):
    if pooling is AttentionPooling:
        made = AttentionPooling(32)
        torch.nn.init.normal_(next(made.parameters()))
    else:
        made = pooling
    model = model_of(family, made, lambda width: head(width, **settings))
    model.normalise(*zip(*TEXTS, strict=True))
    option = "attention" if pooling is AttentionPooling else pooling.__name__
    save_reward_model(model, tmp_path / "rm", {"head": name, "head_settings": settings, "pooling": option})
    again = load_reward_model(str(tmp_path / "rm")).eval()
    assert torch.equal(scores_of(again), scores_of(model))
    assert again.max_length == model.max_length
    theirs = AutoModel.from_pretrained(tmp_path / "rm").state_dict()
    ours = model.net.trunk.state_dict()
    assert all(torch.equal(theirs[place], ours[place]) for place in ours)
    files = {file.suffix for file in (tmp_path / "rm").iterdir()}
    assert not files & {".bin", ".pt", ".pkl", ".ckpt"}


@torch.no_grad()
def test_what_an_encoder_exports_is_its_trunk_and_the_card_says_so(model_of, tmp_path):
    for family in ("bert", "t5"):
        model = model_of(family)
        save_reward_model(model, tmp_path / family, LINEAR)
        assert json.loads((tmp_path / family / CARD).read_text())["exports"] == "trunk"
        assert "loads the trunk alone, as `AutoModel`" in (tmp_path / family / "README.md").read_text()
        config = json.loads((tmp_path / family / "config.json").read_text())
        assert config["architectures"] == [type(model.net.trunk).__name__]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
@torch.no_grad()
def test_adapters_are_merged_into_a_plain_folder(model_of, tmp_path, family):
    model = model_of(family)
    lora(model.net.trunk, rank=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    expected = scores_of(model.eval())
    save_reward_model(model, tmp_path / "rm", LINEAR)
    again = load_reward_model(str(tmp_path / "rm")).eval()
    assert not [name for name in again.state_dict() if "lora" in name or "base_layer" in name]
    assert torch.equal(scores_of(again), scores_of(model))  # its own are merged now too
    assert (scores_of(again) - expected).abs().max() < 1e-4


def test_it_keeps_its_tokenizer_and_chat_template(model_of, tmp_path):
    model = model_of("llama")
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<|end|>' }}{% endfor %}"
    chat = (Message(role="user", content="A fan?"),)
    expected = model.tokenise([(chat, "It is.")]).ids.tolist()
    save_reward_model(model, tmp_path / "rm", LINEAR)
    again = load_reward_model(str(tmp_path / "rm"))
    assert again.tokenise([(chat, "It is.")]).ids.tolist() == expected
    assert again.tokenizer.chat_template == model.tokenizer.chat_template


@torch.no_grad()
def test_a_loaded_model_is_saved_again_with_its_metadata(model_of, tmp_path):
    model = model_of("bert", mean, lambda width: MLPHead(width, hidden=16))
    save_reward_model(model, tmp_path / "rm", {"head": "mlp", "head_settings": {"hidden": 16}, "pooling": "mean"})
    again = load_reward_model(str(tmp_path / "rm")).eval()
    assert "# A reward model" in (tmp_path / "rm" / "README.md").read_text()
    assert json.loads((tmp_path / "rm" / "config.json").read_text())["model_type"] == "bert"
    save_reward_model(again, tmp_path / "again")
    assert torch.equal(scores_of(load_reward_model(str(tmp_path / "again")).eval()), scores_of(model))


@torch.no_grad()
def test_push_and_download_by_hub_name(model_of, tmp_path, monkeypatch):
    """Against a Hub that is a folder: the complete folder is pushed, and no pickle is downloaded."""
    import huggingface_hub

    hub = tmp_path / "hub"

    class Api:
        def __init__(self, **_) -> None: ...

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

        def repo_info(self, _):
            return type("Info", (), {"private": True})

        def upload_folder(self, folder_path, **_):
            shutil.copytree(folder_path, hub)
            return "https://example.org"

    def download(name, allow_patterns, **_) -> str:
        target = tmp_path / "fetched"
        target.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in hub.glob(pattern):
                shutil.copy(file, target)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = model_of("llama", mean)
    model.metadata = {"head": "linear", "head_settings": {}, "pooling": "mean"}
    assert push_reward_model(model, "somebody/rewards") == "https://example.org"
    (hub / "pytorch_model.bin").write_bytes(b"")
    fetched = download_reward_model("somebody/rewards", revision="main")
    assert torch.equal(scores_of(load_reward_model(fetched).eval()), scores_of(model))
    assert not (tmp_path / "fetched" / "pytorch_model.bin").exists()


@torch.no_grad()
def test_a_hub_name_of_ours_is_not_taken_for_a_plain_classifier(model_of, tmp_path, monkeypatch):
    """Its card is asked of the Hub before transformers, which would give the trunk a new head without a word."""
    model = model_of("llama", mean)
    save_reward_model(model, tmp_path / "rm", {**LINEAR, "pooling": "mean"})
    monkeypatch.setattr("transformers.utils.cached_file", lambda path, name, **_: str(tmp_path / "rm" / name))
    monkeypatch.setattr("rlhf_lightning.reward.storage.folder.load_trunk", lambda path: load_trunk(str(tmp_path / "rm")))
    assert torch.equal(scores_of(load_reward_model("somebody/rewards").eval()), scores_of(model))


@torch.no_grad()
def test_a_classifier_without_a_card_scores_by_its_padded_logit(trunk_folder, tmp_path):
    classifier = AutoModelForSequenceClassification.from_pretrained(trunk_folder("llama"), num_labels=1)
    classifier.save_pretrained(tmp_path / "hf")
    AutoTokenizer.from_pretrained(trunk_folder("llama")).save_pretrained(tmp_path / "hf")
    model = load_reward_model(str(tmp_path / "hf")).eval()
    tokens = model.tokenise(TEXTS)
    ids, mask = tokens.to_padded(classifier.config.pad_token_id)
    logits = classifier.eval()(input_ids=ids, attention_mask=mask).logits[:, 0]
    assert (model(tokens) - logits).abs().max() < 1e-5
    assert logits.std() > 1e-3
    assert load_reward_model(str(tmp_path / "hf"), max_length=1000).max_length == 64


def test_what_can_not_be_loaded_is_reported(model_of, trunk_folder, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(trunk_folder("gpt2"), num_labels=2).save_pretrained(tmp_path / "two")
    AutoTokenizer.from_pretrained(trunk_folder("gpt2")).save_pretrained(tmp_path / "two")
    with pytest.raises(DataError, match="2 labels; a reward model has one"):
        load_reward_model(str(tmp_path / "two"))
    with pytest.raises(DataError, match="no folder"):
        load_reward_model(str(tmp_path / "nowhere"))
    save_reward_model(model_of("gpt2", mean), tmp_path / "rm", {**LINEAR, "pooling": "mean"})
    weights = (tmp_path / "rm" / HEAD_WEIGHTS).read_bytes()
    (tmp_path / "rm" / HEAD_WEIGHTS).unlink()
    with pytest.raises(DataError, match=f"no {HEAD_WEIGHTS}"):
        load_reward_model(str(tmp_path / "rm"))
    Path(tmp_path / "rm" / HEAD_WEIGHTS).write_bytes(weights)
    (tmp_path / "rm" / CARD).write_text("{")
    with pytest.raises(DataError, match=rf"{CARD} isn't valid JSON"):
        load_reward_model(str(tmp_path / "rm"))


def test_saving_leaves_the_counts_and_the_training_mode(model_of, tmp_path):
    model = model_of("llama")
    model.train()
    model.truncated = 3
    save_reward_model(model, tmp_path / "rm", LINEAR)
    assert (model.training, model.truncated) == (True, 3)
