"""Any encoder of transformers, for reward models: BERT, RoBERTa, ModernBERT, DistilBERT and the like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.registry import register


@register("backbone", "encoder", needs=["reading"])
def encoder(corpus: Iterable[str], *, path: ModelPath) -> tuple[Any, Any]:
    """A pretrained encoder by Hub name or folder, as the trunk of a reward model; it can't generate.

    It reads prompt and response in its tokenizer's template for pairs, and is trained in float32.

    Returns:
        transformers' model and tokenizer.

    Args:
        corpus: unused; a pretrained model has its tokenizer.
        path: Hub name or folder with config, safetensors and tokenizer. Code in the folder is never run.

    Raises:
        DataError: the folder or name can't be loaded.
        ConfigError: it isn't an encoder.
    """
    return load_trunk(path, "encoder")
