"""Demonstrations as rows: all answers of a conversation are learned, of a text with a response the response alone."""

from __future__ import annotations

import pytest

from rlhf_lightning.backbone.encoder_decoder import EncoderDecoder
from rlhf_lightning.flow import Message
from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.prompt_encoding import TrainingRow
from rlhf_lightning.sft.module import demonstration_loader
from rlhf_lightning.sft.rows import demonstration_rows, pack
from rlhf_lightning.sft.settings import SFTSettings
from tests.fixtures.chat_templates import SHAPES, chat, chat_tokenizer
from tests.tokenization.test_chat_template import CHATML

FORGETFUL = CHATML.replace(
    "message['content'] +", "(message['content'] if loop.last else message['content'].split('</think>')[-1]) +"
)  # as Qwen3's drops the thoughts of earlier answers
CHAT = chat("A lamp?", "It is <|im_end|> quiet.", "And a fan?", "t</think>It costs little.")


@pytest.fixture
def templated(tiny_of) -> LanguageModel:
    made: LanguageModel = tiny_of("llama")
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    made.model.resize_token_embeddings(len(tokenizer))
    made.model.generation_config.eos_token_id = tokenizer.eos_token_id
    return LanguageModel(made.model, tokenizer)


def learned_texts(language_model: LanguageModel, row: TrainingRow) -> str:
    return str(language_model.tokenizer.decode([i for i, learned in zip(row.ids, row.mask, strict=True) if learned]))


def test_answers_after_the_prompt_are_learned_and_those_in_it_are_read(templated):
    (row,) = demonstration_rows(templated, Demonstration(CHAT[:1], CHAT[1:]))
    assert learned_texts(templated, row) == "It is <|im_end|> quiet.<|im_end|>t</think>It costs little.<|im_end|>"
    assert row.ids.count(templated.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 4, "that of the message is plain text"
    (last,) = demonstration_rows(templated, Demonstration(CHAT[:3], CHAT[3].content))
    (same,) = demonstration_rows(templated, Demonstration(CHAT[:3], CHAT[3:]))
    assert learned_texts(templated, last) == learned_texts(templated, same) == "t</think>It costs little.<|im_end|>"


def test_rows_with_and_without_gaps_are_packed_with_a_mask(templated):
    rows = [row for d in (Demonstration(CHAT[:1], CHAT[1:]), Demonstration("The", " fan")) for row in demonstration_rows(templated, d)]
    packed = pack(rows)
    assert packed.response_mask.tolist() == [learned for row in rows for learned in row.mask]
    assert pack(rows[1:]).response_mask is None


def test_under_a_template_that_forgets_each_answer_is_a_row_after_what_a_sampler_reads(templated):
    templated.tokenizer.chat_template = FORGETFUL
    messages = chat("A lamp?", "t</think>Yes.", "A fan?", "u</think>No.")
    rows = demonstration_rows(templated, Demonstration(messages[:1], messages[1:]))
    assert [learned_texts(templated, row) for row in rows] == ["t</think>Yes.<|im_end|>", "u</think>No.<|im_end|>"]
    for row, prompt in zip(rows, (messages[:1], messages[:3]), strict=True):
        assert row.ids[: row.mask.index(True)] == templated.encode_prompts([prompt], 4).prompt_ids[0].tolist()


def test_an_encoder_decoder_learns_each_answer_from_the_conversation_before_it(trunk_folder):
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = trunk_folder("t5")
    model = EncoderDecoder(T5ForConditionalGeneration.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    rows = demonstration_rows(model, Demonstration(CHAT[:1], CHAT[1:]))
    assert [row.context for row in rows] == [model.encode_prompts([CHAT[:n]], 4).prompt_ids[0].tolist() for n in (1, 3)]
    (batch,) = demonstration_loader([Demonstration(CHAT[:1], CHAT[1:])], model, SFTSettings(batch_size=4), 0, 0, 1)[0]
    assert len(batch) == len(batch.context) == 2


def test_a_text_is_learned_from_its_first_predicted_token(tiny_of):
    language_model = tiny_of("llama")
    (row,) = demonstration_rows(language_model, Demonstration("", "The kettle boils."))
    assert row.mask == [False] + [True] * (len(row.ids) - 1)
    assert language_model.tokenizer.decode(row.ids) == "The kettle boils.<|end|>"


def test_a_prompt_text_with_messages_is_a_users_message(templated):
    (row,) = demonstration_rows(templated, Demonstration("A lamp?", CHAT[1:]))
    (expected,) = demonstration_rows(templated, Demonstration((Message(role="user", content="A lamp?"),), CHAT[1:]))
    assert row == expected
