"""Options of loading a pretrained model: dtype, attention and quantization of its weights."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from torch import nn

from rlhf_lightning.errors import ConfigError

DtypeName = Literal["float32", "bfloat16", "auto"]
AttentionName = Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"]
QuantizationName = Literal["none", "8bit", "4bit"]


def load_options(
    dtype: DtypeName = "float32", attention: AttentionName = "auto", quantization: QuantizationName = "none"
) -> dict[str, Any]:
    """The arguments of transformers' from_pretrained.

    Args:
        dtype: of the weights; "auto" is the checkpoint's.
        attention: "auto" is transformers' choice, sdpa where the model has it.
        quantization: of the frozen weights under LoRA, by bitsandbytes; 4 bits are NF4 (Dettmers et al. 2023).
    """
    options: dict[str, Any] = {"dtype": "auto" if dtype == "auto" else getattr(torch, dtype)}
    if attention != "auto":
        options["attn_implementation"] = attention
    if quantization != "none":
        from transformers import BitsAndBytesConfig

        compute = {} if quantization == "8bit" else {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
        options["quantization_config"] = BitsAndBytesConfig(**{f"load_in_{quantization}": True}, **compute)
    return options


def check_load_options(choices: Any) -> None:
    """Check a command's attention and quantization before its model loads.

    Args:
        choices: the composed configuration.

    Raises:
        ConfigError: a missing package or GPU, or quantized weights that would be trained.
    """
    node = choices.config.backbone
    attention, quantization = str(node.get("attn_implementation", "auto")), str(node.get("quantization", "none"))
    elsewhere = "elsewhere" in choices.component_of("stage").needs
    if attention == "flash_attention_2" and not elsewhere and not (torch.cuda.is_available() and importlib.util.find_spec("flash_attn")):
        raise ConfigError(
            "backbone.attn_implementation=flash_attention_2 needs a CUDA GPU and the package flash-attn, and this machine lacks one of "
            "them: choose sdpa, or leave it out"
        )
    if quantization == "none":
        return
    stage = choices.component_of("stage").name
    groups = {"reward": ["reward_tuning"], "rounds": ["policy_tuning", "reward_tuning"]}.get(stage, ["policy_tuning"])
    for group in groups if stage not in ("evaluate", "plan") else ():
        if choices.component_of(group).name != "lora":
            raise ConfigError(f"backbone.quantization={quantization} freezes the weights, and {group} would train them: add `{group}=lora`")
    if not elsewhere and not torch.cuda.is_available():
        raise ConfigError(f"backbone.quantization={quantization} needs a CUDA GPU, and torch sees none here: leave it out")
    if not elsewhere and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"backbone.quantization={quantization} needs more packages: pip install 'rlhf-lightning[lora,bitsandbytes]'")


def restore_quantized(module: nn.Module) -> None:
    """Replace quantized weights by plain ones, in place."""
    parts: list[Any] = [part for part in module.modules() if getattr(part, "is_quantized", False)]
    for part in parts:
        part.dequantize()


def restore_float32(module: nn.Module) -> None:
    """Bring a module's weights to float32 at least, quantized ones too, in place."""
    restore_quantized(module)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.element_size() < 4:
            tensor.data = tensor.data.float()
