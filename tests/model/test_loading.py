"""Pretrained models that can't be loaded, and what the error says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
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


READERS: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "bert": lambda: hf.BertConfig(vocab_size=64, **SMALL),
    "roberta": lambda: hf.RobertaConfig(vocab_size=64, **SMALL, max_position_embeddings=64),
    "distilbert": lambda: hf.DistilBertConfig(vocab_size=64, dim=16, n_layers=2, n_heads=2, hidden_dim=24),
    "modernbert": lambda: hf.ModernBertConfig(
        vocab_size=64, **SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2
    ),
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
WRITER, TRUNK, SCORE = "AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification"
MASKED, SEQ2SEQ = "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM"
State = dict[str, torch.Tensor]


@pytest.fixture
def saved(small_config, tmp_path) -> Callable[..., str]:
    """A folder that a class of transformers has written, its tensors changed, its config changed."""

    def save(architecture: str, made_by: str, change: Callable[[State], object] | None = None, **settings: object) -> str:
        config = READERS[architecture]() if architecture in READERS else small_config(architecture)
        config.num_labels = 1
        torch.manual_seed(0)
        getattr(hf, made_by).from_config(config).save_pretrained(tmp_path)
        if change is not None:
            state = load_file(tmp_path / "model.safetensors")
            change(state)
            save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        if settings:
            config = hf.AutoConfig.from_pretrained(tmp_path)
            for name, value in settings.items():
                setattr(config, name, value)
            config.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def add(*names: str) -> Callable[[State], object]:
    return lambda state: state.update({name: torch.zeros(2) for name in names})


def drop(*names: str) -> Callable[[State], object]:
    return lambda state: [state.pop(name) for name in names]


def rename_all(state: State) -> None:
    for name in list(state):
        state[f"m.{name}"] = state.pop(name)


def resize(name: str) -> Callable[[State], object]:
    return lambda state: state.update({name: torch.zeros(3, 5)})


@pytest.mark.parametrize(
    ("architecture", "made_by", "loaded_as"),
    [
        *[(name, WRITER, kind) for name in ("gpt2", "llama", "llama_untied", "mixtral", "gpt_oss") for kind in (WRITER, TRUNK)],
        *[(name, SCORE, kind) for name in ("gpt2", "llama_untied", "mixtral", "bert", "roberta", "t5", "bart") for kind in (SCORE, TRUNK)],
        *[(name, MASKED, TRUNK) for name in ("bert", "roberta", "distilbert", "modernbert")],
        *[(name, "AutoModelForPreTraining", TRUNK) for name in ("bert", "roberta")],
        *[(name, SEQ2SEQ, kind) for name in ("t5", "bart") for kind in (SEQ2SEQ, TRUNK)],
        *[(name, TRUNK, SEQ2SEQ) for name in ("t5", "bart")],
        ("llama", TRUNK, WRITER),  # tied: the embedding is the output layer
    ],
)
def test_complete_folders_load_and_heads_may_be_left_behind(saved, architecture, made_by, loaded_as):
    path = saved(architecture, made_by)
    model = load_pretrained(getattr(hf, loaded_as), path, "backbone.path")
    expected = getattr(hf, loaded_as).from_pretrained(path).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items() if "pooler" not in name)


@pytest.mark.parametrize(
    ("architecture", "made_by", "loaded_as", "change"),
    [
        ("gpt2", WRITER, WRITER, add("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
        ("llama", WRITER, WRITER, add("model.layers.0.self_attn.rotary_emb.inv_freq")),
        ("bert", TRUNK, TRUNK, add("embeddings.position_ids")),
        ("bert", MASKED, TRUNK, add("bert.embeddings.position_ids", "cls.seq_relationship.weight")),
        ("bart", SEQ2SEQ, SEQ2SEQ, drop("final_logits_bias")),
        ("llama", WRITER, WRITER, add("vision_model.patch_embedding.weight", "multi_modal_projector.linear_1.weight")),
    ],
)
def test_tables_and_parts_that_no_text_needs_may_be_there(saved, architecture, made_by, loaded_as, change):
    load_pretrained(getattr(hf, loaded_as), saved(architecture, made_by, change), "backbone.path")


LAYER = "model.layers.1.mlp.up_proj.weight"
EXPERT = "model.layers.1.block_sparse_moe.experts.2.{}.weight"


@pytest.mark.parametrize(
    ("architecture", "made_by", "loaded_as", "change", "settings", "message"),
    [
        ("llama_untied", SCORE, WRITER, None, {}, r"it lacks 1 tensor \(lm_head.weight\); .*\(score.weight\).* a reward model's folder"),
        ("llama", SCORE, WRITER, None, {}, r"it holds 1 tensor \(score.weight\) that the model doesn't have. It is a reward model"),
        ("t5", SCORE, SEQ2SEQ, None, {}, r"4 tensors \(classification_head.* It is a reward model's folder"),
        ("llama_untied", TRUNK, WRITER, None, {}, r"lacks 1 tensor \(lm_head.weight\). It holds a trunk without the layer after it"),
        ("gpt2", WRITER, SCORE, None, {}, r"lacks 1 tensor \(score.weight\). It holds a trunk without the layer after it"),
        ("bert", TRUNK, SCORE, None, {}, r"lacks 2 tensors \(classifier.bias, classifier.weight\)"),
        ("llama", WRITER, WRITER, drop(LAYER), {}, rf"lacks 1 tensor \({LAYER}\). The folder is incomplete"),
        ("llama", WRITER, TRUNK, drop(LAYER), {}, r"lacks 1 tensor \(layers.1.mlp.up_proj.weight\)"),
        ("bert", MASKED, TRUNK, drop("bert.encoder.layer.1.output.dense.bias"), {}, r"lacks 1 tensor \(encoder.layer.1.output"),
        ("deepseek_v3", WRITER, WRITER, drop("model.layers.1.mlp.gate.e_score_correction_bias"), {}, "lacks 1 tensor .*e_score_correction"),
        ("llama", WRITER, WRITER, None, {"num_hidden_layers": 3}, r"lacks 9 tensors \(model.layers.2.*, \.\.\.\). The folder is incom"),
        ("llama", WRITER, WRITER, None, {"num_hidden_layers": 1}, r"holds 9 tensors .*config.json describes fewer layers"),
        ("llama", WRITER, TRUNK, None, {"num_hidden_layers": 1}, r"holds 9 tensors \(model.layers.1.*config.json describes fewer layers"),
        ("bert", TRUNK, TRUNK, None, {"num_hidden_layers": 1}, r"holds 16 tensors \(encoder.layer.1"),
        ("llama", WRITER, WRITER, add("v_head.summary.weight"), {}, "v_head.* reward model's folder or another classifier's"),
        ("llama", WRITER, WRITER, add("extra.weight"), {}, r"\(extra.weight\) that the model doesn't have. It was saved by another class"),
        ("llama", WRITER, WRITER, resize(LAYER), {}, r"in another shape \(\[3, 5\] in the file, \[24, 16\] by config.json\).* other sizes"),
        ("llama", WRITER, WRITER, None, {"intermediate_size": 32}, r"holds 6 tensors .*in another shape"),
        ("llama", WRITER, WRITER, None, {"vocab_size": 80}, r"in another shape \(\[64, 16\] in the file, \[80, 16\] by config.json\)"),
        ("llama", WRITER, WRITER, add("lm_head.weight"), {"vocab_size": 80}, r"\(model.embed_tokens.weight\) in another shape"),
        ("mixtral", WRITER, WRITER, drop(EXPERT.format("w1")), {}, r"experts.2.w1.weight|experts.gate_up_proj"),
        ("mixtral", WRITER, WRITER, drop(*[EXPERT.format(f"w{i}") for i in (1, 2, 3)]), {}, r"in another shape|lacks 3 tensors"),
        ("llama", WRITER, WRITER, rename_all, {}, "of another architecture"),
    ],
)  # fmt: skip
def test_weights_that_are_not_the_model_s_are_listed_with_their_cause(saved, architecture, made_by, loaded_as, change, settings, message):
    path = saved(architecture, made_by, change, **settings)
    with pytest.raises(DataError, match=message) as error:
        load_pretrained(getattr(hf, loaded_as), path, "backbone.path")
    assert str(error.value).startswith(f"backbone.path: {path!r} ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("loaded_as", [WRITER, TRUNK])
def test_weights_that_are_not_numbers_are_rejected_by_name(saved, value, loaded_as):
    def poison(state: State) -> None:
        state[LAYER][3, 2] = value

    path = saved("llama", WRITER, poison)
    with pytest.raises(DataError, match=r"holds NaN or infinite numbers in .*layers.1.mlp.up_proj.weight: its training diverged"):
        load_pretrained(getattr(hf, loaded_as), path, "backbone.path")
