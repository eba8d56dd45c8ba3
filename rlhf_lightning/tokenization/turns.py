"""Joining of prompts and responses and their end, for sampling, training and scoring alike.

A response to a text ends with an end-of-text token. A conversation with an answer is rendered by the chat template, up to the token
that ends the turn.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import FramedPrompt, Message, Prompt
from rlhf_lightning.tokenization.boundary import common_prefix_length, start_ids
from rlhf_lightning.tokenization.chat_template import PROBE, chat_template, render_chat
from rlhf_lightning.tokenization.encoding import Rendered, encode_plain, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKER = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")
"""Strings that look like special tokens."""


class TurnTemplate(NamedTuple):
    """A chat template's text around an answer.

    Attributes:
        opening: from the end of a user's message to the answer, with the generation prompt.
        tail: everything after an answer at the end of a conversation.
        lead: the part of `tail` before the token that ends the turn.
        end: the id of that token; empty if the template has none.
    """

    opening: str = ""
    tail: str = ""
    lead: str = ""
    end: tuple[int, ...] = ()


class Exchange(NamedTuple):
    """A prompt and a response as one text.

    Attributes:
        joined: prompt, answer and the template's text up to the end token.
        prompt_end, answer_end: their ends in it; the prompt is the common start with the prompt as a sampler reads it.
        end: ids after the text.
        is_rewritten: a part of the response isn't in the text.
    """

    joined: Rendered
    prompt_end: int
    answer_end: int
    end: tuple[int, ...]
    is_rewritten: bool = False


def turn_template(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = (), default: bool = False) -> TurnTemplate:
    """The chat template's text around an answer; empty without a template.

    Args:
        default: take the default template where the tokenizer has none.
        stop_ids: tokens at which a sampler stops; if the template writes no end (GLM-4), the start of the next turn ends an answer if
            it is one of them.
    """
    template = getattr(tokenizer, "chat_template", None) or (default and chat_template(tokenizer))
    return _turn_template(tokenizer, str(template), len(tokenizer), tuple(stop_ids)) if template else TurnTemplate()


@functools.lru_cache(maxsize=64)
def _turn_template(tokenizer: Any, template: str, size: int, stop_ids: tuple[int, ...]) -> TurnTemplate:
    question, answer = Message(role="user", content=PROBE), Message(role="assistant", content=PROBE)
    try:
        opening = _behind_probe(render_chat(tokenizer, [question]).text)
        tail = _behind_probe(render_chat(tokenizer, [question, answer], generation=False).text)
    except DataError:
        return TurnTemplate()
    tokens = special_tokens(tokenizer)
    match = tokens.added.search(tail) if tokens.added else None
    if match is not None:
        return TurnTemplate(opening, tail, tail[: match.start()], (tokens.ids[match[0]],))
    try:
        following = _behind_probe(render_chat(tokenizer, [question, answer, Message(role="user", content="a")]).text)
    except DataError:
        return TurnTemplate(opening, tail)
    match = tokens.added.match(following.lstrip()) if tokens.added else None
    if match is not None and tokens.ids[match[0]] in stop_ids:
        return TurnTemplate(opening, tail, "", (tokens.ids[match[0]],))
    return TurnTemplate(opening, tail)


def _behind_probe(text: str) -> str:
    return text.rpartition(PROBE)[2] if PROBE in text else ""


def text_end(tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> tuple[int, ...]:
    """The id that ends a response to a plain text: the tokenizer's EOS, else its template's last token.

    Args:
        stop_ids: tokens at which a sampler stops, empty for a model that doesn't generate. The end is one of them, the first if the
            tokenizer names none of them.
    """
    full, plain = list(tokenizer("a")["input_ids"]), encode_plain(tokenizer, "a")
    last = full[len(start_ids(tokenizer)) + len(plain) :]
    named = [int(i) for i in (tokenizer.eos_token_id, *last[-1:]) if i is not None]
    ends = [i for i in named if i in stop_ids] if stop_ids else named
    return tuple(ends[:1] or stop_ids[:1])


def exchange(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    rendered: Rendered,
    response: str,
    stop_ids: Sequence[int] = (),
    template_tail: bool = False,
) -> Exchange:
    """Join a prompt and its response by the chat template, or by concatenation.

    A template may rewrite the answer (trim it, drop its thoughts), and its generation prompt may open a thought (<think>) that the
    conversation with the answer doesn't have: the text is always the template's.

    Args:
        rendered: the prompt as a sampler reads it.
        template_tail: keep the template's text after the end of the turn.
    """
    turn = turn_template(tokenizer, stop_ids, default=not isinstance(prompt, str))
    size = len(rendered.text)
    # A plain text, or a framed one whose suffix is the template's generation prompt.
    if isinstance(prompt, str):
        is_turn = isinstance(prompt, FramedPrompt) and bool(turn.opening.strip()) and prompt.endswith(turn.opening)
        joined = rendered + Rendered.plain(response)
        end = turn.end if is_turn and turn.end else text_end(tokenizer, stop_ids)
        return Exchange(joined, size, len(joined.text), end)
    try:
        conversation = render_chat(tokenizer, [*prompt, Message(role="assistant", content=response)], generation=False)
    except DataError:  # a prompt that ends with an answer to continue
        conversation = rendered + Rendered.plain(response) + Rendered(turn.tail)
    answer_end, lead = len(conversation.text) - len(turn.tail), turn.lead
    if not conversation.text.endswith(turn.tail):  # the template writes another tail after this answer
        answer_end, lead = _find_end(tokenizer, conversation.text, turn), ""
    joined = conversation if template_tail else conversation.until(answer_end + len(lead))
    prompt_end = size
    if not joined.text.startswith(rendered.text):
        prompt_end = _find_prompt_end(tokenizer, prompt, rendered.text, joined.text, response)
    end, is_rewritten = () if template_tail else turn.end or text_end(tokenizer, stop_ids), response.strip() not in joined.text
    return Exchange(joined, prompt_end, answer_end, end, is_rewritten)


def _find_end(tokenizer: PreTrainedTokenizerBase, conversation: str, turn: TurnTemplate) -> int:
    index = conversation.rfind(str(tokenizer.convert_ids_to_tokens(turn.end[0]))) if turn.end else -1
    return index if index >= 0 else len(conversation)


def _find_prompt_end(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], rendered: str, joined: str, response: str) -> int:
    """The end of the common start, or the answer's start if the template rewrites earlier turns."""
    common = common_prefix_length(rendered, joined)
    if common < common_prefix_length(rendered, render_chat(tokenizer, prompt, generation=False).text):
        return max(common, joined.rfind(response.strip()))
    return common


