"""Conversations of several turns: the ids of plain transformers, and the assistant's tokens by five families' templates."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.tokenization.chat_template import prompt_ids
from rlhf_lightning.tokenization.conversation import UnstableTemplate, conversation_ids
from tests.fixtures.chat_templates import SHAPES, chat, chat_tokenizer, template_ids

TURNS = ("How much is it?", "It is cheap.", "Is it quick?\n", "  Yes, it boils water.", "Thank you!", "Ünbelievably good 🙂")


@pytest.fixture(params=SHAPES, scope="module")
def shape(request: pytest.FixtureRequest) -> Any:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def tokenizer(shape) -> Any:
    return chat_tokenizer(shape)


def runs(ids: list[int], mask: list[bool]) -> list[list[int]]:
    """The maximal runs of masked ids."""
    rows: list[list[int]] = []
    for i, token in enumerate(ids):
        if mask[i]:
            rows = [*rows, []] if not i or not mask[i - 1] else rows
            rows[-1].append(token)
    return rows


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_ids_are_those_of_transformers_and_the_mask_is_the_answers_with_their_ends(shape, tokenizer, system):
    if system and not shape.has_system:
        with pytest.raises(DataError, match="roles system, user"):
            conversation_ids(tokenizer, chat(*TURNS, system=system))
        return
    messages = chat(*TURNS, system=system)
    ids, mask = conversation_ids(tokenizer, messages)
    assert ids == template_ids(tokenizer, messages)
    assert ids.count(tokenizer.bos_token_id) == int(shape.adds_bos)
    assert len(mask) == len(ids)
    answers = [tokenizer.decode(run) for run in runs(ids, mask)]
    assert [text.removesuffix(shape.end).strip() for text in answers] == [text.strip() for text in TURNS[1::2]]
    assert all(text.endswith(shape.end) for text in answers)


def test_each_answer_follows_the_prompt_of_a_sampler_and_the_last_is_the_row_of_one_turn(shape, tokenizer):
    messages = chat(*TURNS)
    ids, mask = conversation_ids(tokenizer, messages)
    starts = [i for i, marked in enumerate(mask) if marked and not mask[i - 1]]
    for number, start in enumerate(starts):
        prompt = messages[: 2 * number + 1]
        assert ids[:start] == prompt_ids(tokenizer, prompt) == template_ids(tokenizer, prompt, generation=True)
    row = TextEncoder(tokenizer, InputFormat(), 10**6).encode((messages[:-1], TURNS[-1]))
    assert ids[: len(row.ids)] == row.ids
    assert [i for i in range(len(ids)) if mask[i]][-1] == len(row.ids) - 1


def test_special_tokens_in_messages_are_text_and_move_no_mask(shape, tokenizer):
    dirty = f"a {shape.end} b {shape.special[0]}"
    messages = chat("How much?", dirty, f"{shape.end} c", "Good.")
    ids, mask = conversation_ids(tokenizer, messages)
    special = set(tokenizer.all_special_ids)
    clean = conversation_ids(tokenizer, chat("How much?", "a", "c", "Good."))[0]
    assert [i for i in ids if i in special] == [i for i in clean if i in special]
    assert [tokenizer.decode(run).strip() for run in runs(ids, mask)] == [f"{dirty}{shape.end}", f"Good.{shape.end}"]


def test_a_template_that_marks_the_models_text_determines_it():
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    messages = chat(*TURNS)
    expected = tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert conversation_ids(tokenizer, messages) == (expected["input_ids"], list(map(bool, expected["assistant_masks"])))
    unmarked = tokenizer.chat_template.replace("'<|im_end|>' }}{% endgeneration %}{{", "'' }}{% endgeneration %}{{ '<|im_end|>' +")
    messages = chat("a <|im_end|>", "b <|im_end|> c", "d", "e")
    expected = conversation_ids(tokenizer, messages)
    tokenizer.chat_template = unmarked
    assert conversation_ids(tokenizer, messages) == expected


def test_a_template_that_drops_earlier_thoughts_is_reported():
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    tokenizer.chat_template = SHAPES["ChatML"].template.replace(
        "+ m['content'] +", "+ (m['content'] if loop.last else m['content'].split('</think>')[-1]) +"
    )
    assert len(conversation_ids(tokenizer, chat("a", "b", "c", "d")).ids) > 0
    with pytest.raises(UnstableTemplate, match=r"message 2 \(assistant\) .* with 'b<.* instead of '<think>x</think>b"):
        conversation_ids(tokenizer, chat("a", "<think>x</think>b", "c", "d"))


@pytest.mark.parametrize("content", ["20 euros", "20 <|end|> euros"])
def test_a_role_that_the_template_leaves_out_is_rejected(content):
    tokenizer = chat_tokenizer(SHAPES["Phi"])
    messages = (*chat("How much?", "I look."), Message(role="tool", content=content), *chat("Well?"))
    for encode in (prompt_ids, conversation_ids):
        with pytest.raises(DataError, match=r"leaves out messages of the role tool \(message 3 of 4\): .* another chat_template"):
            encode(tokenizer, messages)
    with pytest.raises(DataError, match="roles must alternate"):
        prompt_ids(chat_tokenizer(SHAPES["Mistral"]), messages)
    if "<" not in content:
        tokenizer = chat_tokenizer(SHAPES["ChatML"])
        assert prompt_ids(tokenizer, messages) == template_ids(tokenizer, messages, generation=True)
