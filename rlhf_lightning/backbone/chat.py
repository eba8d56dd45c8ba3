"""A prompt's token ids: a text, or a chat through the tokenizer's own template, in which nothing that people wrote is a special token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.backbone.language_model import plain_ids
from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message, Prompt, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Private-use characters stand for a message in the template; the em spaces around them tell whether it strips what it is given.
_PLACE = "\u2003\ue000{}\ue001\u2003"
_PLACES = re.compile("(\u2003?)\ue000([0-9]+)\ue001(\u2003?)")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, ready for the response's to follow.

    A chat is rendered by the tokenizer's chat template with the generation prompt at its end, or as `flow.prompt_text` where the
    tokenizer has none; a text is `plain_ids`. A message that holds the string of a special token keeps it as plain text: the template is
    then tokenised piece by piece, its own pieces with special tokens and the messages without, so that no token spans the border of a
    message, where the usual path may merge one.

    Raises:
        DataError: the template refuses the chat (many want user and assistant in turns).
    """
    if isinstance(prompt, str) or not getattr(tokenizer, "chat_template", None):
        return plain_ids(tokenizer, prompt_text(prompt))
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    if not any(token in message.content for token in special for message in prompt):
        return _ids(tokenizer, _rendered(tokenizer, prompt), False)
    places = [Message(role=message.role, content=_PLACE.format(i)) for i, message in enumerate(prompt)]
    ids: list[int] = []
    pieces = _PLACES.split(_rendered(tokenizer, places))
    ids += _ids(tokenizer, pieces[0], False)
    for before, number, after, rest in zip(pieces[1::4], pieces[2::4], pieces[3::4], pieces[4::4], strict=True):
        content = prompt[int(number)].content
        content = content if before else content.lstrip()
        ids += _ids(tokenizer, content if after else content.rstrip(), True)
        ids += _ids(tokenizer, rest, False)
    return ids


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    import jinja2

    try:
        chat = [message.model_dump() for message in messages]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError as refusal:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses a prompt of the roles {roles}: {refusal}; "
            "leave such chats out, or give another chat_template"
        ) from refusal


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, plain: bool) -> list[int]:
    if not text:
        return []
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
    return ids
