"""Trunks of every family: told apart, loaded, and the same vectors in whatever company a text is read."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertGenerationConfig, MambaConfig, OPTConfig, Qwen2Config, T5Config

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.packing import supports_packing
from rlhf_lightning.model.prompt_encoding import TextEncoder
from rlhf_lightning.model.text_vectors import token_vectors
from rlhf_lightning.model.trunk import (
    clamp_length,
    input_format_of,
    load_trunk,
    max_positions,
    trunk_kind,
    trunk_width,
)

FAMILIES = {
    "gpt2": "decoder", "llama": "decoder", "bert": "encoder", "roberta": "encoder", "distilbert": "encoder", "modernbert": "encoder",
    "t5": "encoder_decoder", "bart": "encoder_decoder",
}  # fmt: skip
OPTION = {"decoder": "causal", "encoder": "encoder", "encoder_decoder": "encoder_decoder"}
TEXTS = [
    ("Review of a lamp:", "It is a quiet fan."),
    ("It", " costs"),
    ("The kettle", "boils water quickly. It is a quiet fan."),
    ("", "fan"),
]


@pytest.mark.parametrize(("family", "kind"), FAMILIES.items())
def test_each_family_is_recognised_by_its_config(trunk_folder, family, kind):
    assert trunk_kind(AutoConfig.from_pretrained(trunk_folder(family))) == kind


def test_a_bert_that_decodes_is_a_decoder_and_other_decoders_are():
    assert trunk_kind(BertConfig(is_decoder=True)) == "decoder"
    assert {trunk_kind(config) for config in (Qwen2Config(), OPTConfig(), MambaConfig(), BertGenerationConfig(is_decoder=True))} == {
        "decoder"
    }
    assert trunk_kind(T5Config()) == "encoder_decoder"


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_vectors_are_those_of_each_text_alone_read_by_transformers(trunk_folder, family):
    trunk, tokenizer = load_trunk(trunk_folder(family))
    trunk.eval()
    plain = AutoModel.from_pretrained(trunk_folder(family)).eval()  # its attention is never switched
    plain.resize_token_embeddings(trunk.get_input_embeddings().num_embeddings)
    rows = TextEncoder(tokenizer, input_format_of(trunk), clamp_length(trunk, 100))
    packed, _ = rows.encode_packed(TEXTS)
    found, mask = token_vectors(trunk, packed)
    assert found.shape[2] == trunk_width(trunk)
    for i, text in enumerate(TEXTS):
        row = rows.encode(text)
        if rows.input_format.kind == "encoder_decoder":
            told = plain(input_ids=torch.tensor([row.context]), decoder_input_ids=torch.tensor([row.ids]))
        else:
            types = {"token_type_ids": torch.tensor([row.types])} if rows.input_format.typed else {}
            told = plain(input_ids=torch.tensor([row.ids]), **types)
        expected = told.last_hidden_state[0]
        assert mask[i].sum() == len(expected)
        assert (found[i, : len(expected)] - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
    assert found[0, 0].std() > 1e-3


def test_which_of_them_run_packed(trunk_folder):
    packed = {family: supports_packing(load_trunk(trunk_folder(family))[0]) for family in FAMILIES}
    assert {family for family, can in packed.items() if can} >= {"gpt2", "llama", "bert", "roberta"}
    assert not packed["t5"]


@torch.no_grad()
def test_token_types_reach_a_packed_bert_and_roberta_has_none(trunk_folder):
    trunk, tokenizer = load_trunk(trunk_folder("bert"))
    input_format = input_format_of(trunk)
    assert input_format.typed
    packed, _ = TextEncoder(tokenizer, input_format, 64).encode_packed(TEXTS)
    without = type(packed)(packed.ids, packed.lengths)
    assert (token_vectors(trunk, packed)[0] - token_vectors(trunk, without)[0]).abs().max() > 1e-2
    assert not input_format_of(load_trunk(trunk_folder("roberta"))[0]).typed


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_most_positions_are_run_and_one_more_is_not_requested(trunk_folder, family):
    trunk, tokenizer = load_trunk(trunk_folder(family))
    most = max_positions(trunk)
    assert most == {"t5": None, "roberta": 63 - tokenizer.pad_token_id}.get(family, 64)
    rows = TextEncoder(tokenizer, input_format_of(trunk), clamp_length(trunk, 100))
    assert rows.max_length == (100 if most is None else most)
    packed, cut = rows.encode_packed([("The kettle boils water quickly. " * 30, "It is a quiet fan. " * 30), ("a", "b")])
    assert cut == 1
    assert packed.lengths[0] == rows.max_length
    assert token_vectors(trunk, packed)[0].isfinite().all()


def test_a_table_of_positions_that_is_no_embedding_counts_from_the_padding_too(tiny_model):
    trunk = tiny_model("ibert", "encoder")
    assert max_positions(trunk) == 63
    assert trunk(torch.full((1, 63), 7)).last_hidden_state.isfinite().all()
    with pytest.raises(IndexError):
        trunk(torch.full((1, 64), 7))


@pytest.mark.parametrize("wanted", ["decoder", "encoder", "encoder_decoder"])
@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_another_family_than_the_chosen_is_refused_with_the_option_that_takes_it(trunk_folder, family, wanted):
    kind = FAMILIES[family]
    if kind == wanted:
        load_trunk(trunk_folder(family), wanted)
        return
    with pytest.raises(ConfigError, match=f"of type {family}, and backbone={OPTION[wanted]} takes .*write backbone={OPTION[kind]}"):
        load_trunk(trunk_folder(family), wanted)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        load_trunk(str(tmp_path / "nowhere"), "encoder")
