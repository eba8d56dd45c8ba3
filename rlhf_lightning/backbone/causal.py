"""Any decoder-only model of transformers: GPT-2, Llama, Qwen, Mistral and the like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.model.language_model import LanguageModel, check_output_layer
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.text_vectors import check_batch_invariance
from rlhf_lightning.model.trunk import check_kind, check_writer, load_config
from rlhf_lightning.registry import register
from rlhf_lightning.tokenization.vocabulary import check_end_tokens, check_tokens


@register("backbone", "causal")
def causal(corpus: Iterable[str], *, path: ModelPath, dtype: Literal["float32", "bfloat16"] = "float32") -> LanguageModel:
    """A pretrained causal language model by Hub name or local folder.

    Args:
        corpus: unused; a pretrained model has its tokenizer.
        path: Hub name or folder with config, safetensors and tokenizer. Code in the folder is never run.
        dtype: number format of the weights; train float32 weights under trainer.precision=bf16-mixed where memory allows.

    Raises:
        DataError: the folder or name can't be loaded.
        ConfigError: the model isn't decoder-only, has no end-of-text token, or changes its logits after the output layer.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(path)
    check_kind(config, path, "decoder")
    check_writer(config, path)
    model = load_pretrained(AutoModelForCausalLM, path, "backbone.path", dtype=getattr(torch, dtype))
    language_model = LanguageModel(model, load_tokenizer(path))
    check_tokens(model, language_model.tokenizer, f"backbone.path: {path!r}")
    check_end_tokens(model, f"backbone.path: {path!r}")
    check_batch_invariance(language_model.trunk, causal=True)
    check_output_layer(language_model)
    return language_model
