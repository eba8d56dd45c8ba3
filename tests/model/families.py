"""A tiny config of every causal, encoder and encoder-decoder family of the installed transformers, made by shrinking its default config."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

Kind = Literal["causal", "encoder", "encoder_decoder"]
FAMILIES: dict[Kind, list[str]] = {
    "causal": list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "encoder": list(MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "encoder_decoder": list(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
}
AUTO_MODELS: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "encoder": AutoModel, "encoder_decoder": AutoModelForSeq2SeqLM}
VOCABULARY = 320
PAD, EOS, BOS, UNKNOWN = 0, 1, 2, 3
POSITIONS = 64

SIZES: dict[str, int] = {
    **dict.fromkeys(["vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size", "unpadded_vocab_size"], VOCABULARY),
    **dict.fromkeys(["src_vocab_size", "tgt_vocab_size"], VOCABULARY),
    **dict.fromkeys(["hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim", "lru_width"], 32),
    **dict.fromkeys(["conv_dim", "moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"], 32),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"], 48),
    **dict.fromkeys(["hidden_dim", "intermediate_size_mlp", "block_ff_dim", "shared_intermediate_size"], 48),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"], 2),
    **dict.fromkeys(["num_decoder_layers", "num_encoder_layers"], 2),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"], 4),
    **dict.fromkeys(["num_encoder_attention_heads", "num_decoder_attention_heads"], 4),
    "num_key_value_heads": 2, "d_head": 8, "d_inner": 48,
    **dict.fromkeys(["head_dim", "d_kv", "attention_head_dim", "v_head_dim", "qk_nope_head_dim", "global_head_dim"], 8),
    "adapter_in_dim": 32, "adapter_input_size": 32, "num_filters": 4, "n_filters": 4, "hidden_size_per_layer_input": 8,
    "entity_vocab_size": 10, "pronunciation_vocab_size": 50, "shape_vocab_size": 50,
    "qk_rope_head_dim": 8, "qk_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16, "rotary_dim": 8,
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"], POSITIONS),
    **dict.fromkeys(["max_source_positions", "max_target_positions", "seq_length"], POSITIONS),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "top_k", "num_experts_per_token", "moe_k"], 2),
    **dict.fromkeys(["n_group", "topk_group", "num_expert_group"], 1),
    **dict.fromkeys(["mamba_n_heads", "mamba_num_heads", "mamba_d_conv", "mamba_dt_rank", "time_step_rank"], 4),
    **dict.fromkeys(["mamba_d_head", "mamba_head_dim", "mamba_headdim"], 16),
    **dict.fromkeys(["mamba_d_state", "state_size", "ssm_state_size", "chunk_size", "mamba_chunk_size"], 8),
    **dict.fromkeys(["mamba_n_groups", "n_groups", "mamba_ngroups"], 1),
    **dict.fromkeys(["n_mamba_heads", "mamba_expand", "expand"], 2), "mamba_d_ssm": 64,
    "linear_num_heads": 4, "linear_head_dim": 8, "model_max_length": POSITIONS,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    **dict.fromkeys(["sliding_window", "attention_chunk_size", "attention_window_size", "window_size"], 4),
}  # fmt: skip
"""What a config's numbers become, by name."""

WINDOWED = ["sliding_attention", "full_attention"]
HYBRID = ["linear_attention", "full_attention"]
BEFORE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "esmc": {"hidden_size": 32, "num_attention_heads": 4},
    "gemma4_text": {"num_hidden_layers": 2, "layer_types": WINDOWED},
    "gemma4_unified_text": {"num_hidden_layers": 2, "layer_types": WINDOWED},
    "gemma4": {"text_config": {"num_hidden_layers": 2, "layer_types": WINDOWED}},
    "gemma4_unified": {"text_config": {"num_hidden_layers": 2, "layer_types": WINDOWED}},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dory": {"num_hidden_layers": 4, "n_input_layers": 1, "n_output_layers": 1},
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "granitemoehybrid": {"num_hidden_layers": 2, "layer_types": HYBRID},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hrm_text": {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "head_dim": 8, "prefix_lm": False},
    "mamba2": {"num_heads": 4, "head_dim": 16, "hidden_size": 32, "state_size": 8, "n_groups": 1, "chunk_size": 8, "num_hidden_layers": 2},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "ministral": {"head_dim": 8},
    "neomme": {"num_hidden_layers": 2, "layer_types": WINDOWED},
    "nemotron": {"head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2},
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "intermediate_size": 48},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 4, "num_blocks": 2, "num_hidden_layers": 2, "vocab_size": VOCABULARY,
              "chunk_size": 8},
    "zamba": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4},
    "zamba2": {"hidden_size": 32, "num_attention_heads": 4, "n_mamba_heads": 4, "mamba_expand": 2, "num_hidden_layers": 4,
               "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "xmod": {"languages": ("en_XX",)},
    "esm": {"vocab_size": VOCABULARY},
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2,
        "head_dim": 8,
    },
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2,
            "head_dim": 8,
        }
    },
}  # fmt: skip
"""What a family's config is made with, before shrinking."""


def _assign(**values: Any) -> Callable[[Any], None]:
    def assign(config: Any) -> None:
        for name, value in values.items():
            setattr(config, name, value)

    return assign


