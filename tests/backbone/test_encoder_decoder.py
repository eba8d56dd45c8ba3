"""backbone=encoder_decoder: prompts for the encoder, a prefix for the decoder, and the folder's own logits."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM

from rlhf_lightning.backbone.encoder_decoder import check_decoder_output, encoder_decoder
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.token_log_probs import response_log_probs

FAMILIES = ["t5", "bart"]
TEXTS = [("Review of a lamp:", "It is a quiet fan."), ("It", "costs"), ("", "The kettle boils water quickly.")]


def unread():
    raise AssertionError("a pretrained model brings its tokenizer")
    yield ""


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_response_log_probs_are_the_loss_of_transformers(trunk_folder, family):
    language_model = encoder_decoder(unread(), path=trunk_folder(family))
    model, tokenizer = language_model.model.eval(), language_model.tokenizer
    rows = [language_model.text_ids(*text) for text in TEXTS]
    ids, starts, contexts = zip(*rows, strict=True)
    found, counts = response_log_probs(language_model, PackedTokens.of(ids, starts, context=PackedTokens.of(contexts)))
    for (prompt, response), row, start, context, log_prob, count in zip(TEXTS, ids, starts, contexts, found, counts, strict=True):
        assert context == tokenizer(prompt)["input_ids"]
        first = 1 if family == "bart" else 0  # <s>, which the decoder is given
        labels = tokenizer(response)["input_ids"]
        assert row == [model.config.decoder_start_token_id, *labels]
        assert (start, int(count)) == (1 + first, len(labels) - first)
        logits = model(input_ids=torch.tensor([context]), labels=torch.tensor([labels])).logits[0]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(labels)[:, None])[first:].sum()
        assert log_prob.item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_saved_folder_is_the_same_in_plain_transformers_and_as_a_trunk(trunk_folder, family, tmp_path):
    language_model = encoder_decoder([], path=trunk_folder(family))
    language_model.save(tmp_path / "policy")
    ids, start = torch.tensor([[5, 9, 3]]), torch.tensor([language_model.decoder_prefix])
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "policy").eval()
    own = language_model.model.eval()
    said = [model(input_ids=ids, decoder_input_ids=start).logits for model in (again, own)]
    torch.testing.assert_close(*said, rtol=0, atol=1e-6)
    one, two = (AutoModel.from_pretrained(folder).state_dict() for folder in (tmp_path / "policy", trunk_folder(family)))
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_right_padded_in_the_tokenizers_template(trunk_folder, family):
    language_model = encoder_decoder([], path=trunk_folder(family))
    prompts = language_model.encode_prompts(["It costs little", "", "a fan"], 4)
    for text, ids, mask in zip(prompts.prompts, prompts.prompt_ids, prompts.prompt_mask, strict=True):
        length = int(mask.sum())
        assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
        assert ids[:length].tolist() == language_model.tokenizer(text)["input_ids"]


def test_room_is_that_of_each_side(trunk_folder):
    bart, t5 = (encoder_decoder([], path=trunk_folder(family)) for family in ("bart", "t5"))
    long = "fan " * 62
    assert bart.encode_prompts([long], 62).prompt_ids.shape == (1, 64)
    with pytest.raises(DataError, match=r"a prompt of 65 tokens doesn't fit the encoder's 64 positions"):
        bart.encode_prompts([long + "fan"], 62)
    with pytest.raises(DataError, match=r"up to 63 tokens doesn't fit the decoder's 64 positions"):
        bart.encode_prompts(["fan"], 63)
    assert t5.encode_prompts([long * 10], 1000).prompt_ids.shape == (1, 621)


def test_a_bias_after_the_output_layer_is_read(trunk_folder):
    language_model = encoder_decoder([], path=trunk_folder("bart"))
    language_model.model.final_logits_bias.normal_()
    check_decoder_output(language_model)
    hidden = torch.randn(3, 32)
    biased = language_model.logits(hidden)
    language_model.model.final_logits_bias.zero_()
    assert (biased - language_model.logits(hidden)).abs().max() > 1


def test_an_output_that_is_scaled_is_read_scaled(trunk_folder):
    language_model = encoder_decoder([], path=trunk_folder("t5"))
    for scaled in (True, False):
        language_model.model.config.scale_decoder_outputs = scaled
        check_decoder_output(language_model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_have_the_requested_type(trunk_folder, dtype):
    language_model = encoder_decoder([], path=trunk_folder("bart"), dtype=dtype)
    assert {parameter.dtype for parameter in language_model.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_another_family_is_refused(trunk_folder, family):
    with pytest.raises(ConfigError, match=r"backbone\.path=.* and backbone=encoder_decoder takes"):
        encoder_decoder([], path=trunk_folder(family))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        encoder_decoder([], path=str(tmp_path / "nowhere"))
