"""Pretrained models that can't be loaded, and what the error says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.trunk import load_trunk


@pytest.fixture
def folder(trunk_folder, tmp_path) -> Path:
    return Path(shutil.copytree(trunk_folder("llama"), tmp_path / "policy"))


@pytest.mark.parametrize("path", ["./nowhere/at/all", "/nowhere/at/all", "~/nowhere/at/all"])
def test_a_missing_folder_is_reported_before_anything_is_requested_of_the_hub(path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        load_pretrained(AutoModelForCausalLM, path, "backbone.path")
    with pytest.raises(DataError, match="tokenizer: no folder"):
        load_tokenizer(path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: .* holds no model: it has no config\.json"):
        load_pretrained(AutoModelForCausalLM, str(tmp_path), "backbone.path")


def test_code_in_a_folder_is_never_run(folder, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (folder / "modeling.py").write_text(code)
    auto_map = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M", "AutoTokenizer": ["modeling.T", "modeling.T"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of", "auto_map": auto_map}))
    with pytest.raises(DataError, match="can't be loaded"):
        load_pretrained(AutoModelForCausalLM, str(folder), "backbone.path")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model.bin, .* never read here: convert it"):
        load_pretrained(AutoModelForCausalLM, str(folder), "backbone.path")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "abc"}, {"hidden_size": None}, {"hidden_size": 16.5}, {"num_attention_heads": 3}, {"hidden_act": "unheard-of"},
        {"vocab_size": 0}, {"rope_parameters": {"rope_type": "unheard-of"}}, {"model_type": "unheard-of"}, {"dtype": "unheard-of"},
    ],
)  # fmt: skip
def test_values_that_no_model_has_are_explained(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=r"backbone\.path: .*policy"):
        load_pretrained(AutoModelForCausalLM, str(folder), "backbone.path")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json isn't valid JSON"),
        ("tokenizer.json", "[]", r"tokenizer\.json must hold a JSON object"),
        ("tokenizer.json", "{}", r"tokenizer: .* can't be loaded: KeyError: 'added_tokens'"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", r"tokenizer\.json is a Git LFS pointer"),
        ("tokenizer.json", None, "has no tokenizer: tokenizer.json, or the vocabulary"),
    ],
)
def test_damaged_and_missing_tokenizers_are_named(folder, name, text, message):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_tokenizer(str(folder))


def test_a_tokenizer_without_its_vocabulary_is_rejected(folder):
    """transformers makes an empty one of its classes."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(DataError, match="has no tokenizer"):
        load_tokenizer(str(folder))


def test_transformers_log_and_bars_are_as_before(folder, tmp_path):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        logging.enable_progress_bar()
        load_trunk(str(folder))
        load_pretrained(AutoConfig, str(folder), "backbone.path")
        with pytest.raises(DataError):
            load_pretrained(AutoConfig, str(tmp_path), "backbone.path")
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity(before[0])
        (logging.enable_progress_bar if before[1] else logging.disable_progress_bar)()
