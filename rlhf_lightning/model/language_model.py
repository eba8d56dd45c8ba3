"""A language model with its tokenizer: the one interface through which the package uses it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.errors import ConfigError, DataError, OverlongPrompt
from rlhf_lightning.flow import Message, Prompt, Prompts, prompt_text
from rlhf_lightning.model.adapter_folder import FOLDER, adapter_files
from rlhf_lightning.model.card import FILE
from rlhf_lightning.model.checkpoint_tensors import save_model
from rlhf_lightning.model.kernels import use_fast_kernels
from rlhf_lightning.model.load_options import restore_float32
from rlhf_lightning.model.output_layer import before_output, output_log_probs, output_logits, trunk_of
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder, TrainingRow
from rlhf_lightning.model.rope import rope_limit
from rlhf_lightning.model.trial import READ_ERRORS, agree, trial
from rlhf_lightning.model.trunk import max_positions
from rlhf_lightning.tokenization.boundary import decode_continuation, is_text_start
from rlhf_lightning.tokenization.chat_template import prompt_ids, strip_frames
from rlhf_lightning.tokenization.conversation import UnstableTemplate, conversation_ids
from rlhf_lightning.tokenization.encoding import UNLIMITED
from rlhf_lightning.tokenization.turns import end_notes, generation_eos_ids, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class LanguageModel:
    """A generative transformers model and its tokenizer; decoder-only unless a subclass says otherwise."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    _encoder: TextEncoder | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        use_fast_kernels(self.model)
        freeze_unsaved(self.model)

    @property
    def decoder_prefix(self) -> list[int] | None:
        """Ids with which an encoder-decoder's decoder starts a response; None for a decoder-only model."""
        return None

    @property
    def eos_ids(self) -> list[int]:
        """Every token that ends a response (`turns.stop_ids`). Raises ConfigError if there is none."""
        ids = stop_ids(self.tokenizer, self._generation_eos)
        if not ids:
            raise ConfigError(f"{self.model.name_or_path}: neither generation_config nor tokenizer names an end-of-text token")
        return ids

    @property
    def end_notes(self) -> list[str]:
        """Disagreements of tokenizer, generation config and chat template on the end of a text."""
        return end_notes(self.tokenizer, self._generation_eos)

    @property
    def _generation_eos(self) -> Any:
        return getattr(self.model.generation_config, "eos_token_id", None)

    @property
    def pad_id(self) -> int:
        """The id that fills the padding; it may equal the EOS, since only masks tell what is padding."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.eos_ids[0]

    @property
    def max_length(self) -> int:
        """Maximum tokens of a text, or of either side of an encoder-decoder."""
        return max_positions(self.model) or UNLIMITED

    @property
    def max_generated_length(self) -> int:
        """Maximum tokens of a prompt with its sampled response.

        Beyond the positions that are scaled by a text's final length, tokens would be sampled with other probabilities than
        they have in the finished text.
        """
        limit = rope_limit(self.model)
        return self.max_length if limit is None else min(self.max_length, limit.positions)

    @property
    def width(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its output layer."""
        return trunk_of(self.model)

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """[B, L] right-padded ids to [B, L, D] vectors that the output layer reads.

        It needs no attention mask: under causal attention no token sees the padding to its right, and positions count from 0.
        """
        hidden: Tensor = self.trunk(input_ids=input_ids, use_cache=False).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] vectors of the trunk to [..., V], in the model's precision."""
        return output_logits(self.model, hidden)

    def log_probs(self, hidden: Tensor, tokens: Tensor, temperature: float = 1.0, entropy: bool = True) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities [n] of tokens [n] given vectors [n, D], and entropies [n] (`output_log_probs`)."""
        return output_log_probs(self.model, hidden, tokens, temperature, entropy)

    def before_output(self, hidden: Tensor) -> Tensor:
        """[..., D] vectors of the trunk as the output layer reads them."""
        return before_output(self.model, hidden)

    def conversation_rows(self, messages: Sequence[Message], context: int = 1) -> list[TrainingRow]:
        """Encode a conversation to train on the answers of the assistant: one row, or a row per answer.

        A row per answer, after the messages before it, is needed by an encoder-decoder, and by a template that writes an answer otherwise
        once the conversation continues (which drops earlier thoughts): see the rows' note.

        Args:
            context: number of messages at the beginning that are only read.

        Raises:
            DataError: no answer follows another message, or the chat template rejects the conversation.
        """
        answers = [i for i, message in enumerate(messages) if i >= max(1, context) and message.role == "assistant"]
        if not answers:
            roles = ", ".join(message.role for message in messages)
            raise DataError(f"a conversation of the roles {roles} has no message of the assistant after another one to train on")
        note = ""
        if self.decoder_prefix is None:
            try:
                return [TrainingRow(*conversation_ids(self.tokenizer, messages, self.eos_ids, context), None)]
            except UnstableTemplate as reason:
                note = str(reason)
        rows = []
        for index in answers:
            ids, start, encoder_ids = self.text_ids(tuple(messages[:index]), messages[index].content)
            rows.append(TrainingRow(ids, [i >= start for i in range(len(ids))], encoder_ids, note))
        return rows

    def text_ids(self, prompt: Prompt, response: str) -> tuple[list[int], int, list[int] | None]:
        """Encode a prompt, its response and the end-of-text.

        Returns:
            The ids, the index of the response's first predicted token, and the encoder's ids (None without an encoder).
        """
        row = self.text_encoder.encode((prompt, response))
        return row.ids, max(1, len(row.before)), None

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder of (prompt, response) texts, without a length limit."""
        stops = tuple(self.eos_ids)
        if self._encoder is None or self._encoder.stop_ids != stops:
            self._encoder = TextEncoder(self.tokenizer, self._input_format, UNLIMITED, stops)
        return self._encoder

    @property
    def _input_format(self) -> InputFormat:
        return InputFormat()

    def encode_prompts(self, prompts: Sequence[Prompt], max_new_tokens: int) -> Prompts:
        """Encode prompts, left-padded, so that each leaves `max_new_tokens` positions for its response.

        Special-token strings in the text stay plain text. An empty prompt becomes the begin-of-text token.

        Raises:
            OverlongPrompt: a prompt that doesn't fit.
            DataError: a response that may fill all positions; an empty prompt without a begin-of-text token.
        """
        positions = self.max_generated_length
        if max_new_tokens >= positions:
            raise DataError(
                f"a response of up to {max_new_tokens} tokens leaves none for a prompt in the model's {positions} positions: lower "
                "rollout_sampler.max_new_tokens"
            )
        rows = [prompt_ids(self.tokenizer, text) for text in prompts]
        for text, ids in zip(prompts, rows, strict=True):
            if not ids:
                raise DataError(f"a prompt is empty and {self.model.name_or_path} has no begin-of-text token to start from")
            if len(ids) + max_new_tokens > positions:
                lower = f", or lower rollout_sampler.max_new_tokens to {positions - len(ids)}" if len(ids) < positions else ""
                raise OverlongPrompt(
                    f"a prompt of {len(ids)} tokens and a response of up to {max_new_tokens} don't fit the model's {positions} positions"
                    f"{'' if positions == self.max_length else ' before they are scaled by the length of the text'}: "
                    f"{prompt_text(text)[:60]!r}...; shorten it or filter it out{lower}"
                )
        padded, mask = pad_rows(rows, self.pad_id, pad_left=True)
        return Prompts(prompts=strip_frames(self.tokenizer, prompts), prompt_ids=padded, prompt_mask=mask, group=torch.arange(len(rows)))

    def decode(self, ids: Tensor, mask: Tensor, prompts: Prompts | None = None) -> list[str]:
        """Decode [B, T] right-padded responses without special tokens, keeping their leading space."""
        lengths = mask.long().sum(1).tolist()
        rows = [row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)]
        begins = [False] * len(rows)
        if prompts is not None:
            last = prompts.prompt_ids[:, -1].tolist()
            begins = [is_text_start(self.tokenizer, prompt, i) for prompt, i in zip(prompts.prompts, last, strict=True)]
        return [decode_continuation(self.tokenizer, row, begin) for row, begin in zip(rows, begins, strict=True)]

    def save(self, folder: Path, card: str = "") -> None:
        """Write a plain Hugging Face folder with safetensors, tokenizer and config.

        Transformers loads it without this package. Adapters are merged into the written weights, and stand alone in adapter/.

        Args:
            card: the content of README.md; none is written without it.

        Raises:
            DataError: the written model is incomplete; an earlier folder stays.
        """

        def write(target: Path) -> None:
            ends = generation_eos_ids(self._generation_eos)
            if ends and ends != self.eos_ids:
                self.model.generation_config.eos_token_id = self.eos_ids  # so that plain transformers stops at a trained end of turn
            model = self.model
            if getattr(model, "is_quantized", False):
                model = copy.deepcopy(model)
                restore_float32(model)
            save_model(model, target)
            if (adapters := adapter_files(self.model)) is not None:
                adapters.write(target / FOLDER)
            self.tokenizer.save_pretrained(target)
            if card:
                (target / FILE).write_text(card, encoding="utf-8")

        write_folder(folder, write)


