"""Any decoder-only model of transformers: GPT-2, Llama, Qwen, Mistral and the like."""

from __future__ import annotations

from collections.abc import Iterable

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.model.activation_checkpointing import checkpoint_activations
from rlhf_lightning.model.language_model import LanguageModel, check_output_layer
from rlhf_lightning.model.load_options import AttentionName, DtypeName, QuantizationName, check_load_options, load_options
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.text_vectors import check_batch_invariance
from rlhf_lightning.model.trunk import check_kind, check_writer, load_config
from rlhf_lightning.registry import register
from rlhf_lightning.tokenization.vocabulary import check_end_tokens, check_tokens


@register("backbone", "causal", check=check_load_options)
def causal(
    corpus: Iterable[str],
    *,
    path: ModelPath,
    dtype: DtypeName = "float32",
    attn_implementation: AttentionName = "auto",
    activation_checkpointing: bool = False,
    quantization: QuantizationName = "none",
) -> LanguageModel:
    """A pretrained causal language model by Hub name or local folder.

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
        ConfigError: the model isn't decoder-only, has no end-of-text token, or changes its logits after the output layer.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(path)
    check_kind(config, path, "decoder")
    check_writer(config, path)
    model = load_pretrained(AutoModelForCausalLM, path, "backbone.path", **load_options(dtype, attn_implementation, quantization))
    language_model = LanguageModel(model, load_tokenizer(path))
    check_tokens(model, language_model.tokenizer, f"backbone.path: {path!r}")
    check_end_tokens(model, f"backbone.path: {path!r}")
    check_batch_invariance(language_model.trunk, causal=True)
    check_output_layer(language_model)
    if activation_checkpointing:
        checkpoint_activations(model)
    return language_model