def generation_eos_ids(generation_eos: int | Sequence[int] | None) -> list[int]:
    """The ids of a generation config's eos_token_id, which is a number, a list or None."""
    named = list(generation_eos) if isinstance(generation_eos, Sequence) else [generation_eos]
    return [int(i) for i in named if i is not None]


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_eos: int | Sequence[int] | None) -> list[int]:
    """Every token at which a sampler stops.

    The generation config's, else the tokenizer's EOS, and the chat template's end of turn.
    """
    ids = generation_eos_ids(generation_eos)
    if not ids and tokenizer.eos_token_id is not None:
        ids = [int(tokenizer.eos_token_id)]
    return [*ids, *(i for i in turn_template(tokenizer, ids).end if i not in ids)] if ids else []


def end_notes(tokenizer: PreTrainedTokenizerBase, generation_eos: int | Sequence[int] | None) -> list[str]:
    """Notes for the user on different ends of a text by tokenizer, generation config and chat template."""
    ids = generation_eos_ids(generation_eos)
    if not ids:
        return []
    listed = ", ".join(_token_label(tokenizer, i) for i in ids)
    notes = []
    eos, end = tokenizer.eos_token_id, text_end(tokenizer, ids)
    if eos is not None and eos not in ids:
        notes.append(
            f"the tokenizer's eos_token is {_token_label(tokenizer, eos)}, and generation_config stops at {listed}: responses to plain "
            f"texts end with {_token_label(tokenizer, end[0])}; correct eos_token in tokenizer_config.json or eos_token_id in "
            "generation_config.json"
        )
    notes += [
        f"the chat template ends a turn with {_token_label(tokenizer, i)}, and generation_config stops at {listed}: sampling stops at "
        "both, and the saved policy's generation_config.json names both"
        for i in turn_template(tokenizer, ids).end
        if i not in ids
    ]
    return notes


def frame_notes(tokenizer: PreTrainedTokenizerBase, prefix: str, suffix: str) -> list[str]:
    """Notes on strings in the prefix and suffix of prompts that are, or only look like, special tokens."""
    added = special_tokens(tokenizer).ids
    markers = list(dict.fromkeys(MARKER.findall(f"{prefix}\n{suffix}")))
    special, plain = [m for m in markers if m in added], [m for m in markers if m not in added]
    notes = [f"task.prefix and task.suffix: {', '.join(special)} are read as special tokens"] if special else []
    if plain:
        notes.append(f"task.prefix and task.suffix: {', '.join(plain)} are no special tokens of this model and are read letter by letter")
    return notes


def _token_label(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return f"{tokenizer.convert_ids_to_tokens(token)} ({token})"
