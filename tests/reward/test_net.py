"""A trunk of each family under a head: one score whatever the padding, and LoRA's adapters merged."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from rlhf_lightning.model.adapters import merge_adapters
from rlhf_lightning.model.packing import PackedTokens, padded_inputs, supports_packing
from rlhf_lightning.model.prompt_encoding import InputFormat
from rlhf_lightning.reward.net import ClassifierScore
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.tuning.lora import lora

FAMILIES = ["gpt2", "llama", "bert", "roberta", "modernbert", "t5", "bart"]
TEXTS = [
    ("Review of a lamp:", "It is a quiet fan."),
    ("It", " costs"),
    ("The kettle", "boils water quickly. It is a quiet fan."),
    ("", "fan"),
]


def padded_by(side: str, model, plain) -> torch.Tensor:
    """Scores by transformers' own trunk of rows padded on one side, three more tokens than the longest needs."""
    tokens = model.tokenise(TEXTS)
    pad = model.tokenizer.pad_token_id

    def rows(packed, values, fill):
        parts = values.split(packed.lengths.tolist())
        longest = int(packed.lengths.max()) + 3
        out, mask = torch.full((len(parts), longest), fill), torch.zeros((len(parts), longest), dtype=torch.long)
        for i, part in enumerate(parts):
            place = slice(0, len(part)) if side == "right" else slice(longest - len(part), longest)
            out[i, place], mask[i, place] = part, 1
        return out, mask

    ids, mask = rows(tokens, tokens.ids, pad)
    if tokens.context is not None:
        read, read_mask = rows(tokens.context, tokens.context.ids, pad)
        apply_head = plain(input_ids=read, attention_mask=read_mask, decoder_input_ids=ids, decoder_attention_mask=mask)
    else:
        types = {} if tokens.types is None else {"token_type_ids": rows(tokens, tokens.types, 0)[0]}
        positions = (
            {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if model.net.trunk.config.model_type in ("gpt2", "llama", "bert") else {}
        )
        apply_head = plain(input_ids=ids, attention_mask=mask, **types, **positions)
    return model.net.head(model.net.pooling(apply_head.last_hidden_state, mask))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_packed_padded_left_padded_batched_and_single_scores_agree(model_of, trunk_folder, family, monkeypatch):
    for pooling in ({}, {"pooling": mean}):
        model = model_of(family, **pooling)
        together = model.score_texts(*zip(*TEXTS, strict=True))
        others = [model.score_texts(*zip(*TEXTS, strict=True), batch_size=2)]
        others.append(torch.cat([model.score_texts([prompt], [response]) for prompt, response in TEXTS]))
        plain = AutoModel.from_pretrained(trunk_folder(family)).eval()  # its attention is never switched
        plain.resize_token_embeddings(model.net.trunk.get_input_embeddings().num_embeddings)
        # BART takes no positions, so that transformers itself can't run it padded on the left.
        others += [padded_by(side, model, plain) for side in ("right", "left") if (family, side) != ("bart", "left")]
        monkeypatch.setattr("rlhf_lightning.model.text_vectors.supports_packing", lambda trunk: False)
        others.append(model.score_texts(*zip(*TEXTS, strict=True)))
        monkeypatch.undo()
        for other in others:
            assert (together - other).abs().max() < 1e-5 * max(1, together.abs().max())
        assert together.std() > 1e-3


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "bart"])
def test_a_classifier_of_transformers_scores_each_text_as_it_does_alone(trunk_folder, family, tmp_path):
    """In its tokenizer's own pair, whatever the batch."""
    from transformers import AutoTokenizer

    from rlhf_lightning.reward.storage.folder import load_reward_model

    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(trunk_folder(family), num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(trunk_folder(family))
    classifier.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_reward_model(str(tmp_path)).eval()
    assert isinstance(model.net, ClassifierScore)
    together = model.score_texts(*zip(*TEXTS, strict=True))
    with torch.no_grad():
        for (prompt, response), score in zip(TEXTS, together.tolist(), strict=True):
            told = tokenizer(prompt, response, return_tensors="pt", return_token_type_ids=family == "bert")
            assert abs(classifier(**told).logits.item() - score) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_a_decoders_classifier_reads_without_padding_what_transformers_reads_with_it(trunk_folder, family, monkeypatch):
    """At the last token that isn't the pad's id, wherever that stands in a text."""
    torch.manual_seed(0)
    classifier = AutoModelForSequenceClassification.from_pretrained(trunk_folder(family), num_labels=1).eval()
    pad = classifier.config.pad_token_id = 3
    tokens = PackedTokens.of([[5, 6, 7, pad], [8, pad, 9], [10], [11, 12, 13, 14, 15, pad, pad]])
    expected = classifier(**padded_inputs(tokens, pad)).logits[:, 0]
    net = ClassifierScore(classifier)
    monkeypatch.setattr("rlhf_lightning.reward.net.padded_inputs", lambda tokens, pad: pytest.fail("it was run padded"))
    assert supports_packing(net.trunk)
    torch.testing.assert_close(net(tokens), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3


def test_what_is_read_is_by_family(model_of):
    kinds = {family: model_of(family).net.input_format for family in ("gpt2", "bert", "roberta", "t5")}
    assert kinds == {
        "gpt2": InputFormat("decoder"), "bert": InputFormat("encoder", typed=True), "roberta": InputFormat("encoder"),
        "t5": InputFormat("encoder_decoder", decoder_start=0),
    }  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
@torch.no_grad()
def test_merged_adapters_leave_the_scores_and_plain_layers(model_of, family):
    model = model_of(family)
    names, before = list(model.state_dict()), model.score_texts(*zip(*TEXTS, strict=True))
    lora(model.net.trunk, rank=4, dropout=0.0)
    assert torch.equal(model.eval().score_texts(*zip(*TEXTS, strict=True)), before)  # they start as no change
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = model.score_texts(*zip(*TEXTS, strict=True))
    assert (adapted - before).abs().max() > 1e-2
    packs = supports_packing(model.net.trunk)
    merge_adapters(model.net)
    assert list(model.state_dict()) == names
    assert supports_packing(model.net.trunk) == packs == (family != "t5")
    after = model.score_texts(*zip(*TEXTS, strict=True))
    assert (after - adapted).abs().max() < 1e-4 * max(1, adapted.abs().max())
