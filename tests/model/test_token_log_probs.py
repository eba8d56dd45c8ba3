"""Fused log-probabilities and entropies, against the written-out ones and their autograd gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlhf_lightning.model import text_vectors
from rlhf_lightning.model import token_log_probs as fused
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.model.token_log_probs import response_log_probs
from rlhf_lightning.tensors import entropy_of, log_probs_of

N, D, V = 23, 7, 31


def case(bias: bool, dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(D, V, bias=bias, dtype=dtype)
    return layer, torch.randn(N, D, dtype=dtype, requires_grad=True), torch.randint(V, (N,))


def gradients(loss: Tensor, layer: nn.Linear, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *layer.parameters()]))


@pytest.mark.parametrize("kept", [0, 2**26])
@pytest.mark.parametrize("chunk", [V, 5 * V, 2**22])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", [False, True])
def test_values_and_gradients_are_those_of_the_written_out_softmax(monkeypatch, kept, chunk, bias, temperature, entropy):
    monkeypatch.setattr(fused, "MAX_SAVED", kept)
    monkeypatch.setattr(fused, "CHUNK", chunk)
    layer, hidden, tokens = case(bias)
    weights, others = torch.randn(2, N, dtype=torch.float64)
    logits = layer(hidden) / temperature
    expected = (log_probs_of(logits, tokens), entropy_of(logits))
    log_probs, entropies = fused.token_log_probs(layer, hidden, tokens, temperature, entropy)
    assert torch.allclose(log_probs, expected[0], atol=1e-12, rtol=0)
    ours, theirs = (log_probs * weights).sum(), (expected[0] * weights).sum()
    if entropy:
        assert torch.allclose(entropies, expected[1], atol=1e-12, rtol=0)
        ours, theirs = ours + (entropies * others).sum(), theirs + (expected[1] * others).sum()
    else:
        assert entropies is None
    for a, b in zip(gradients(ours, layer, hidden), gradients(theirs, layer, hidden), strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk", [V, 5 * V, 2**20])
@torch.no_grad()
def test_values_that_nothing_learns_from_are_the_same(monkeypatch, chunk):
    monkeypatch.setattr(fused, "READ_CHUNK", chunk)
    layer, hidden, tokens = case(True)
    log_probs, entropies = fused.token_log_probs(layer, hidden, tokens)
    assert torch.allclose(log_probs, log_probs_of(layer(hidden), tokens), atol=1e-12, rtol=0)
    assert torch.allclose(entropies, entropy_of(layer(hidden)), atol=1e-12, rtol=0)


def test_the_tokens_are_filled_up_so_that_few_numbers_of_them_are_ever_seen(monkeypatch):
    seen = []
    own = fused.product
    monkeypatch.setattr(fused, "product", lambda left, right, bias=None: seen.append(left.shape[0]) or own(left, right, bias))
    layer, hidden, tokens = case(False)
    with torch.no_grad():
        for count in (1, 9, N):
            assert fused.token_log_probs(layer, hidden[:count], tokens[:count])[0].shape == (count,)
    assert seen == [fused.ROUND] * 3


def test_an_impossible_token_adds_no_entropy():
    layer, hidden, tokens = case(True)
    with torch.no_grad():
        layer.bias[3] = -torch.inf
    log_probs, entropies = fused.token_log_probs(layer, hidden, tokens.where(tokens != 3, 4))
    assert torch.allclose(entropies, entropy_of(layer(hidden)), atol=1e-12)
    assert all(torch.isfinite(g).all() for g in gradients((log_probs + entropies).sum(), layer, hidden))


def test_a_layer_that_does_more_is_run_as_it_is():
    layer, hidden, tokens = case(False)
    layer.register_forward_hook(lambda module, given, output: 2 * output)
    assert torch.allclose(fused.token_log_probs(layer, hidden, tokens)[0], log_probs_of(layer(hidden), tokens))


def test_under_autocast_only_the_product_is_bfloat16():
    layer, hidden, tokens = case(False, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        log_probs, entropy = fused.token_log_probs(layer, hidden, tokens)
        logits = layer(hidden)
    assert logits.dtype == torch.bfloat16
    assert log_probs.dtype == entropy.dtype == torch.float32
    assert torch.allclose(log_probs, log_probs_of(logits, tokens), atol=1e-6)
    assert torch.allclose(entropy, entropy_of(logits), atol=1e-6)
    (gradient,) = torch.autograd.grad(log_probs.sum(), layer.weight)
    exact = torch.autograd.grad(log_probs_of(layer(hidden), tokens).sum(), layer.weight)[0]
    assert gradient.dtype == torch.float32
    assert (gradient - exact).norm() < 0.02 * exact.norm()


TEXTS = [("It", " costs little."), ("Review of a lamp:\n", "It is a quiet fan."), ("", "It boils"), ("The kettle", ""), ("It", " is")]


def by_transformers(language_model, row) -> torch.Tensor:
    """Minus the loss of one text alone, times its tokens."""
    ids = torch.tensor([row.ids])
    labels = ids.clone()
    labels[:, : len(row.before)] = -100
    counted = int((labels[:, 1:] != -100).sum())
    return -language_model.model(input_ids=ids, labels=labels).loss * counted, counted


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_they_are_transformers_own(language_model, either_tokenizer, monkeypatch, packs):
    if not packs:
        monkeypatch.setattr(text_vectors, "supports_packing", lambda trunk: False)
    for model in (language_model, either_tokenizer):
        rows = TextEncoder(model.tokenizer, InputFormat(), 64)
        expected, counts = zip(*[by_transformers(model, rows.encode(text)) for text in TEXTS], strict=True)
        found, tokens = response_log_probs(model, rows.encode_packed(TEXTS)[0])
        assert tokens.tolist() == list(counts)
        assert torch.allclose(found, torch.stack(expected), rtol=1e-5, atol=1e-4)
        weight = model.model.get_input_embeddings().weight
        slopes = [torch.autograd.grad((values * torch.arange(1.0, 6)).sum(), weight)[0] for values in (found, torch.stack(expected))]
        assert torch.allclose(*slopes, rtol=1e-4, atol=1e-3)


def test_company_and_order_change_nothing(language_model):
    rows = TextEncoder(language_model.tokenizer, InputFormat(), 64)
    together = response_log_probs(language_model, rows.encode_packed(TEXTS)[0])[0]
    alone = torch.cat([response_log_probs(language_model, rows.encode_packed([text])[0])[0] for text in TEXTS])
    backwards = response_log_probs(language_model, rows.encode_packed(TEXTS[::-1])[0])[0].flip(0)
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-4)
    assert torch.allclose(together, backwards, rtol=1e-5, atol=1e-4)
