"""Adapters as a folder of their own, which peft loads onto the model that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rlhf_lightning.model.adapters import ModulesToSave, adapter_layers

FOLDER = "adapter"
"""Name of the folder beside the merged model."""
PREFIX = "base_model.model."
"""peft's, of every tensor."""


@dataclass(frozen=True)
class AdapterFiles:
    """The content of an adapter's folder: peft's config and its tensors by name."""

    config: Any
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir()
        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def adapter_files(model: Any) -> AdapterFiles | None:
    """The adapters of a transformers model; None without any.

    None for fused experts too, whose adapters peft stores otherwise.
    """
    layers = dict(adapter_layers(model))
    if not layers or any(hasattr(layer, "parameter_name") for layer in layers.values()):
        return None
    from peft import LoraConfig

    # The tensors, by peft's names.
    trained = {name: module for name, module in model.named_modules() if isinstance(module, ModulesToSave)}
    tensors = {
        f"{name}.{key.replace('.default', '').replace('lora_magnitude_vector.weight', 'lora_magnitude_vector')}": value
        for name, layer in layers.items()
        for key, value in layer.state_dict().items()
        if key.startswith("lora_")
    }
    for name, module in trained.items():
        tensors |= {f"{name}.{key}": value for key, value in module.trained_module.state_dict().items()}
    # The settings, which all layers share.
    first: Any = next(iter(layers.values()))
    dropout = getattr(first.lora_dropout["default"], "p", 0.0)
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    config = LoraConfig(
        r=first.r["default"],
        lora_alpha=first.lora_alpha["default"],
        lora_dropout=dropout,
        use_rslora=first.use_rslora.get("default", False),
        use_dora=bool(first.lora_variant),
        target_modules=sorted(layers),
        modules_to_save=sorted(trained) or None,
        fan_in_fan_out=bool(getattr(first, "fan_in_fan_out", False)),
        base_model_name_or_path=model.name_or_path or None,
        task_type=kind if model.get_output_embeddings() is not None else "FEATURE_EXTRACTION",
        inference_mode=True,
    )
    return AdapterFiles(config, {f"{PREFIX}{name}": value.detach().cpu().contiguous() for name, value in tensors.items()})
