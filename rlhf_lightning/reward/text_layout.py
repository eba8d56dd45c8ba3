"""Layout of prompts and responses as rows, of models of stage=reward and of foreign classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import FramedPrompt, Message, Prompt, prompt_text
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LayoutName = Literal["auto", "chat", "pair", "joined"]
DESCRIPTION = {
    "chat": "the chat template's rendering of the conversation with the answer",
    "pair": "the tokenizer's template for a pair of texts",
    "joined": "prompt and response as one text",
}


@dataclass(frozen=True)
class TextLayout:
    """The layout of texts as rows.

    Attributes:
        name: "trained" for a model of stage=reward: texts as they are, chats by the chat template to the end of the turn. The others are
            for foreign classifiers: "chat" renders text prompts as a user's message, with the template's text after the answer; "pair"
            and "joined" take chats as plain text.
        eos: add the tokenizer's EOS (True), omit it (False), or add it to plain texts but not to a template's (None).
        chats: text prompts are a user's message.
    """

    name: Literal["trained", "chat", "pair", "joined"] = "trained"
    eos: bool | None = None
    chats: bool = False

    def rows(self, tokenizer: PreTrainedTokenizerBase, input_format: InputFormat, max_length: int) -> TextEncoder:
        """The encoder of texts for a model of this input format."""
        if self.name == "trained":
            return TextEncoder(tokenizer, input_format, max_length)
        if self.name == "pair":
            return TextEncoder(tokenizer, InputFormat("encoder", typed=input_format.typed), max_length)
        return TextEncoder(
            tokenizer, InputFormat("decoder", typed=input_format.typed), max_length, eos=self.eos, template_tail=self.name == "chat"
        )

    def prompt(self, prompt: Prompt) -> Prompt:
        """The prompt in this layout, without a frame of the policy's special tokens."""
        text = prompt.content if isinstance(prompt, FramedPrompt) else prompt
        if isinstance(text, str):
            return (Message(role="user", content=text),) if self.chats else text
        return prompt_text(text) if self.name in ("pair", "joined") else text


def trained_layout(card: Mapping[str, Any]) -> TextLayout:
    """The layout of a model of stage=reward; trained on chats alone, it reads a text as a user's message."""
    return TextLayout(chats=bool(card.get("chats")) and not card.get("texts"))


def foreign_layout(tokenizer: PreTrainedTokenizerBase, input_format: InputFormat, name: LayoutName, eos: bool | None) -> TextLayout:
    """The layout of a classifier of another program.

    "auto" is the pair template of an encoder, else the chat template if there is one, else one text with an EOS.

    Raises:
        ConfigError: the tokenizer has no chat template or no pair template, or no EOS to add.
    """
    has_pair = TextEncoder(tokenizer, InputFormat("encoder"), 8).encodes_separately
    chosen: Literal["chat", "pair", "joined"]
    if name == "auto":
        chosen = (
            "pair" if input_format.kind != "decoder" and has_pair else "chat" if getattr(tokenizer, "chat_template", None) else "joined"
        )
    else:
        chosen = name
    if chosen == "chat" and not getattr(tokenizer, "chat_template", None):
        raise ConfigError("rollout_scorer.reward_model.layout=chat: the classifier's tokenizer has no chat template; choose pair or joined")
    if chosen == "pair" and not has_pair:
        raise ConfigError(
            "rollout_scorer.reward_model.layout=pair: the classifier's tokenizer has no template for pairs; take chat or joined"
        )
    if chosen == "pair" and eos is not None:
        raise ConfigError("rollout_scorer.reward_model.eos: the template for pairs writes its own end; leave it out, or take layout=joined")
    if eos and tokenizer.eos_token_id is None:
        raise ConfigError("rollout_scorer.reward_model.eos=true: the classifier's tokenizer has no eos_token")
    return TextLayout(chosen, eos, chats=chosen == "chat")


def layout_note(layout: TextLayout, tokenizer: PreTrainedTokenizerBase, path: str) -> str:
    """A note on a scorer's layout of texts; "" for a model of stage=reward trained on texts."""
    if layout.name == "trained":
        return f"{path} learned from chats: a text prompt is scored as the message of a user" if layout.chats else ""
    has_end = layout.name == "joined" and layout.eos is not False
    end = ", with an EOS" if layout.eos or (has_end and tokenizer.eos_token_id is not None) else ""
    return (
        f"{path} is no reward model of stage=reward: it reads layout={layout.name}, {DESCRIPTION[layout.name]}{end}; if it was trained on "
        "others, choose rollout_scorer.reward_model.layout=chat|pair|joined and rollout_scorer.reward_model.eos=true|false"
    )
