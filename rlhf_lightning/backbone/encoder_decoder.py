"""Any encoder-decoder of transformers: T5, BART and the like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import ConfigError, DataError, OverlongPrompt
from rlhf_lightning.flow import Prompt, Prompts, prompt_text
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.language_model import LanguageModel, compare_logits, pad_rows
from rlhf_lightning.model.load_options import AttentionName, DtypeName, QuantizationName, check_load_options, load_options
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import EncodedText, InputFormat
from rlhf_lightning.model.text_vectors import check_batch_invariance, decoder_hidden
from rlhf_lightning.model.trial import READ_ERRORS, trial
from rlhf_lightning.model.trunk import check_kind, check_writer, input_format_of, load_config
from rlhf_lightning.registry import register
from rlhf_lightning.tokenization.chat_template import strip_frames
from rlhf_lightning.tokenization.turns import text_end
from rlhf_lightning.tokenization.vocabulary import check_end_tokens, check_tokens


class EncoderDecoder(LanguageModel):
    """An encoder-decoder: its encoder reads the prompt, its decoder writes the response.

    Prompts are right-padded, since BART counts positions from the first column. The decoder starts with decoder_start_token_id and the
    tokenizer's opening tokens (BART's <s>), on which no loss is taken.
    """

    @property
    def decoder_prefix(self) -> list[int]:
        return self._encode("", "").before

    def text_ids(self, prompt: Prompt, response: str) -> tuple[list[int], int, list[int] | None]:
        row = self._encode(prompt, response)
        return [*row.before, *row.answer, *text_end(self.tokenizer, self.eos_ids)], len(row.before), row.context

    def encode_prompts(self, prompts: Sequence[Prompt], max_new_tokens: int) -> Prompts:
        """Encode prompts for the encoder, right-padded, in the tokenizer's template for one text.

        Raises:
            OverlongPrompt: a prompt that is longer than the encoder.
            DataError: a response that may be longer than the decoder.
        """
        rows = [self._encode(text, "").context for text in prompts]
        length, prefix = self.max_length, len(self.decoder_prefix)
        if prefix + max_new_tokens > length:
            raise DataError(
                f"a response of up to {max_new_tokens} tokens doesn't fit the decoder's {length} positions: "
                "lower rollout_sampler.max_new_tokens"
            )
        for text, ids in zip(prompts, rows, strict=True):
            if len(ids) > length:
                raise OverlongPrompt(
                    f"a prompt of {len(ids)} tokens doesn't fit the encoder's {length} positions: {prompt_text(text)[:60]!r}...; "
                    "shorten it or filter it out"
                )
        padded, mask = pad_rows(rows, self.pad_id)
        return Prompts(prompts=strip_frames(self.tokenizer, prompts), prompt_ids=padded, prompt_mask=mask, group=torch.arange(len(rows)))

    def decode(self, ids: Tensor, mask: Tensor, prompts: Prompts | None = None) -> list[str]:
        """Decode [B, T] right-padded responses without special tokens, each as a separate text."""
        rows = [row[:n] for row, n in zip(ids.tolist(), mask.long().sum(1).tolist(), strict=True)]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)) for row in rows]

    @property
    def _input_format(self) -> InputFormat:
        return input_format_of(self.model)

    def _encode(self, prompt: Prompt, response: str) -> EncodedText:
        return self.text_encoder.encode((prompt, response))


@register("backbone", "encoder_decoder", check=check_load_options)
def encoder_decoder(
    corpus: Iterable[str],
    *,
    path: ModelPath,
    dtype: DtypeName = "float32",
    attn_implementation: AttentionName = "auto",
    activation_checkpointing: bool = False,
    quantization: QuantizationName = "none",
) -> LanguageModel:
    """A pretrained encoder-decoder by Hub name or folder: it encodes the prompt and decodes the response.

    As the trunk of a reward model (stage=reward) its decoder reads the response.

    Args:
        corpus: unused; a pretrained model has its tokenizer.
        path: Hub name or folder with config, safetensors and tokenizer. Code in the folder is never run.
        dtype: number format of the weights, "auto" that of the checkpoint; train float32 weights under
            trainer.precision=bf16-mixed where memory allows.
        attn_implementation: transformers' name; texts run without padding under sdpa alone.
        activation_checkpointing: blocks run again in the backward pass instead of saving what it needs: less memory, a third more time.
        quantization: bits of the frozen weights under LoRA, on NVIDIA GPUs.

    Raises:
        DataError: the folder or name can't be loaded.
        ConfigError: it isn't an encoder-decoder, has no end-of-text token, or changes its logits after the output layer.
    """
    from transformers import AutoModelForSeq2SeqLM

    config = load_config(path)
    check_kind(config, path, "encoder_decoder")
    check_writer(config, path)
    model: Any = load_pretrained(AutoModelForSeq2SeqLM, path, "backbone.path", **load_options(dtype, attn_implementation, quantization))
    language_model = EncoderDecoder(model, load_tokenizer(path))
    check_tokens(model, language_model.tokenizer, f"backbone.path: {path!r}")
    check_end_tokens(model, f"backbone.path: {path!r}")
    check_batch_invariance(model, causal=True)
    check_decoder_output(language_model)
    if activation_checkpointing:
        checkpoint_activations(model)
    return language_model


def check_decoder_output(language_model: EncoderDecoder) -> None:
    """`check_output_layer` for an encoder-decoder. Raises ConfigError."""
    model = language_model.model
    ids = torch.tensor([*language_model.decoder_prefix, 0, 1], device=model.device)
    context = torch.tensor([language_model.eos_ids[0], 1, 0], device=model.device)
    lengths = [torch.tensor([len(row)], device=model.device) for row in (ids, context)]
    with trial(model):
        try:
            expected = model(input_ids=context[None], decoder_input_ids=ids[None], use_cache=False).logits
            hidden = decoder_hidden(model, PackedTokens(ids, lengths[0]), PackedTokens(context, lengths[1]))[0]
        except READ_ERRORS as cause:
            raise ConfigError(f"{type(model).__name__} can't read token ids by themselves: {cause}") from cause
        compare_logits(language_model, hidden, expected)
