"""Folders of models with damaged, missing and misplaced files: one message that names the file and the remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_lightning.config.model_files import check_model_folder, check_safetensors
from rlhf_lightning.config.schema import validate
from rlhf_lightning.errors import ConfigError, DataError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 4096\n"


def write(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def replace_by_folder(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def replace_by_link(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "nowhere")

    return damage


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def shards(damage: Callable[[Path, list[Path]], object]) -> Callable[[Path], object]:
    """The weights in several files, then one of them damaged."""

    def make(folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="20KB")
        files = sorted(folder.glob("model-*"))
        assert len(files) > 1
        damage(folder, files)

    return make


def header_of(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("an LFS pointer for weights", write("model.safetensors", POINTER), "model.safetensors is a Git LFS pointer.*git lfs pull"),
    ("an LFS pointer for a tokenizer", write("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer.*git lfs pull"),
    ("an LFS pointer for a config", write("config.json", POINTER), "config.json is a Git LFS pointer.*git lfs pull"),
    ("an LFS pointer for a vocabulary", write("spiece.model", POINTER), "spiece.model is a Git LFS pointer.*git lfs pull"),
    ("an LFS pointer for a shard", shards(lambda folder, files: files[1].write_text(POINTER)), "-of-.*is a Git LFS pointer"),
    (
        "truncated weights",
        lambda folder: cut("model.safetensors", -50 + (folder / "model.safetensors").stat().st_size)(folder),
        "truncated: ",
    ),
    ("a truncated header", cut("model.safetensors", 40), "model.safetensors is truncated inside its header"),
    ("three bytes of weights", cut("model.safetensors", 3), "model.safetensors is truncated, 3 bytes long"),
    ("no bytes of weights", cut("model.safetensors", 0), "model.safetensors is empty"),
    ("weights with a tail", lambda f: write("model.safetensors", (f / "model.safetensors").read_bytes() + b"x")(f), "is damaged: "),
    ("text for weights", write("model.safetensors", "x" * 200), "isn't a safetensors file"),
    ("a web page for weights", write("model.safetensors", "<!DOCTYPE html>" * 20), "isn't a safetensors file"),
    ("a list for a header", write("model.safetensors", header_of([1])), "isn't a safetensors file, or its header is damaged"),
    ("a header without offsets", write("model.safetensors", header_of({"a": {"dtype": "F32"}})), "its header is damaged"),
    ("a folder for weights", replace_by_folder("model.safetensors"), "model.safetensors must be a file"),
    ("a dangling link for weights", replace_by_link("model.safetensors"), "model.safetensors doesn't exist"),
    ("a dangling link for a tokenizer", replace_by_link("tokenizer.json"), "tokenizer.json is a link to a file that doesn't exist"),
    ("a shard that is missing", shards(lambda folder, files: files[0].unlink()), "lacks 1 of . shards of its weights: model-00001-of"),
    (
        "a shard of another model",
        shards(lambda folder, files: shutil.copy(files[0], files[1])),
        "lacks . tensors that model.safetensors.index",
    ),
    ("a damaged index", shards(lambda folder, files: write("model.safetensors.index.json", "{")(folder)), "index.json isn't valid JSON"),
    ("an empty index", shards(lambda folder, files: write("model.safetensors.index.json", "{}")(folder)), "index.json has no weight_map"),
    ("an empty config", write("config.json", "{}"), "config.json names no model_type"),
    ("a config that is a list", write("config.json", "[]"), r"config.json must hold a JSON object, and holds \[\]"),
    ("a config that is a text", write("config.json", '"llama"'), 'config.json must hold a JSON object, and holds "llama"'),
    ("a truncated config", cut("config.json", 30), "config.json isn't valid JSON"),
    ("a config of no bytes", write("config.json", ""), "config.json is empty"),
    ("a config that isn't text", write("config.json", b"\xff\xfe\x00"), "config.json isn't valid JSON"),
    ("a config nested without end", write("config.json", '{"a":' + "[" * 100_000), "config.json isn't valid JSON"),
    ("a config that is a folder", replace_by_folder("config.json"), "config.json must be a file"),
    ("a number for a model type", write("config.json", '{"model_type": 3}'), "config.json names no model_type"),
    ("a damaged generation config", write("generation_config.json", "{"), "generation_config.json isn't valid JSON"),
    ("a list for a generation config", write("generation_config.json", "[]"), "generation_config.json must hold a JSON object"),
    ("a damaged tokenizer config", write("tokenizer_config.json", "{"), "tokenizer_config.json isn't valid JSON"),
    ("a list for a tokenizer config", write("tokenizer_config.json", "[]"), "tokenizer_config.json must hold a JSON object"),
    ("a damaged card", write("reward_model.json", "{"), "reward_model.json isn't valid JSON"),
    ("adapters beside a model", write("adapter_config.json", "{}"), "holds adapters .*merge_and_unload"),
    ("adapters alone", lambda f: (remove("config.json", "model.safetensors")(f), write("adapter_config.json", "{}")(f)), "holds adapters "),
    ("no config", remove("config.json"), "holds no model: it has no config.json"),
]
WITHOUT_WEIGHTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no weights", remove("model.safetensors"), "has no weights: neither model.safetensors nor model.safetensors.index.json"),
    (
        "pickled weights",
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "in pytorch_model.bin, .*never read here: convert",
    ),
    (
        "shards without an index",
        shards(lambda f, files: (f / "model.safetensors.index.json").unlink()),
        "holds shards of weights and no model",
    ),
]


@pytest.fixture(scope="module")
def complete(tiny_of, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("complete") / "policy"
    tiny_of("llama").save(folder)
    return folder


@pytest.fixture
def folder(complete, tmp_path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "policy"))


@pytest.mark.parametrize(("damage", "message"), [pytest.param(*rest, id=name) for name, *rest in DAMAGES])
def test_damaged_folders_are_rejected_with_the_file(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        check_model_folder(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(("damage", "message"), [pytest.param(*rest, id=name) for name, *rest in WITHOUT_WEIGHTS])
def test_weights_are_missed_only_where_they_are_needed(folder, damage, message):
    damage(folder)
    check_model_folder(folder)
    with pytest.raises(DataError, match=message):
        check_model_folder(folder, needs_weights=True)


def test_complete_folders_pass(folder):
    check_model_folder(folder, needs_weights=True)
    (folder / "pytorch_model.bin").write_text(POINTER)  # weights of another format, not downloaded
    check_model_folder(folder, needs_weights=True)
    shards(lambda *_: None)(folder)
    check_model_folder(folder, needs_weights=True)


def test_the_header_is_read_as_safetensors_reads_it(folder):
    from safetensors import safe_open

    header = check_safetensors(folder / "model.safetensors")
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118  (no mapping)
    assert {name: tuple(about["shape"]) for name, about in header.items()} == shapes


@pytest.mark.parametrize("inside", ["policy", "reward_model", "round_1/policy"])
def test_a_run_s_folder_names_the_models_in_it(complete, tmp_path, inside):
    shutil.copytree(complete, tmp_path / "run" / inside)
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(DataError, match=f"holds no model itself, but these of its folders do: .*{inside}; give one of them"):
        check_model_folder(tmp_path / "run")


def test_a_sentence_encoder_may_have_its_model_in_a_folder_inside(complete, tmp_path):
    shutil.copytree(complete, tmp_path / "encoder" / "0_Transformer")
    (tmp_path / "encoder" / "modules.json").write_text("[]")
    check_model_folder(tmp_path / "encoder")


def test_files_and_missing_folders(folder, tmp_path):
    with pytest.raises(DataError, match=r"model\.safetensors is a file: give the folder that holds it"):
        check_model_folder(folder / "model.safetensors")
    with pytest.raises(DataError, match="no folder"):
        check_model_folder(tmp_path / "nowhere")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_named(folder):
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match="can't be read: permission denied"):
            check_model_folder(folder)
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("group", "name", "key", "value"),
    [
        ("backbone", "causal", "backbone.path", "path"),
        ("backbone", "encoder", "backbone.path", "path"),
        ("backbone", "encoder_decoder", "backbone.path", "path"),
        ("rollout_scorer", "reward_model", "rollout_scorer.path", "path"),
        ("stage", "explain", "stage.model", "model"),
        ("stage", "evaluate_reward", "stage.models.0", "models"),
        ("stage", "evaluate", "stage.reference", "reference"),
    ],
)
def test_every_setting_that_names_a_model_is_checked_before_anything_loads(folder, group, name, key, value):
    from rlhf_lightning.registry import load_components, option

    load_components()
    (folder / "model.safetensors").write_text(POINTER)
    settings = {value: [str(folder)] if value == "models" else str(folder)}
    with pytest.raises(ConfigError, match=rf"{key}=.*: .*model.safetensors is a Git LFS pointer"):
        validate(option(group, name).target, settings, group)
