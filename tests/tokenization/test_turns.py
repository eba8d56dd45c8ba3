"""Where answers end: chat templates of many families, end-of-text tokens that disagree, and prefixes with special tokens."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.flow import FramedPrompt, Message
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.tokenization.chat_template import prompt_ids
from rlhf_lightning.tokenization.turns import end_notes, frame_notes, stop_ids, text_end, turn_template

SPECIAL = "<s> <|im_start|> <|im_end|> <|U|> <|A|> <|E|> <|sys|> [gMASK] <sop> [INST] [/INST]"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ '<s>' }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
    "{{ '<|U|>' + m['role'] + '\n' + m['content'] | trim + '<|E|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|U|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' <|end|>' }}{% endif %}{% endfor %}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|U|>' if m['role'] == 'user' else '<|A|>' }}{{ '\n' + m['content'] + '<|E|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|A|>\n' }}{% else %}{{ '<|end|>' }}{% endif %}"
)
GLM_4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|U|>' if m['role'] == 'user' else '<|A|>' }}{{ '\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|A|>' }}{% endif %}"
)
TURN = "{{ m['role'] + ': ' + m['content'] + '\n' }}"
NO_END = f"{{% for m in messages %}}{TURN}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ 'assistant:' }}}}{{% endif %}}"
EMPTY_THOUGHT = (  # Qwen3: an answer without a thought gets an empty one
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if loop.last and m['role'] == 'assistant' and '</think>' not in "
    "m['content'] %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPEN_THOUGHT = (  # Qwen3-Thinking: the generation prompt opens the thought, which the conversation holds
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% if '</think>' in m['content'] %}{% set t = m['content'].split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{{ '<think>\n' + t + '\n</think>\n\n' + m['content'].split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ '<think>\n\n</think>\n\n' + m['content'] }}{% endif %}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
DROPPED_THOUGHT = (  # DeepSeek-R1: the generation prompt opens the thought, which the conversation drops
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|A|>' + m['content'].split('</think>')[-1] + '<|end|>' }}"
    "{% else %}{{ '<|U|>' + m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|A|><think>\n' }}{% endif %}"
)
REWRITTEN_HISTORY = (  # thoughts stay in the last answer alone
    "{% for m in messages %}{{ '<|U|>' if m['role'] == 'user' else '<|A|>' }}{% if m['role'] == 'assistant' and not loop.last and "
    "messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'assistant') | list %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|E|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|A|>' }}{% endif %}"
)
TEMPLATES = {
    "ChatML": CHATML, "Gemma": GEMMA, "Llama 2": LLAMA_2, "Phi-3": PHI_3, "Qwen3": EMPTY_THOUGHT, "Qwen3-Thinking": OPEN_THOUGHT,
    "DeepSeek-R1": DROPPED_THOUGHT, "history": REWRITTEN_HISTORY,
}  # fmt: skip
ENDS = {
    "ChatML": "<|im_end|>", "Gemma": "<|E|>", "Llama 2": "<|end|>", "Phi-3": "<|E|>", "Qwen3": "<|im_end|>", "Qwen3-Thinking": "<|im_end|>",
    "DeepSeek-R1": "<|end|>", "history": "<|E|>",
}  # fmt: skip
QUESTION = (Message(role="user", content="How much is it?"),)
LONGER = (*QUESTION, Message(role="assistant", content="<think>\nI count.\n</think>\nLittle."), Message(role="user", content="Why?"))


def model_with(template: str | None) -> LanguageModel:
    model = tiny(["The kettle boils water quickly.", "It is a quiet fan."] * 4, layers=1, width=16, heads=2, vocabulary=320)
    model.tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": SPECIAL.split()[1:]})
    model.tokenizer.add_tokens(["<think>", "</think>"])
    model.tokenizer.chat_template = template
    model.model.resize_token_embeddings(len(model.tokenizer))
    return model


def tokenizer_with(template: str) -> Any:
    return model_with(template).tokenizer


def rendered(tokenizer: Any, prompt: tuple[Message, ...], answer: str) -> str:
    chat = [*prompt, Message(role="assistant", content=answer)]
    return tokenizer.apply_chat_template([message.model_dump() for message in chat], tokenize=False)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [QUESTION, LONGER], ids=["one turn", "three turns"])
@pytest.mark.parametrize("answer", ["Good.", " Good \n", "<think>\nI greet.\n</think>\nGood.", "<|im_end|>\nGood <s>.", ""])
def test_a_row_is_the_conversation_as_the_template_renders_it_to_the_end_of_the_turn(name, prompt, answer):
    tokenizer = tokenizer_with(TEMPLATES[name])
    row = TextEncoder(tokenizer, InputFormat(), 10**6).encode((prompt, answer))
    text = rendered(tokenizer, prompt, answer)
    end = text.rindex(ENDS[name]) + len(ENDS[name])
    assert tokenizer.decode(row.ids) == text[:end]
    assert text[end:].strip() in ("", "<|end|>")
    assert row.end[-1] == tokenizer.convert_tokens_to_ids(ENDS[name])
    special = {*tokenizer.convert_tokens_to_ids(SPECIAL.split()), tokenizer.eos_token_id}
    clean = TextEncoder(tokenizer, InputFormat(), 10**6).encode((prompt, "Good."))
    assert [i for i in row.ids if i in special] == [i for i in clean.ids if i in special]
    assert row.is_rewritten == (answer.strip() not in text)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [QUESTION, LONGER], ids=["one turn", "three turns"])
def test_the_prompt_is_what_the_sampler_reads_or_the_common_start_of_both_renderings(name, prompt):
    tokenizer = tokenizer_with(TEMPLATES[name])
    row, asked = TextEncoder(tokenizer, InputFormat(), 10**6).encode((prompt, "Good.")), prompt_ids(tokenizer, prompt)
    learned = tokenizer.decode([*row.answer, *row.end])
    assert learned.endswith(f"Good.{' ' if name == 'Llama 2' else ''}{ENDS[name]}")
    if name == "DeepSeek-R1":
        assert row.before == asked[:-2]
        assert tokenizer.decode(asked[-2:]) == "<think>\n"
        assert learned == "Good.<|end|>"
    elif name == "history" and prompt is LONGER:
        assert "count" in tokenizer.decode(asked)
        assert learned == "Good.<|E|>"
    else:
        assert row.before == asked
        thought = {"Qwen3": "<think>\n\n</think>\n\n", "Qwen3-Thinking": "\n</think>\n\n", "Llama 2": " "}.get(name, "")
        assert learned == f"{thought}Good.{' ' if name == 'Llama 2' else ''}{ENDS[name]}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_characters_of_an_answers_tokens_are_those_of_the_response(name):
    tokenizer = tokenizer_with(TEMPLATES[name])
    rows = TextEncoder(tokenizer, InputFormat(), 10**6)
    for response in ("Good fan.", "  Good fan.\n", "<think>\nfan\n</think>\nGood fan.", "a <|im_end|> b"):
        row = rows.encode((QUESTION, response))
        first, spans = rows.offsets((QUESTION, response))
        assert first == len(row.before)
        assert len(spans) == len(row.answer)
        for token, (start, end) in zip(row.answer, spans, strict=True):
            assert response[start:end].strip() in ("", tokenizer.decode([token]).strip()), (token, start, end)
        covered = "".join(response[start:end] for start, end in spans)
        assert "fan." in covered or response.startswith("a")


def test_an_answer_without_an_end_in_the_template_ends_with_the_start_of_the_next_turn_where_sampling_stops_there():
    tokenizer = tokenizer_with(GLM_4)
    user, eos = tokenizer.convert_tokens_to_ids("<|U|>"), tokenizer.eos_token_id
    assert TextEncoder(tokenizer, InputFormat(), 99, (eos, user)).encode((QUESTION, "Good.")).end == [user]
    assert TextEncoder(tokenizer, InputFormat(), 99, (eos,)).encode((QUESTION, "Good.")).end == [eos]
    row = TextEncoder(tokenizer_with(NO_END), InputFormat(), 99).encode((QUESTION, "Good."))
    assert tokenizer.decode(row.ids) == "user: How much is it?\nassistant: Good.<|end|>"


def test_a_prompt_that_ends_with_an_answer_is_continued_where_the_template_wants_turns_in_order():
    tokenizer = tokenizer_with(GEMMA)
    tokenizer.chat_template = GEMMA.replace("{{ raise_exception('turns') }}", "{{ raise_exception('turns') if loop.index0 > 1 }}")
    chat = (*QUESTION, Message(role="assistant", content="It is"))
    row = TextEncoder(tokenizer, InputFormat(), 10**6).encode((chat, "cheap."))
    assert row.before == prompt_ids(tokenizer, chat)
    assert tokenizer.decode([*row.answer, *row.end]) == "cheap.<|E|>"


@pytest.mark.parametrize(
    ("eos", "generation", "ends_with", "stops", "notes"),
    [
        ("<|im_end|>", ["<|im_end|>", "<|end|>"], "<|im_end|>", ["<|im_end|>", "<|end|>"], 0),  # Qwen-Instruct
        ("<|im_end|>", ["<|end|>", "<|im_end|>"], "<|im_end|>", ["<|end|>", "<|im_end|>"], 0),
        ("<|end|>", "<|end|>", "<|end|>", ["<|end|>", "<|im_end|>"], 1),  # a base model with a template
        ("<|E|>", "<|im_end|>", "<|im_end|>", ["<|im_end|>"], 1),
        ("<|E|>", ["<|end|>", "<|U|>"], "<|end|>", ["<|end|>", "<|U|>", "<|im_end|>"], 2),
        ("<|im_end|>", None, "<|im_end|>", ["<|im_end|>"], 0),
    ],
)
def test_what_is_taught_as_the_end_of_a_text_is_where_sampling_stops(eos, generation, ends_with, stops, notes):
    model = model_with(CHATML)
    tokenizer: Any = model.tokenizer
    tokenizer.eos_token = eos
    model.model.generation_config.eos_token_id = None if generation is None else tokenizer.convert_tokens_to_ids(generation)
    assert tokenizer.convert_ids_to_tokens(model.eos_ids) == stops
    assert tokenizer.convert_ids_to_tokens(model.text_ids("It", " is")[0][-1]) == ends_with
    assert TextEncoder(tokenizer, InputFormat(), 99, tuple(model.eos_ids)).encode((QUESTION, "a")).end[-1] in model.eos_ids
    assert len(model.end_notes) == notes
    assert all("generation_config stops at" in note for note in model.end_notes)


def test_a_saved_policy_stops_at_the_end_of_turn_that_it_may_have_learned(tmp_path):
    from transformers import GenerationConfig

    model = model_with(CHATML)
    model.save(tmp_path / "policy")
    assert GenerationConfig.from_pretrained(tmp_path / "policy").eos_token_id == model.eos_ids
    plain = model_with(None)
    plain.save(tmp_path / "plain")
    assert GenerationConfig.from_pretrained(tmp_path / "plain").eos_token_id == plain.tokenizer.eos_token_id


def test_a_tokenizer_without_an_eos_ends_with_what_it_puts_behind_a_text(trunk_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trunk_folder("bert"))
    assert tokenizer.eos_token_id is None
    assert text_end(tokenizer) == (tokenizer.sep_token_id,)
    row = TextEncoder(tokenizer, InputFormat(), 99).encode(("It", " is"))
    assert row.ids == [*tokenizer("It is")["input_ids"]]
    assert stop_ids(tokenizer, None) == []
    assert stop_ids(tokenizer, tokenizer.sep_token_id) == [tokenizer.sep_token_id]


def test_without_a_template_there_is_no_turn():
    model = model_with(None)
    assert turn_template(model.tokenizer) == ("", "", "", ())
    assert end_notes(model.tokenizer, model.eos_ids) == []


PREFIX, SUFFIX = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def test_special_tokens_are_the_authors_and_not_those_of_people():
    model = model_with(CHATML)
    tokenizer: Any = model.tokenizer
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    chat = (Message(role="user", content="It <|im_end|> is"),)
    framed = FramedPrompt(PREFIX, "It <|im_end|> is", SUFFIX)
    assert prompt_ids(tokenizer, framed) == prompt_ids(tokenizer, chat)
    assert [i for i in prompt_ids(tokenizer, framed) if i in (start, end)] == [start, end, start]
    assert model.encode_prompts([framed], 5).prompt_ids[0].tolist() == prompt_ids(tokenizer, chat)
    assert model.text_ids(framed, " a")[0] == TextEncoder(tokenizer, InputFormat(), 99, tuple(model.eos_ids)).encode((chat, " a")).ids
    assert start not in prompt_ids(tokenizer, str(framed))
    plain = FramedPrompt("Q: ", "It <|im_end|> is", "\nA:")
    assert prompt_ids(tokenizer, plain) == prompt_ids(tokenizer, "Q: It <|im_end|> is\nA:")


def test_a_begin_of_text_that_the_author_wrote_is_not_doubled(either_tokenizer):
    tokenizer = either_tokenizer.tokenizer
    if tokenizer.bos_token_id is not None:
        assert prompt_ids(tokenizer, FramedPrompt("<s>", "It", "")) == prompt_ids(tokenizer, "It")


def test_a_framed_prompt_is_a_text_that_travels():
    import copy
    import pickle

    framed = FramedPrompt("<", "a", ">")
    for same in (framed, pickle.loads(pickle.dumps(framed)), copy.deepcopy(framed)):
        assert same == "<a>"
        assert (same.prefix, same.content, same.suffix) == ("<", "a", ">")


def test_equal_texts_of_which_one_is_framed_are_two_prompts():
    model = model_with(CHATML)
    framed = FramedPrompt(PREFIX, "It", SUFFIX)
    rows = TextEncoder(model.tokenizer, InputFormat(), 99)
    both = rows.encode_all([(str(framed), "a"), (framed, "a")])
    assert len(both[0].ids) > len(both[1].ids)
    assert both[1].ids == TextEncoder(model.tokenizer, InputFormat(), 99).encode((framed, "a")).ids


def test_what_looks_like_a_special_token_in_a_prefix_and_is_none_is_reported():
    tokenizer = tokenizer_with(CHATML)
    assert frame_notes(tokenizer, "Q: ", "\nA:") == []
    (note,) = frame_notes(tokenizer, PREFIX, SUFFIX)
    assert "<|im_start|>, <|im_end|> are read as special tokens" in note
    notes = frame_notes(tokenizer, "<|user|>\n", "[/INST]<|assistant|>")
    assert len(notes) == 2
    assert "<|user|>, <|assistant|> are no special tokens" in notes[1]
