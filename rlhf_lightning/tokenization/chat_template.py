"""Token ids of prompts: texts, or chats through the template, with all user content as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import DataError, UserError
from rlhf_lightning.flow import FramedPrompt, Message, Prompt
from rlhf_lightning.tokenization.boundary import start_ids
from rlhf_lightning.tokenization.encoding import Rendered, Span, encode, special_tokens
from rlhf_lightning.tokenization.template_limits import render_bounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ':' }}{{ '' if message['content'][:1] == ' ' else ' ' }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The template of a tokenizer that has none: "User: ...", "Assistant: ..." with an EOS, line by line."""
MASKS = range(0xE000, 0xF8FF)
"""Private-use characters: two that no message contains delimit the number of a masked special-token string in a template."""
PROBE = "\uf8ff"
"""A placeholder for messages, to find the template's text around them."""
GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The tag around the model's text."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, as a sampler reads them.

    A chat is rendered by the tokenizer's chat template, else DEFAULT_TEMPLATE, with the generation prompt at its end; a text follows
    the tokenizer's start of a text. An empty text is the begin-of-text token, if there is one.
    Special-token strings in messages stay plain text.

    Raises:
        DataError: the template rejects the chat (many require alternating user and assistant turns).
    """
    rendered = render_prompt(tokenizer, prompt)
    return [*opening_ids(tokenizer, prompt), *encode(tokenizer, [rendered])[0]]


def opening_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Ids before those of a rendered prompt; empty if a chat template or a prefix has its own."""
    if not isinstance(prompt, str):
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


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, else the default one with the begin-of-text token if there is one."""
    if getattr(tokenizer, "chat_template", None):
        return str(tokenizer.get_chat_template())
    has_start = tokenizer.bos_token_id is not None and start_ids(tokenizer) == [tokenizer.bos_token_id]
    return "{{ bos_token }}" * has_start + DEFAULT_TEMPLATE


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Prompt]) -> None:
    """Give a tokenizer without a chat template the default one if a prompt is a chat.

    It is then saved with the model.
    """
    if not getattr(tokenizer, "chat_template", None) and any(prompt and not isinstance(prompt, str) for prompt in prompts):
        tokenizer.chat_template = chat_template(tokenizer)


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Rendered:
    """Render a prompt and mark its plain text. Raises DataError if the template rejects the chat."""
    if isinstance(prompt, FramedPrompt) and has_special_tokens(tokenizer, prompt):
        start = len(prompt.prefix)
        return Rendered(str(prompt), ((start, start + len(prompt.content)),))
    return Rendered.plain(prompt) if isinstance(prompt, str) else render_chat(tokenizer, prompt)


def has_special_tokens(tokenizer: PreTrainedTokenizerBase, prompt: FramedPrompt) -> bool:
    """True if the prefix or suffix contains special tokens of this tokenizer."""
    pattern = special_tokens(tokenizer).exact
    return pattern is not None and any(map(pattern.search, (prompt.prefix, prompt.suffix)))


def strip_frames(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Turn framed prompts without special tokens of this tokenizer in their frame into plain texts."""
    return [str(p) if isinstance(p, FramedPrompt) and not has_special_tokens(tokenizer, p) else p for p in prompts]


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool = True) -> Rendered:
    """Render a chat with its template; special-token strings in messages stay plain text.

    Args:
        generation: end with the generation prompt.

    Raises:
        DataError: the template rejects the chat.
    """
    pattern = special_tokens(tokenizer).any_case
    contents = [message.content for message in messages]
    if pattern is None or not any(map(pattern.search, contents)):
        return _render_all(tokenizer, messages, generation)
    used = set().union(*contents)
    first, last = [chr(code) for code in MASKS if chr(code) not in used][:2]
    strings: list[str] = []

    # Replace each special-token string by its number while the template runs.
    def mask(match: re.Match[str]) -> str:
        strings.append(match[0])
        return f"{first}{len(strings) - 1}{last}"

    masked = [Message(role=message.role, content=pattern.sub(mask, message.content)) for message in messages]
    return _unmask(_render_all(tokenizer, masked, generation), re.compile(f"{first}([0-9]+){last}"), strings)


def _render_all(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool) -> Rendered:
    """Render a chat by a template that leaves out no role. Raises DataError."""
    rendered = _render(tokenizer, messages, generation)
    for index, message in enumerate(messages):
        if message.role == "assistant" or message.content.strip() in rendered.text:
            continue  # a template may drop an answer's thoughts
        probe = [Message(role=m.role, content=PROBE) if i == index else m for i, m in enumerate(messages)]
        if PROBE not in _render(tokenizer, probe, generation).text:
            raise DataError(
                f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} leaves out messages of the role {message.role} "
                f"(message {index + 1} of {len(messages)}): leave them out yourself, or give another chat_template"
            )
    return rendered


def _unmask(rendered: Rendered, numbers: re.Pattern[str], strings: Sequence[str]) -> Rendered:
    """Put the strings back for their numbers, as literal text."""
    pieces = numbers.split(rendered.text)
    text, literal = pieces[0], []
    for number, rest in zip(pieces[1::2], pieces[2::2], strict=True):
        string = strings[int(number)]
        literal.append((len(text), len(text) + len(string)))
        text += string + rest
    growth = [(match.end(), len(strings[int(match[1])]) - len(match[0])) for match in numbers.finditer(rendered.text)]

    def new_index(index: int) -> int:
        return index + sum(added for end, added in growth if end <= index)

    return Rendered(text, tuple(literal), tuple((new_index(a), new_index(b)) for a, b in rendered.generated))


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], generation: bool) -> Rendered:
    import jinja2

    try:
        return _run_template(tokenizer, [message.model_dump() for message in messages], generation)
    except UserError:
        raise
    except jinja2.TemplateError as refusal:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses a prompt of the roles {roles}: {refusal}; "
            "leave such chats out, or give another chat_template"
        ) from refusal
    except Exception as fault:  # a template is a program and may fail in any way
        raise DataError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} fails ({type(fault).__name__}: {fault}): it is damaged; "
            "give the model another chat_template"
        ) from fault


def _run_template(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, Any]], generation: bool) -> Rendered:
    """Run the template within its limits, with the spans that it marks as the model's text."""
    template = chat_template(tokenizer)
    if not GENERATION_TAG.search(template):
        options: Any = {"tokenize": False, "add_generation_prompt": generation, "chat_template": template}
        return Rendered(render_bounded(template, lambda: str(tokenizer.apply_chat_template(chat, **options))))
    from transformers.utils.chat_template_utils import render_jinja_template

    spans: list[Span] = []

    def render() -> str:
        texts, (marked,) = render_jinja_template(
            conversations=[chat], chat_template=template, return_assistant_tokens_mask=True, add_generation_prompt=generation,
            **tokenizer.special_tokens_map,
        )  # fmt: skip
        spans.extend(marked)
        return str(texts[0])

    return Rendered(render_bounded(template, render), generated=tuple(spans))
