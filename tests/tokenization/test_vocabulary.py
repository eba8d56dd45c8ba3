"""Token ids beyond the embedding are rejected for every kind of backbone, with the token and the number of rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.backbone.encoder import encoder
from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import DataError
from rlhf_lightning.model.trunk import load_trunk

LOADERS: dict[str, Callable[[str], object]] = {
    "gpt2": lambda path: causal([], path=path),
    "llama": lambda path: causal([], path=path),
    "llama as a trunk": load_trunk,
    "bert": lambda path: encoder([], path=path),
    "t5": lambda path: encoder_decoder([], path=path),
    "t5 as a trunk": load_trunk,
}


@pytest.fixture
def folder(trunk_folder, tmp_path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(trunk_folder(name.split()[0]), tmp_path / "model"))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("added", [{"additional_special_tokens": ["<|speaker|>"]}, {"pad_token": "<|fill|>"}])
def test_added_tokens_without_a_row_are_named(folder, name, added):
    path = folder(name)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = len(tokenizer)
    tokenizer.add_special_tokens(added)
    tokenizer.save_pretrained(path)
    token = next(iter(added.values()))
    token = token if isinstance(token, str) else token[0]
    name_of_token = token.replace("|", "[|]")
    message = rf"token '{name_of_token}' with id {rows}, and the model's embedding has {rows} rows: .*_embeddings\({rows + 1}\)"
    with pytest.raises(DataError, match=message):
        LOADERS[name](str(path))


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama as a trunk"])
def test_an_unknown_token_that_no_text_becomes_needs_no_row(folder, name):
    """transformers adds one to byte-level tokenizers without one: Qwen2Tokenizer's <|endoftext|>."""
    path = folder(name)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"unk_token": "<|unknown|>"})
    tokenizer.save_pretrained(path)
    LOADERS[name](str(path))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("value", [9999, -1, -5000])
def test_a_pad_token_out_of_range_is_rejected_with_the_file(folder, name, value):
    path = folder(name)
    change(path / "config.json", pad_token_id=value)
    with pytest.raises(DataError, match=rf"config.json of .*: pad_token_id is {value}, and must be null or from 0 to \d+ \(vocab_size is"):
        LOADERS[name](str(path))


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("value", [9999, -1, [0, 9999]])
def test_an_end_token_out_of_range_is_rejected(folder, name, value):
    path = folder(name)
    change(path / "config.json", eos_token_id=value)
    (path / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"eos_token_id of its generation_config.json .* is (9999|-1), and must be a token's id"):
        LOADERS[name](str(path))


def test_a_start_token_out_of_range_is_rejected(folder):
    path = folder("t5")
    change(path / "config.json", decoder_start_token_id=9999)
    with pytest.raises(DataError, match="decoder_start_token_id is 9999"):
        LOADERS["t5"](str(path))


@pytest.mark.parametrize("name", LOADERS)
def test_spare_rows_are_none_of_these(folder, name):
    from transformers import AutoModel, AutoModelForCausalLM

    path = folder(name)
    kind = AutoModelForCausalLM if name == "llama" else AutoModel
    model = kind.from_pretrained(path)
    model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 7)
    model.save_pretrained(path)
    assert LOADERS[name](str(path))


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
