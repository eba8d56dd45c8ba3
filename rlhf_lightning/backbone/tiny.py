"""A small untrained transformer and a byte-level BPE tokenizer, without any download."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.registry import register

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"


@register("backbone", "tiny", needs=["corpus"])
def tiny(
    corpus: Iterable[str],
    *,
    family: Literal["gpt2", "llama"] = "llama",
    layers: PositiveInt = 2,
    width: PositiveInt = 128,
    heads: PositiveInt = 4,
    vocabulary: Annotated[int, Field(ge=260)] = 1024,
    positions: PositiveInt = 128,
    activation_checkpointing: bool = False,
) -> LanguageModel:
    """An untrained model of well under a million parameters with a tokenizer trained on the corpus.

    Args:
        corpus: texts to train the tokenizer on.
        family: the architecture of the transformers config.
        layers: number of transformer blocks.
        width: numbers per hidden state; a multiple of `heads`.
        heads: attention heads of each block.
        vocabulary: maximum number of tokens, of which 256 are the bytes.
        positions: tokens of prompt and response together that the model can read.
        activation_checkpointing: blocks run again in the backward pass instead of saving what it needs.

    Raises:
        ConfigError: width is not divisible by heads.
    """
    if width % heads:
        raise ConfigError(f"backbone.width={width} must be a multiple of backbone.heads={heads}")
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    tokenizer = byte_level_bpe(corpus, vocabulary)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=positions, n_embd=width, n_layer=layers, n_head=heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
        )  # fmt: skip
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=positions, hidden_size=width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=width * 8 // 3, tie_word_embeddings=True, **ids,
        )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    if activation_checkpointing:
        checkpoint_activations(model)
    return LanguageModel(model, tokenizer)


def byte_level_bpe(corpus: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: lossless for any text, and deterministic for a corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, padding_side="left", clean_up_tokenization_spaces=False
    )
