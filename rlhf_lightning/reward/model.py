"""The reward model: a scoring network with its tokenizer and the normalisation of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import FramedPrompt, Message, Prompt, prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.evaluation.score_checks import check_finite, mean_and_deviation

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


class RewardModel(nn.Module):
    """Scores prompts with responses, with a tokenizer independent of the policy's.

    Scores are (raw - mean) / deviation, the constants of `normalise`; 0 and 1 until it is called. `storage.folder` saves and loads it.

    Attributes:
        layout: the layout of prompts and responses.
        metadata: the content of its card: pooling and head with their settings, metrics of the training.
        truncated: number of texts longer than max_length since it was last set to 0. rewritten: number of responses of which the chat
            template dropped a part.
        name: for messages; the folder it was loaded from.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int = 512) -> None:
        super().__init__()
        self.net, self.tokenizer, self.max_length = net, tokenizer, max_length
        self.metadata: dict[str, Any] = {}
        self.layout = TextLayout()
        self.truncated = self.rewritten = 0
        self.name = "the reward model"
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def forward(self, tokens: PackedTokens) -> Tensor:
        """U texts to normalised scores [U], float32."""
        return (self.raw_scores(tokens).scores - self.mean) / self.deviation

    def raw_scores(self, tokens: PackedTokens) -> ScoredBatch:
        """The net's output for U texts before normalisation, the input of losses."""
        output: Tensor | ScoredBatch = self.net(tokens)
        return output if isinstance(output, ScoredBatch) else ScoredBatch(scores=output.float())

    def tokenise(self, texts: Sequence[tuple[Prompt, str]]) -> PackedTokens:
        """Encode texts as rows of ids in the net's layout; `truncated` counts those over max_length."""
        layout = self._rows
        rows = layout.encode_all([(self.layout.prompt(prompt), response) for prompt, response in texts])
        self.truncated += sum(row.is_cut for row in rows)
        self.rewritten += sum(row.is_rewritten for row in rows)
        return layout.pack(rows)

    def response_offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """The index of the response's first token, and the response's characters [start, end) of each token.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, without offsets.
        """
        return self._rows.offsets((self.layout.prompt(text[0]), text[1]))

    @property
    def _rows(self) -> TextEncoder:
        return self.layout.rows(self.tokenizer, getattr(self.net, "input_format", InputFormat()), self.max_length)

    @torch.no_grad()
    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """Scores [B] of responses to prompts, texts or chats. Raises UserError: one isn't a finite number."""
        texts = list(zip(prompts, responses, strict=True))
        scores = torch.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(prompt_text(texts[i][0])) + len(texts[i][1]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            scores[rows] = self(self.tokenise([texts[i] for i in rows]).to(self.mean.device)).cpu()
        return check_finite(scores, prompts, responses, self.name)

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalise the scores of these texts to mean 0 and variance 1 (Ziegler et al. 2019).

        Returns:
            their raw scores [B].
        """
        raw = self.score_texts(prompts, responses) * self.deviation.cpu() + self.mean.cpu()
        mean, deviation = mean_and_deviation(raw)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return raw
