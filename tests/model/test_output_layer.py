"""Logits that a model scales, biases or soft-caps: log-probabilities and gradients are those of its own forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    MarianConfig,
    NanoChatConfig,
    RobertaConfig,
)

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model import output_layer, token_log_probs
from rlhf_lightning.model.language_model import LanguageModel, check_output_layer
from rlhf_lightning.model.output_layer import LogitForm, logit_form, output_log_probs, output_logits
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.text_vectors import decoder_hidden, text_vectors
from rlhf_lightning.model.token_log_probs import response_log_probs

SHAPE: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
MAMBA: dict[str, Any] = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
CONFIGS = {
    "soft-capped": (lambda: Gemma2Config(**SHAPE, head_dim=16, final_logit_softcapping=3.0), LogitForm(cap=3.0)),
    "soft-capped, another name": (lambda: NanoChatConfig(**SHAPE, final_logit_softcapping=5.0), LogitForm(cap=5.0)),
    "not capped": (lambda: Gemma2Config(**SHAPE, head_dim=16, final_logit_softcapping=None), LogitForm()),
    "divided": (lambda: GraniteConfig(**SHAPE, logits_scaling=8.0), LogitForm(scale=0.125)),
    "scaled": (lambda: CohereConfig(**SHAPE, logit_scale=0.0625), LogitForm(scale=0.0625)),
    "multiplied": (lambda: FalconH1Config(**SHAPE, **MAMBA, head_dim=16, lm_head_multiplier=0.5), LogitForm(scale=0.5)),
    "a head of its own": (
        lambda: RobertaConfig(**{**SHAPE, "bos_token_id": 2}, max_position_embeddings=40, is_decoder=True),
        None,
    ),
}  # fmt: skip


def model_of(name: str) -> Any:
    """A model whose logits are far beyond a cap of 3."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name][0]()).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30.0)
    return model


def tokens() -> PackedTokens:
    ids = torch.randint(3, 99, (21,), generator=torch.Generator().manual_seed(0))
    return PackedTokens(ids, torch.tensor([9, 5, 7]), response_start=torch.tensor([4, 1, 3]))


def plain_log_probs(model: Any) -> torch.Tensor:
    """Summed log-probabilities of the responses by the model's own forward, one row at a time."""
    sums = []
    rows = tokens()
    for row, start in zip(rows.ids.split(rows.lengths.tolist()), rows.response_start.tolist(), strict=True):
        logits = model(input_ids=row[None], use_cache=False).logits[0].log_softmax(-1)
        sums.append(logits[start - 1 : -1].gather(1, row[start:, None]).sum())
    return torch.stack(sums)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_and_gradients_are_those_of_the_model_s_own_forward(name, tiny_of):
    model = model_of(name)
    language_model = LanguageModel(model, tiny_of("llama").tokenizer)
    assert logit_form(model) == CONFIGS[name][1]
    sums, _ = response_log_probs(language_model, tokens())
    expected = plain_log_probs(model)
    assert torch.allclose(sums, expected, atol=1e-4)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(sums.sum(), list(model.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    for parameter, own, other in zip(names, ours, theirs, strict=True):
        assert (own is None) == (other is None), parameter
        assert own is None or torch.allclose(own, other, atol=1e-3, rtol=1e-3), parameter


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "computed again"])
@pytest.mark.parametrize("name", CONFIGS)
def test_fused_log_probs_entropies_and_gradients_are_those_of_the_logits(name, temperature, keeps, monkeypatch):
    if not keeps:
        monkeypatch.setattr(token_log_probs, "MAX_SAVED", 0)
    model = model_of(name)
    hidden = (torch.randn(11, 32, generator=torch.Generator().manual_seed(1)) * 3).requires_grad_()
    chosen = torch.randint(99, (11,), generator=torch.Generator().manual_seed(2))
    weights = torch.randn(2, 11, generator=torch.Generator().manual_seed(3))
    results = []
    log_probs, entropies = output_log_probs(model, hidden, chosen, temperature)
    distribution = (output_layer.native_logits(model, hidden) / temperature).log_softmax(-1)
    plain = distribution.gather(1, chosen[:, None])[:, 0], -(distribution.exp() * distribution).sum(-1)
    for own, entropy in ((log_probs, entropies), plain):
        loss = (own * weights[0] + entropy * weights[1]).sum()
        results.append([own, entropy, *torch.autograd.grad(loss, [hidden, model.get_output_embeddings().weight])])
    for own, other in zip(*results, strict=True):
        assert torch.allclose(own, other, atol=1e-4, rtol=1e-3)


def test_a_bias_of_the_logits_is_added(tiny_of):
    config = MarianConfig(
        vocab_size=99, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    model.final_logits_bias.normal_()
    assert logit_form(model) == LogitForm(is_biased=True)
    ids, context = torch.tensor([0, 7, 8, 9]), torch.tensor([5, 6, 1])
    rows = PackedTokens(ids, torch.tensor([4])), PackedTokens(context, torch.tensor([3]))
    hidden = decoder_hidden(model, *rows)[0][0]
    expected = model(input_ids=context[None], decoder_input_ids=ids[None]).logits[0].log_softmax(-1)
    assert torch.allclose(output_logits(model, hidden).log_softmax(-1), expected, atol=1e-5)
    log_probs = output_log_probs(model, hidden, torch.tensor([7, 8, 9, 1]))[0]
    assert torch.allclose(log_probs, expected.gather(1, torch.tensor([7, 8, 9, 1])[:, None])[:, 0], atol=1e-5)


def test_a_cap_is_noticed_where_a_fresh_model_s_logits_are_small(tiny_of):
    """The form is compared at large logits: within a fresh model's, tanh is a line."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SHAPE, head_dim=16, final_logit_softcapping=30.0)).eval()
    hidden = text_vectors(model.base_model, tokens())
    assert output_logits(model, hidden).abs().max() < 1
    assert logit_form(model) == LogitForm(cap=30.0)
    assert output_logits(model, hidden * 1e4).abs().max() <= 30.0


def test_a_model_that_treats_its_vectors_between_trunk_and_head_is_rejected(tiny_of, tmp_path):
    language_model = tiny_of("llama")
    language_model.save(tmp_path)
    forward = type(language_model.model).forward

    def shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[-1]) * kwargs["input_ids"].float().mean()
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(language_model.model), "forward", shifted)
        with pytest.raises(ConfigError, match="LlamaForCausalLM is not supported: it changes its vectors or logits"):
            causal([], path=str(tmp_path))
    check_output_layer(language_model)