OVERRIDES: dict[str, Callable[[Any], None]] = {
    "cohere_compass_text": _assign(
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    ),
    "mamba2": _assign(head_dim=16),
    **dict.fromkeys(["granite", "granitemoe", "granitemoeshared", "granite_swa", "granitemoe_swa"], _assign(logits_scaling=4.0)),
    "granitemoehybrid": _assign(logits_scaling=4.0),
    "hyperclovax": _assign(logits_scaling=0.5),
    "falcon_h1": _assign(lm_head_multiplier=0.5),
    **dict.fromkeys(["gemma2", "gemma3_text", "vaultgemma", "nanochat"], _assign(final_logit_softcapping=3.0)),
    "recurrent_gemma": _assign(block_types=["recurrent", "attention"]),
    "xlstm": _assign(hidden_size=128, embedding_dim=128),
    "reformer": _assign(axial_pos_embds_dim=(16, 16), axial_pos_shape=(8, 8)),
    "funnel": _assign(architectures=["FunnelModel"]),
    "neomme": _assign(head_dim=16),
    "t5gemma": lambda config: _assign(cross_attention_hidden_size=32)(config.decoder),
    "zamba2": _assign(n_mamba_heads=4, layers_block_type=["linear_attention", "hybrid"] * 2, num_hidden_layers=4),
    **dict.fromkeys(["zamba"], _assign(layers_block_type=["linear_attention", "hybrid"] * 2, num_hidden_layers=4)),
    "laguna": _assign(num_attention_heads_per_layer=[4, 4]),
    "esmc": _assign(num_key_value_heads=4),
    "hrm_text": _assign(num_hidden_layers=8),
    "dory": _assign(num_hidden_layers=4, layer_types=WINDOWED * 2),
    "gemma3n_text": _assign(num_hidden_layers=4, layer_types=WINDOWED * 2, final_logit_softcapping=3.0),
    "xmod": _assign(default_language="en_XX"),
    "rwkv": _assign(rescale_every=1),
}
"""What a family's config needs beyond `SIZES`, after shrinking."""


def tiny_config(family: str, kind: Kind) -> Any:
    """The family's default config with the sizes of `SIZES`, special tokens as the census tokenizer's, and as a decoder where `kind` is
    causal."""
    config = CONFIG_MAPPING[family](**BEFORE.get(family, {}))
    shrink(config)
    if "kv_lora_rank" in vars(config.get_text_config(decoder=True)):  # latent attention has a key head for each query head
        for part in (config, config.get_text_config(decoder=True)):
            _set(part, "num_key_value_heads", 4)
            _set(part, "head_dim", 8)
    if family in OVERRIDES:
        OVERRIDES[family](config)
    for part in (config, config.get_text_config(decoder=True)):
        for name, value in SPECIAL.items():
            if hasattr(part, name) or name in ("pad_token_id", "eos_token_id"):
                setattr(part, name, value)
    if kind == "causal" and getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    return config


SPECIAL = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": BOS, "decoder_start_token_id": BOS}


def shrink(config: Any) -> None:
    """Give a config and the configs in it the sizes of `SIZES`, in place; of its kinds of layers one each, and two layers at least."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            shrink(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _set(config, name, _small(name, value))
    kinds = {name: list(dict.fromkeys(getattr(config, name, None) or ())) for name in LAYER_KINDS}
    count = max(2, *map(len, kinds.values()))
    for name, values in kinds.items():
        if values:
            _set(config, name, (values * count)[:count])
    if count > 2:
        for name in ("num_hidden_layers", "num_layers", "n_layer"):
            if isinstance(getattr(config, name, None), int):
                _set(config, name, count)


def _small(name: str, value: float) -> float:
    if name.endswith("_token_id") and value >= VOCABULARY:
        return UNKNOWN
    return 0.0 if ("drop" in name or "jitter" in name) and isinstance(value, float) else SIZES.get(name, value)


LAYER_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")


def _set(config: Any, name: str, value: Any) -> None:
    with contextlib.suppress(Exception):  # what a config computes by itself
        setattr(config, name, value)


def plain_run(model: Any, kind: Kind) -> None:
    """A forward pass of the plain model over token ids. Raises what transformers raises, and ValueError for results that aren't finite."""
    ids = torch.randint(5, 250, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(input_ids=ids, decoder_input_ids=ids) if kind == "encoder_decoder" else model(input_ids=ids)
    if not torch.isfinite(output.last_hidden_state if kind == "encoder" else output.logits).all():
        raise ValueError("the output isn't finite")


SCALES = {"mt5": 1.0}
"""Of weights, where 3 makes logits so large (mT5's output layer isn't tied: a response has -600 nats) that float32 rounds a sum by more
than 1e-4; in float64 its sums agree to 1e-12 at 3, too."""


def tiny_model(family: str, kind: Kind) -> PreTrainedModel:
    """The family's model with random weights, large enough that a wrong position, mask or state shows in its numbers."""
    scale = SCALES.get(family, 3.0)
    torch.manual_seed(0)
    model = AUTO_MODELS[kind].from_config(tiny_config(family, kind)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(scale)
            elif parameter.dim() == 1:  # biases start at 0, where an error of theirs can't be seen
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model
