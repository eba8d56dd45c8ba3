"""Log-probabilities of responses against transformers' own loss, packed and padded, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.model import text_vectors
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.model.response_log_probs import response_log_probs

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
