"""Checks of token ids in config, generation config and tokenizer against the model's embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from rlhf_lightning.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_config_ids(config: Any, where: str) -> None:
    """Reject a config whose padding or start token isn't in its vocabulary.

    Args:
        where: beginning of the message, with the file.

    Raises:
        DataError: the message names the key, its value and the valid ids.
    """
    text = config.get_text_config()
    vocabulary = getattr(text, "vocab_size", None)
    if not isinstance(vocabulary, int):
        return
    for name in ("pad_token_id", "decoder_start_token_id"):
        value = getattr(text, name, None)
        if isinstance(value, int) and not 0 <= value < vocabulary:
            raise DataError(f"{where}: {name} is {value}, and must be null or from 0 to {vocabulary - 1} (vocab_size is {vocabulary})")


def check_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Reject a tokenizer with tokens that the model's embedding has no row for.

    Raises:
        DataError: the message names the first such token, the number of rows, and the remedy.
    """
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        return
    rows = embedding.num_embeddings
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    unreachable = unreachable_unknown(tokenizer)
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= rows and token != unreachable)
    if beyond:
        number, token = beyond[0]
        others = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        size = max(vocabulary.values()) + 1
        raise DataError(
            f"{where}: its tokenizer has the token {token!r} with id {number}{others}, and the model's embedding has {rows:,} rows: the "
            "tokenizer is another model's, or tokens were added to it alone; in that case load the model with transformers, call "
            f"model.resize_token_embeddings({size}) and save it, or remove the tokens"
        )


def unreachable_unknown(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A default unknown token that transformers adds to byte-level tokenizers, which never emit it."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    unknown: str | None = tokenizer.unk_token
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token}
    if backend is None or unknown in used or getattr(backend.model, "unk_token", None) is not None:
        return None
    return unknown


def check_end_tokens(model: PreTrainedModel, where: str) -> None:
    """Reject a generation config with end-of-text tokens without an embedding. Raises DataError."""
    embedding = model.get_input_embeddings()
    ends = getattr(model.generation_config, "eos_token_id", None)
    for number in ends if isinstance(ends, list) else [ends]:
        if (
            number is not None
            and isinstance(embedding, nn.Embedding)
            and not (isinstance(number, int) and 0 <= number < embedding.num_embeddings)
        ):
            raise DataError(
                f"{where}: eos_token_id of its generation_config.json (or config.json) is {number!r}, and must be a token's id, from 0 to "
                f"{embedding.num_embeddings - 1}"
            )
