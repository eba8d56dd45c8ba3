"""Trunks: transformers' base models of every family, with a vector for each token of a text.

Shapes: U texts, L tokens of the longest, N of all of them, D width.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf_lightning.config.model_files import CARD
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.prompt_encoding import InputFormat, TrunkKind
from rlhf_lightning.model.text_vectors import check_batch_invariance
from rlhf_lightning.tokenization.vocabulary import check_config_ids, check_tokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EXAMPLES = {
    "decoder": "a decoder-only model (GPT-2, Llama, Qwen ...)",
    "encoder": "an encoder (BERT, RoBERTa, ModernBERT, DistilBERT ...)",
    "encoder_decoder": "an encoder-decoder (T5, BART ...)",
}
OPTION: dict[TrunkKind, str] = {"decoder": "causal", "encoder": "encoder", "encoder_decoder": "encoder_decoder"}
"""The backbone that takes a family."""
CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "RewardModel")
"""Endings of transformers' classes with another layer instead of the output layer."""


def trunk_kind(config: PretrainedConfig) -> TrunkKind:
    """The family of a transformers config.

    An encoder-decoder if the config says so, an encoder if transformers has a masked language model of its type (and it isn't
    turned into a decoder), else a decoder.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        return "encoder"
    return "decoder"


def check_kind(config: PretrainedConfig, path: str, wanted: TrunkKind) -> None:
    """Reject a model of another family than the chosen backbone's.

    Raises:
        ConfigError: the message names the option for this family.
    """
    kind = trunk_kind(config)
    if kind != wanted:
        remark = ", which serves stage=reward (it reads texts and writes none)" if kind == "encoder" else ""
        raise ConfigError(
            f"backbone.path={path!r} is {EXAMPLES[kind]}, of type {config.model_type}, and backbone={OPTION[wanted]} takes "
            f"{EXAMPLES[wanted]}: write backbone={OPTION[kind]}{remark}"
        )


def load_config(path: str, what: str = "backbone.path", **options: Any) -> Any:
    """Load the transformers config of a folder or Hub model.

    Args:
        options: of from_pretrained.

    Raises:
        DataError: it is missing, or has ids out of range.
    """
    from transformers import AutoConfig

    config = load_pretrained(AutoConfig, path, what, **options)
    check_config_ids(config, f"{what}: config.json of {path!r}")
    return config


def check_writer(config: PretrainedConfig, path: str) -> None:
    """Reject a reward model as a policy.

    Raises:
        DataError: it has no output layer.
    """
    architecture = str(next(iter(getattr(config, "architectures", None) or []), ""))
    is_ours = (Path(path) / CARD).is_file()
    if is_ours or architecture.endswith(CLASSIFIERS):
        kind = f"a reward model's folder ({CARD})" if is_ours else f"a classifier ({architecture})"
        raise DataError(
            f"backbone.path: {path!r} is {kind}: it has no output layer to write texts with; give the folder of a language model"
        )


def load_trunk(path: str, wanted: TrunkKind | None = None, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the trunk of a folder or Hub model, and its tokenizer.

    The pad token differs from the end-of-text, since transformers' classifiers find the last token by it. An encoder's pooler is
    dropped as unused.

    Args:
        wanted: the family of the chosen backbone; None accepts any.
        options: of from_pretrained (`load_options`); the default dtype is float32.

    Raises:
        DataError: the folder or name can't be loaded.
        ConfigError: a model of another family, or one whose vectors of a text depend on other texts.
    """
    from transformers import AutoModel

    config = load_config(path, "reward model" if wanted is None else "backbone.path")
    if wanted is not None:
        check_kind(config, path, wanted)
    trunk = load_pretrained(AutoModel, path, "reward model", **{"dtype": torch.float32, **options})
    pooler = getattr(trunk, "pooler", None)
    if pooler is not None:
        trunk.pooler = None
    tokenizer = load_tokenizer(path)
    check_tokens(trunk, tokenizer, f"reward model: {path!r}")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        trunk.resize_token_embeddings(len(tokenizer))
    causal = trunk_kind(trunk.config) != "encoder"
    try:
        check_batch_invariance(trunk, causal=causal)
    except ConfigError:
        if pooler is None:
            raise
        trunk.pooler = pooler  # LayoutLM's forward calls it
        check_batch_invariance(trunk, causal=causal)
    return trunk, tokenizer


def trunk_width(trunk: PreTrainedModel) -> int:
    """D, the size of a token's vector."""
    return int(trunk.config.get_text_config().hidden_size)


def input_format_of(trunk: PreTrainedModel) -> InputFormat:
    """The inputs that a trunk expects, by its config and signature."""
    config = trunk.config
    kind = trunk_kind(config)
    if kind == "encoder_decoder":
        start = getattr(config, "decoder_start_token_id", None)
        return InputFormat(kind, decoder_start=config.pad_token_id if start is None else start)
    takes_types = "token_type_ids" in inspect.signature(trunk.forward).parameters and getattr(config, "type_vocab_size", 0) > 1
    return InputFormat(kind, typed=kind == "encoder" and takes_types)


def max_positions(trunk: PreTrainedModel) -> int | None:
    """Maximum tokens of a text; None for relative positions (T5)."""
    positions = getattr(trunk.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    # RoBERTa counts positions from the padding's id on, so that the table's first rows are unused.
    # I-BERT's table is no nn.Embedding.
    tables = [module for name, module in trunk.named_modules() if name.endswith("position_embeddings")]
    skipped = [table.padding_idx + 1 for table in tables if isinstance(getattr(table, "padding_idx", None), int)]
    return int(positions) - max(skipped, default=0)


def clamp_length(trunk: PreTrainedModel, wanted: int) -> int:
    """The wanted number of tokens of a text, at most the trunk's positions."""
    limit = max_positions(trunk)
    return wanted if limit is None else min(wanted, limit)


def stacks(model: Any) -> list[nn.Module]:
    """Encoder and decoder of an encoder-decoder; else the model."""
    return [model.get_encoder(), model.get_decoder()] if getattr(model.config, "is_encoder_decoder", False) else [model]


def blocks_of(stack: nn.Module, setting: str, count: int) -> tuple[str, nn.ModuleList]:
    """Name and list of a stack's blocks, which hold more weights than any other list.

    Args:
        setting: with `count` blocks, for messages.

    Raises:
        ConfigError: there is no list of blocks, or it has fewer than `count`.
    """
    lists = {name: module for name, module in stack.named_modules() if isinstance(module, nn.ModuleList)}
    name, kind = (
        max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()), default=""),
        type(stack).__name__,
    )
    if not name:
        raise ConfigError(f"{setting}={count} finds no blocks in {kind}: choose another option of {setting.split('.')[0]}")
    if count > len(lists[name]):
        raise ConfigError(f"{setting}={count}: {kind} has {len(lists[name])} blocks; ask for fewer")
    return name, lists[name]
