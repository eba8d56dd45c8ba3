"""Conversations as rows to train on: log-probabilities and losses of five families' templates against plain transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import TrainingRow
from rlhf_lightning.model.response_log_probs import response_log_probs
from tests.fixtures.chat_templates import SHAPES, chat, chat_tokenizer, template_ids
from tests.fixtures.models import make_tiny

CONVERSATIONS = [
    chat("How much is it?", "It is cheap.", "Is it quick?\n", "  Yes, it boils water.", "Thank you!", "Good."),
    chat("Is it quick?", "No."),
    chat("The kettle?", "It costs little.", "How much?", "Quickly, it is."),
]


@pytest.fixture(params=SHAPES, scope="module")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    language_model = make_tiny("llama")
    tokenizer = chat_tokenizer(SHAPES[request.param])
    language_model.model.resize_token_embeddings(len(tokenizer))
    language_model.model.generation_config.eos_token_id = tokenizer.eos_token_id
    return LanguageModel(language_model.model, tokenizer)


def pack(rows: list[TrainingRow]) -> PackedTokens:
    starts = [row.mask.index(True) for row in rows]
    return PackedTokens.of([row.ids for row in rows], starts, response_mask=[row.mask for row in rows])


def plain_log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """The log-probability of each id but the first by a forward pass of transformers on one row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_log_probs_of_packed_conversations_are_those_of_plain_transformers(model):
    rows = [row for messages in CONVERSATIONS for row in model.conversation_rows(messages)]
    assert len(rows) == len(CONVERSATIONS)
    sums, counts = response_log_probs(model, pack(rows))
    for row, messages, total, count in zip(rows, CONVERSATIONS, sums, counts, strict=True):
        ids = template_ids(model.tokenizer, messages)
        assert row.ids == ids
        expected = plain_log_probs(model.model, ids)[torch.tensor(row.mask[1:])]
        assert count == len(expected)
        torch.testing.assert_close(total, expected.sum(), atol=1e-5, rtol=1e-5)


def test_a_conversation_without_an_answer_is_rejected(model):
    with pytest.raises(DataError, match="roles user has no message of the assistant"):
        model.conversation_rows(CONVERSATIONS[0][:1])


def test_a_row_for_each_answer_where_one_row_would_not_be_what_is_sampled(model):
    tokenizer: Any = model.tokenizer
    template = tokenizer.chat_template
    messages = CONVERSATIONS[0]
    try:
        tokenizer.chat_template = None
        rows = model.conversation_rows(messages)
    finally:
        tokenizer.chat_template = template
    assert len(rows) == 3
    assert not any(row.note for row in rows)
    assert [row.ids[-1] for row in rows] == [tokenizer.eos_token_id] * 3
    assert [tokenizer.decode([i for i, m in zip(row.ids, row.mask, strict=True) if m][:-1]) for row in rows] == [
        message.content for message in messages[1::2]
    ]
