"""Any encoder of transformers, for reward models: BERT, RoBERTa, ModernBERT, DistilBERT and the like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.load_options import AttentionName, DtypeName, QuantizationName, check_load_options, load_options
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.registry import register


@register("backbone", "encoder", needs=["reading"], check=check_load_options)
def encoder(
    corpus: Iterable[str],
    *,
    path: ModelPath,
    dtype: DtypeName = "float32",
    attn_implementation: AttentionName = "auto",
    activation_checkpointing: bool = False,
    quantization: QuantizationName = "none",
) -> tuple[Any, Any]:
    """A pretrained encoder by Hub name or folder, as the trunk of a reward model; it can't generate.

    It reads prompt and response in its tokenizer's template for pairs.

    Returns:
        transformers' model and tokenizer.

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
        ConfigError: it isn't an encoder.
    """
    trunk, tokenizer = load_trunk(path, "encoder", **load_options(dtype, attn_implementation, quantization))
    if activation_checkpointing:
        checkpoint_activations(trunk)
    return trunk, tokenizer
