"""The model card: what it says of a training, and that it says nothing that it doesn't know."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.storage.canary import check_canary
from rlhf_lightning.reward.storage.card import model_card
from rlhf_lightning.reward.storage.feature_folder import WEIGHTS, save_feature_score
from rlhf_lightning.reward.storage.folder import CARD, HEAD_WEIGHTS, load_any_reward_model, save_reward_model

KNOWN = {
    "head": "linear", "pooling": "last", "tuning": "lora", "losses": ["bradley_terry"], "backbone": "gpt2", "exports": "classifier",
    "mean": 0.25, "deviation": 2.0, "max_length": 128, "judgements": {"pair": 40, "rating": 7}, "sources": {"a|b": 40, "c": 7},
    "metrics": {
        "accuracy/all": {"mean": 0.8, "low": 0.7, "high": 0.9, "n": 50}, "ece": 0.05, "length/spearman": {"mean": 0.4, "n": 30},
    },
}  # fmt: skip


def test_it_says_what_is_known():
    card = model_card(KNOWN, "decoder")
    for line in (
        "- trunk: decoder-only, from `gpt2`", "- head: linear", "- tuning: lora", "| pair | 40 |", "| a\\|b | 40 |",
        "| accuracy/all | 0.800 | 0.700 to 0.900 | 50 |", "| ece | 0.050 |  |  |", "(logit - 0.25) / 2", "more than 128 tokens",
        "length: 0.400", "Unknown: it depends",
    ):  # fmt: skip
        assert line in card, line


def test_its_front_matter_is_yaml_with_an_unknown_licence():
    _, front, rest = model_card(KNOWN, "encoder").split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    assert rest.lstrip().startswith("# A reward model")


def test_without_knowledge_it_says_so():
    card = model_card(
        {"mean": 0.0, "deviation": 1.0, "max_length": 64, "exports": "trunk", "head": "mlp", "pooling": "mean"}, "encoder_decoder"
    )
    for line in ("It isn't recorded.", "Nothing was measured.", "was not measured", "loads the trunk alone", "- trunk: encoder-decoder\n"):
        assert line in card, line
    assert "nan" not in card.lower()
    assert "None" not in card


def test_a_classifier_keeps_its_own_head():
    card = model_card({**KNOWN, "net": "classifier"}, "encoder")
    assert "that of the transformers classifier" in card
    assert "- head: linear" not in card


Damage = Callable[[Path], object]


def edit(**changes: object) -> Damage:
    """Set keys of the card; a value of None removes one."""

    def damage(folder: Path) -> None:
        card = json.loads((folder / CARD).read_text()) | changes
        (folder / CARD).write_text(json.dumps({name: value for name, value in card.items() if value is not None}))

    return damage


def write(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def set_tensors(file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        state = load_file(folder / file)
        change(state)
        save_file(state, folder / file)

    return damage


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


POINTER = "version https://git-lfs.github.com/spec/v1\n"
COMPOSED: list[tuple[Damage, str]] = [
    (write(CARD, "{"), f"{CARD} isn't valid JSON"),
    (write(CARD, ""), f"{CARD} is empty"),
    (write(CARD, "[]"), f"{CARD} must hold a JSON object"),
    (write(CARD, "3"), f"{CARD} must hold a JSON object"),
    (write(CARD, "{}"), f"{CARD}: mean: Field required"),
    (write(CARD, POINTER), f"{CARD} is a Git LFS pointer"),
    (edit(mean=None), f"{CARD}: mean: Field required"),
    (edit(mean="0.5"), f"{CARD}: mean: Input should be a valid number"),
    (edit(mean=math.nan), f"{CARD}: mean: Input should be a finite number; the reward model diverged"),
    (edit(mean=[0.0]), f"{CARD}: mean: "),
    (edit(deviation=0), f"{CARD}: deviation: Input should be greater than 0"),
    (edit(deviation=-1.0), f"{CARD}: deviation: Input should be greater than 0"),
    (edit(deviation=math.inf), f"{CARD}: deviation: Input should be a finite number"),
    (edit(deviation=None), f"{CARD}: deviation: Field required"),
    (edit(max_length="64"), f"{CARD}: max_length: Input should be a valid integer"),
    (edit(max_length=64.5), f"{CARD}: max_length: "),
    (edit(max_length=0), f"{CARD}: max_length: Input should be greater than 0"),
    (edit(max_length=None), f"{CARD}: max_length: Field required"),
    (edit(head=None), f"{CARD} has no key 'head'"),
    (edit(head=3), f"{CARD}: head must be the name of a reward_head, and is 3"),
    (edit(head="unheard-of"), f"{CARD}: .*unheard-of"),
    (edit(head_settings=[1]), f"{CARD}: head_settings: Input should be a valid dictionary"),
    (edit(head_settings={"unheard_of": 1}), f"{CARD}: .*unheard_of"),
    (edit(pooling=None), f"{CARD} has no key 'pooling'"),
    (edit(pooling={"a": 1}), f"{CARD}: pooling: Input should be a valid string"),
    (edit(pooling="unheard-of"), f"{CARD}: .*unheard-of"),
    (edit(pooling="attention"), f"{HEAD_WEIGHTS} doesn't fit the head and pooling"),
    (edit(head="mlp"), f"{HEAD_WEIGHTS} doesn't fit the head and pooling"),
    (edit(aspects="a"), f"{CARD}: aspects: Input should be a valid list"),
    (edit(net="unheard-of"), f"{CARD}: net: Input should be 'classifier'"),
    (edit(canary=[{"prompt": "a"}]), rf"{CARD}: canary\.0\.response: Field required"),
    (edit(canary=[{"prompt": "a", "response": "b", "score": math.nan}]), rf"{CARD}: canary\.0\.score: .*diverged"),
    (edit(canary=7), f"{CARD}: canary: Input should be a valid list"),
    (lambda folder: (folder / HEAD_WEIGHTS).unlink(), f"has {CARD} and no {HEAD_WEIGHTS}"),
    (write(HEAD_WEIGHTS, POINTER), f"{HEAD_WEIGHTS} is a Git LFS pointer"),
    (write(HEAD_WEIGHTS, ""), f"{HEAD_WEIGHTS} is empty"),
    (cut(HEAD_WEIGHTS), f"{HEAD_WEIGHTS} is truncated"),
    (set_tensors(HEAD_WEIGHTS, lambda state: state.clear()), f"{HEAD_WEIGHTS} doesn't fit .*Missing key"),
    (set_tensors(HEAD_WEIGHTS, lambda state: state.update(more=torch.zeros(1))), f"{HEAD_WEIGHTS} doesn't fit .*Unexpected key"),
    (set_tensors(HEAD_WEIGHTS, lambda state: state.update({"weight.weight": torch.zeros(1, 7)})), f"{HEAD_WEIGHTS} doesn't fit .*size"),
    (set_tensors(HEAD_WEIGHTS, lambda state: state["weight.weight"].fill_(math.nan)), f"{HEAD_WEIGHTS} holds NaN .* diverged"),
    (cut("model.safetensors"), "model.safetensors is truncated"),
    (write("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer"),
]
FEATURES: list[tuple[Damage, str]] = [
    (write(CARD, "{"), f"{CARD} isn't valid JSON"),
    (edit(features=None), "holds no complete reward model of reward_head=features: KeyError"),
    (edit(features=[]), "holds no complete reward model"),
    (edit(features={"unheard-of": {"settings": {}, "state": {}}}), "holds no complete reward model.*unheard-of"),
    (edit(features={"length": {"settings": {}}}), "holds no complete reward model"),
    (edit(features={"length": 3}), "holds no complete reward model"),
    (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} doesn't exist"),
    (cut(WEIGHTS), f"{WEIGHTS} is truncated"),
    (write(WEIGHTS, POINTER), f"{WEIGHTS} is a Git LFS pointer"),
    (set_tensors(WEIGHTS, lambda state: state.pop("centre")), "holds no complete reward model.*centre"),
    (set_tensors(WEIGHTS, lambda state: state.update(weight=torch.zeros(99, dtype=torch.float64))), "names . features|holds"),
    (set_tensors(WEIGHTS, lambda state: state.update(bias=torch.zeros(3))), "holds no complete reward model"),
    (set_tensors(WEIGHTS, lambda state: state.update(varies=torch.zeros(2, 2))), f"{WEIGHTS} isn't what reward_head=features writes"),
    (set_tensors(WEIGHTS, lambda state: state["weight"].fill_(math.nan)), "aren't finite"),
]


@pytest.fixture
def composed(model_of, tmp_path) -> Path:
    save_reward_model(model_of("llama"), tmp_path / "rm", {"head": "linear", "head_settings": {}, "pooling": "last"})
    return Path(tmp_path / "rm")


@pytest.fixture
def features(tmp_path) -> Path:
    score = FeatureScore({"length": {}})
    score.prepare([("a", "b c d"), ("a", "b"), ("c", "d e f g h")])
    score.weight = torch.ones(len(score.names), dtype=torch.float64)
    save_feature_score(score, tmp_path / "rm", {})
    return Path(tmp_path / "rm")


@pytest.mark.parametrize(("damage", "message"), COMPOSED)
def test_a_damaged_reward_model_is_rejected_with_file_and_key(composed, damage, message):
    damage(composed)
    with pytest.raises(DataError, match=message) as error:
        load_any_reward_model(str(composed))
    assert "rm" in str(error.value)


@pytest.mark.parametrize(("damage", "message"), FEATURES)
def test_a_damaged_features_model_is_rejected_with_its_file(features, damage, message):
    assert load_any_reward_model(str(features))
    damage(features)
    with pytest.raises(DataError, match=message) as error:
        load_any_reward_model(str(features))
    assert "rm" in str(error.value)


def test_a_reward_model_that_diverged_says_so(model_of):
    model = model_of("llama")
    torch.nn.init.constant_(model.net.head.weight.weight, math.nan)
    with pytest.raises(UserError, match=r"aren't finite numbers for 4 of 4 texts .* its training diverged"):
        check_canary(model, model.score_texts, "there")


def test_a_policy_is_no_reward_model(tiny_of, tmp_path):
    tiny_of("llama").save(tmp_path / "policy")
    with pytest.raises(DataError, match=r"policy' is no reward model but a LlamaForCausalLM, which gives no score: train one"):
        load_any_reward_model(str(tmp_path / "policy"))


def test_the_folder_of_a_run_is_copied_without_loss(composed, tmp_path):
    """A whole folder loads wherever it is."""
    shutil.copytree(composed, tmp_path / "elsewhere")
    assert load_any_reward_model(str(tmp_path / "elsewhere"))
