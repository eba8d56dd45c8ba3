"""A prompt's token ids: a text, or a chat through the tokenizer's own template, in which nothing that people wrote is a special token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.flow import FramedPrompt, Message, Prompt, prompt_text
from rlhf_lightning.tokenization.boundary import start_ids
from rlhf_lightning.tokenization.encoding import Rendered, encode, special_tokens
from rlhf_lightning.tokenization.template_limits import render_bounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKS = range(0xE000, 0xF8FF)
"""Private-use characters; two that no message has stand around the number of a special-token string while the template runs."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, as a sampler reads them.

    A chat is rendered by the tokenizer's chat template with the generation prompt at its end; a text, or a chat where the tokenizer has no
    template (`flow.prompt_text`), follows what the tokenizer puts before a text. An empty text is the begin-of-text token, where there is
    one. A message that holds the string of a special token keeps it as plain text.

    Raises:
        DataError: the template rejects the chat (many want user and assistant in turns).
    """
    rendered = render_prompt(tokenizer, prompt)
    return [*opening_ids(tokenizer, prompt), *encode(tokenizer, [rendered])[0]]


def opening_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """What comes before the ids of a rendered prompt; a chat template writes its own, and so may the author of a prefix."""
    if is_templated(tokenizer, prompt):
        return []
    start = start_ids(tokenizer)
    if not start and not prompt and tokenizer.bos_token_id is not None:
        return [int(tokenizer.bos_token_id)]
    tokens = special_tokens(tokenizer)
    if start and isinstance(prompt, FramedPrompt) and tokens.exact is not None:
        match = tokens.exact.match(prompt.prefix)
        if match is not None and tokens.ids[match[0]] == start[0]:
            return []
    return start


def is_templated(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> bool:
    """Whether the tokenizer's chat template renders the prompt."""
    return not isinstance(prompt, str) and bool(getattr(tokenizer, "chat_template", None))


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Rendered:
    """The text of a prompt, and which of it people wrote. Raises DataError where the template rejects the chat."""
    if isinstance(prompt, FramedPrompt) and has_special_tokens(tokenizer, prompt):
        start = len(prompt.prefix)
        return Rendered(str(prompt), ((start, start + len(prompt.content)),))
    if isinstance(prompt, str) or not is_templated(tokenizer, prompt):
        return Rendered.plain(prompt_text(prompt))
    return render_chat(tokenizer, prompt)


def has_special_tokens(tokenizer: PreTrainedTokenizerBase, prompt: FramedPrompt) -> bool:
    """Whether the author of the prefix and suffix wrote special tokens of this tokenizer."""
    pattern = special_tokens(tokenizer).exact
    return pattern is not None and any(map(pattern.search, (prompt.prefix, prompt.suffix)))


def strip_frames(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """The prompts, framed only where prefix or suffix have special tokens of this tokenizer: other frames are text for every reader."""
    return [str(p) if isinstance(p, FramedPrompt) and not has_special_tokens(tokenizer, p) else p for p in prompts]


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool = True) -> Rendered:
    """A chat as its template renders it. The string of a special token in a message is hidden from the template and stays plain text.

    Args:
        generation: end with what asks for an answer.

    Raises:
        DataError: the template rejects the chat.
    """
    pattern = special_tokens(tokenizer).any_case
    contents = [message.content for message in messages]
    if pattern is None or not any(map(pattern.search, contents)):
        return Rendered(_rendered(tokenizer, messages, generation))
    used = set().union(*contents)
    first, last = [chr(code) for code in MASKS if chr(code) not in used][:2]
    hidden: list[str] = []

    def hide(match: re.Match[str]) -> str:
        hidden.append(match[0])
        return f"{first}{len(hidden) - 1}{last}"

    masked = [Message(role=message.role, content=pattern.sub(hide, message.content)) for message in messages]
    pieces = re.split(f"{first}([0-9]+){last}", _rendered(tokenizer, masked, generation))
    text, literal = pieces[0], []
    for number, rest in zip(pieces[1::2], pieces[2::2], strict=True):
        string = hidden[int(number)]
        literal.append((len(text), len(text) + len(string)))
        text += string + rest
    return Rendered(text, tuple(literal))


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool) -> str:
    import jinja2

    try:
        chat = [message.model_dump() for message in messages]
        template = tokenizer.get_chat_template()
        return render_bounded(template, lambda: str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation)))
    except UserError:
        raise
    except jinja2.TemplateError as refusal:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses a prompt of the roles {roles}: {refusal}; "
            "leave such chats out, or give another chat_template"
        ) from refusal
    except Exception as fault:  # a template is a program: it may fail in any way
        raise DataError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} fails ({type(fault).__name__}: {fault}): it is damaged; "
            "give the model another chat_template"
        ) from fault
