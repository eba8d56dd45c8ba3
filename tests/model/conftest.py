"""Tiny models of many architectures, made from their configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}


def make_config(architecture: str, **settings: Any) -> Any:
    """A config of the named architecture with two layers and 64 tokens."""
    import transformers as hf

    ids = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2} | settings
    sizes = {**ids, **SIZES, "max_position_embeddings": 64}
    bart = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    make = {
        "mixtral": lambda: hf.MixtralConfig(**sizes, num_local_experts=4),
        "qwen2_moe": lambda: hf.Qwen2MoeConfig(**sizes, **EXPERTS, shared_expert_intermediate_size=8),
        "qwen3_moe": lambda: hf.Qwen3MoeConfig(**sizes, **EXPERTS, head_dim=8, mlp_only_layers=[0]),
        "olmoe": lambda: hf.OlmoeConfig(**sizes, num_experts=4, num_experts_per_tok=2),
        "deepseek_v3": lambda: hf.DeepseekV3Config(
            **sizes, **LATENT, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, n_group=2, topk_group=1,
            first_k_dense_replace=1,
        ),
        "gpt_oss": lambda: hf.GptOssConfig(
            **sizes, num_local_experts=4, num_experts_per_tok=2, head_dim=8,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        "gpt2": lambda: hf.GPT2Config(**ids, n_positions=64, n_embd=16, n_layer=2, n_head=2),
        "llama": lambda: hf.LlamaConfig(**sizes, tie_word_embeddings=True),
        "llama_untied": lambda: hf.LlamaConfig(**sizes),
        "t5": lambda: hf.T5Config(
            **ids, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=2, dropout_rate=0.0
        ),
        "bart": lambda: hf.BartConfig(
            **ids, **bart, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64, decoder_start_token_id=1,
            forced_eos_token_id=1,
        ),
    }  # fmt: skip
    return make[architecture]()


@pytest.fixture(scope="session")
def small_config() -> Callable[..., Any]:
    return make_config


@pytest.fixture(scope="session")
def small_model() -> Callable[..., PreTrainedModel]:
    """An untrained language model of an architecture, its weights large enough that a lost one shows."""

    def make(architecture: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        config = make_config(architecture, **settings)
        torch.manual_seed(seed)
        model = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    return make
