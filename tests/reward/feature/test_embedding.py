"""Embeddings against the model itself, one text at a time."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.feature.embedding import Embedding


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny(corpus=["a good day", "the bad cat sat there", "why not"]).save(path)
    return str(path)


def test_the_mean_over_the_response(folder):
    family = Embedding(path=folder, batch_size=2)
    family.fit([])
    texts = [("why", "a good day"), ("", "cat"), ("the bad cat sat", "why not"), ("why", "")]
    found = torch.tensor(list(family.rows(texts)))
    for row, (prompt, response) in zip(found, texts, strict=True):
        from rlhf_lightning.backbone.language_model import plain_ids

        ids = plain_ids(family.tokenizer, prompt, response)
        size = len(family.tokenizer(response, add_special_tokens=False)["input_ids"]) if response else len(ids)
        hidden = family.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(row, hidden[-size:].mean(0), atol=1e-5, rtol=1e-5)
    assert len(family.names) == found.shape[1]


def test_a_long_text_loses_its_prompt_s_beginning(folder):
    family = Embedding(path=folder, max_length=6)
    family.fit([])
    row = next(family.rows([("cat " * 50, "a")]))
    assert row != next(family.rows([("", "a")]))
    assert torch.tensor(row).isfinite().all()
    assert torch.tensor(next(family.rows([("", "a good day " * 50)]))).isfinite().all()


def test_another_model_under_the_same_name_is_refused(folder):
    family = Embedding(path=folder)
    with pytest.raises(DataError, match="dimensions"):
        family.restore({"dimensions": 7})