def pad_rows(rows: Sequence[Sequence[int]], pad: int, pad_left: bool = False) -> tuple[Tensor, Tensor]:
    """Pad rows of ids to one [B, L] tensor and its mask [B, L]."""
    length = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        if len(row):
            columns = slice(length - len(row), length) if pad_left else slice(0, len(row))
            ids[i, columns] = torch.as_tensor(row, dtype=torch.long)
            mask[i, columns] = 1
    return ids, mask


def freeze_unsaved(model: PreTrainedModel) -> None:
    """Freeze tables that transformers never saves (Marian's positions): their training would be lost."""
    unsaved = tuple(getattr(model, "_keys_to_ignore_on_save", None) or ())
    if unsaved:
        named = list(model.named_parameters(remove_duplicate=False))
        saved = {id(parameter) for name, parameter in named if not name.endswith(unsaved)}
        for name, parameter in named:
            if name.endswith(unsaved) and id(parameter) not in saved:
                parameter.requires_grad_(False)


def check_output_layer(language_model: LanguageModel) -> None:
    """Check that `logits(hidden_states(ids))` equals the model's own forward.

    Raises:
        ConfigError: they differ.
    """
    model = language_model.model
    ids = torch.tensor([[language_model.eos_ids[0], 0, 1, 0]], device=model.device)
    with trial(model):
        try:
            expected = model(input_ids=ids, use_cache=False).logits
        except READ_ERRORS as cause:
            raise ConfigError(f"{type(model).__name__} can't read token ids by themselves: {cause}") from cause
        compare_logits(language_model, language_model.hidden_states(ids), expected)


def compare_logits(language_model: LanguageModel, hidden: Tensor, expected: Tensor) -> None:
    """Raise ConfigError if the logits of a trunk's vectors differ from those of the model's own forward."""
    name = type(language_model.model).__name__
    try:
        logits = language_model.logits(hidden)
    except READ_ERRORS as cause:
        raise ConfigError(f"{name} is not supported: its output layer can't be run alone: {cause}") from cause
    if not agree(logits, expected):
        raise ConfigError(f"{name} is not supported: it changes its vectors or logits between trunk and output")


def freeze(module: nn.Module) -> nn.Module:
    """Put a module into eval mode without gradients, as a reference or a scorer."""
    return module.eval().requires_grad_(False)
