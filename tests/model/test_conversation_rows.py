"""Conversations as rows to train on: log-probabilities and losses of five families' templates against plain transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import DataError
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import TrainingRow
from rlhf_lightning.model.token_log_probs import response_log_probs
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.preference.examples import TextTable
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.sft.module import SFTModule
from rlhf_lightning.sft.settings import SFTSettings
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
    language_model.model.config.max_position_embeddings = 128
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


def test_the_loss_of_sft_is_the_mean_over_the_assistants_tokens(model):
    rows = [row for messages in CONVERSATIONS for row in model.conversation_rows(messages)]
    sums = SFTModule(model, SFTSettings(), 1).loss_sums(pack(rows))
    expected = torch.cat([plain_log_probs(model.model, row.ids)[torch.tensor(row.mask[1:])] for row in rows])
    assert sums.weight == len(expected) == sum(sum(row.mask) for row in rows)
    torch.testing.assert_close(sums.loss / sums.weight, -expected.mean(), atol=1e-5, rtol=1e-5)


def test_the_log_probs_of_preferences_are_of_the_last_answer(model):
    table = TextTable(model.tokenizer, 512, model.eos_ids)
    rows = [table.row_of((messages[:-1], messages[-1].content)) for messages in CONVERSATIONS]
    sums, counts = response_log_probs(model, table.pack(rows))
    for messages, total, count in zip(CONVERSATIONS, sums, counts, strict=True):
        prompt, ids = template_ids(model.tokenizer, messages[:-1], generation=True), template_ids(model.tokenizer, messages)
        last = len(prompt) + int(count)
        assert ids[: len(prompt)] == prompt
        assert model.tokenizer.decode(ids[last - 1]) == model.tokenizer.decode(model.conversation_rows(messages)[0].ids[last - 1])
        assert not any(model.conversation_rows(messages)[0].mask[last:])
        torch.testing.assert_close(total, plain_log_probs(model.model, ids)[len(prompt) - 1 : last - 1].sum(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_log_probs_of_ppo_follow_the_templates_prompt(model):
    torch.manual_seed(0)
    rollout = native(model, model.encode_prompts([messages[:-1] for messages in CONVERSATIONS], 12), max_new_tokens=12)
    log_probs = Policy(model)(rollout).log_probs
    for i, messages in enumerate(CONVERSATIONS):
        prompt, response = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()], rollout.response_ids[i][rollout.response_mask[i].bool()]
        assert prompt.tolist() == template_ids(model.tokenizer, messages[:-1], generation=True)
        expected = plain_log_probs(model.model, [*prompt.tolist(), *response.tolist()])[len(prompt) - 1 :]
        torch.testing.assert_close(log_probs[i, : len(response)], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(rollout.sampled_log_probs[i, : len(response)], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_encoder_reads_the_conversation_and_the_decoder_learns_each_answer(trunk_folder):
    language_model = encoder_decoder([], path=trunk_folder("t5"))
    tokenizer: Any = language_model.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = SHAPES["ChatML"].template
    language_model.model.resize_token_embeddings(len(tokenizer))
    messages = CONVERSATIONS[0]
    rows = language_model.conversation_rows(messages)
    assert len(rows) == 3
    starts = [row.mask.index(True) for row in rows]
    sums = response_log_probs(
        language_model, PackedTokens.of([r.ids for r in rows], starts, context=PackedTokens.of([r.context for r in rows]))
    )
    for number, (row, total, count) in enumerate(zip(rows, *sums, strict=True)):
        prompt = messages[: 2 * number + 1]
        assert row.context == [*template_ids(tokenizer, prompt, generation=True), tokenizer.eos_token_id]
        labels = [*tokenizer(messages[2 * number + 1].content, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert row.ids[-int(count) :] == labels
        logits = language_model.model(input_ids=torch.tensor([row.context]), labels=torch.tensor([labels])).logits[0]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(labels)[:, None]).sum()
        torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)


def test_a_conversation_without_an_answer_is_rejected(model):
    with pytest.raises(DataError, match="roles user has no message of the assistant"):
        model.conversation_rows(CONVERSATIONS[0][:1])


def test_the_default_template_makes_one_row_in_which_answers_of_the_context_are_not_learned(model):
    tokenizer: Any = model.tokenizer
    template = tokenizer.chat_template
    messages = CONVERSATIONS[0]
    try:
        tokenizer.chat_template = None
        (row,), (rest,) = model.conversation_rows(messages), model.conversation_rows(messages, 3)
        prompt = model.encode_prompts([messages[:1]], 4).prompt_ids[0].tolist()
    finally:
        tokenizer.chat_template = template
    learned = [tokenizer.decode([i for i, m in zip(r.ids, r.mask, strict=True) if m]) for r in (row, rest)]
    end = tokenizer.eos_token
    assert learned == [f" It is cheap.{end}  Yes, it boils water.{end} Good.{end}", f"  Yes, it boils water.{end} Good.{end}"]
    assert row.ids == rest.ids
    assert row.ids[: row.mask.index(True)] == prompt
