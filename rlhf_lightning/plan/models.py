"""Models of a job, made from their configs on the device "meta": no weights are read or allocated.

Counted are matrix products: 2 FLOPs per weight and token forward, twice as many backward (as many, where the weights are frozen), and the
products of attention, l² / 2 pairs per text. Not counted: other programs, small matrices, and Python but for a fixed time per layer.
torch's RuntimeEstimator is no substitute: it knows the GPU at hand alone, not those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlhf_lightning.model.activation_checkpointing import has_checkpointing
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.trunk import check_writer, load_config, trunk_kind
from rlhf_lightning.optimization.parameters import OptimizationDefaults, ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.plan.device import Device
from rlhf_lightning.plan.fake_run import Texts, prepare_attention
from rlhf_lightning.tokenization.vocabulary import check_tokens


@dataclass(frozen=True)
class Part:
    """A model of a job, and its memory in one process, in bytes.

    Attributes:
        role: policy, critic, reference, reward model.
        parameters, trained: numbers of weights before sharding.
        weights: with buffers. gradients, optimiser: of the trained weights; Adam keeps two averages of each in its own precision,
            another optimizer what `states_per_weight` measures.
    """

    role: str
    parameters: int
    trained: int
    weights: float
    gradients: float
    optimiser: float

    @classmethod
    def of(cls, role: str, model: nn.Module, shards: int = 1, states: float = 2.0) -> Part:
        """The memory of a model in one process.

        Args:
            shards: the number of processes that share its weights (FSDP2); 1 if each has all of them.
            states: bytes of the optimizer's state for each byte of trained weights.
        """
        parameters = list(model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        weights = sum(p.nbytes for p in parameters) + sum(buffer.nbytes for buffer in model.buffers())
        gradients = sum(p.nbytes for p in trained)
        counts = sum(p.numel() for p in parameters), sum(p.numel() for p in trained)
        return cls(role, *counts, weights / shards, gradients / shards, states * gradients / shards)


def states_per_weight(optimizer: Callable[[TrainedParameters], torch.optim.Optimizer]) -> float:
    """Bytes of an optimizer's state for each byte of weights, of a matrix of a layer after one step."""
    layer = nn.Linear(512, 512, bias=False)
    layers = nn.ModuleList([layer])
    stepped = optimizer(TrainedParameters([ParameterGroup("model", trained_parameters(layers), 1e-6)], OptimizationDefaults()))
    weight = layer.weight
    weight.grad = torch.zeros_like(weight)
    stepped.step()
    states = [value for value in stepped.state[weight].values() if isinstance(value, torch.Tensor) and value.dim()]
    return sum(int(state.nbytes) for state in states) / weight.nbytes


@dataclass
class Trunk:
    """A trunk whose passes can be rehearsed.

    Attributes:
        packs: True if it runs on packed rows.
    """

    model: Any
    packs: bool

    @classmethod
    def of(cls, model: Any) -> Trunk:
        return cls(model, prepare_attention(model))


def policy_of_config(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A language model of transformers with the shapes of a config."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if trunk_kind(config) == "encoder_decoder" else AutoModelForCausalLM
    return auto.from_config(config, dtype=dtype)


def policy_of_path(path: str, dtype: str) -> LanguageModel:
    """The language model of a folder or Hub name, from its config and tokenizer.

    Raises:
        DataError: one of them is missing.
    """
    from rlhf_lightning.backbone.encoder_decoder import EncoderDecoder

    config = load_config(path)
    check_writer(config, path)
    model = policy_of_config(config, planned_dtype(config, dtype))
    model.name_or_path = path
    language_model_class = EncoderDecoder if trunk_kind(config) == "encoder_decoder" else LanguageModel
    language_model = language_model_class(model, load_tokenizer(path))
    check_tokens(model, language_model.tokenizer, f"backbone.path: {path!r}")
    return language_model


def planned_dtype(config: Any, name: str) -> torch.dtype:
    """The dtype of a setting backbone.dtype; "auto" is the config's."""
    dtype = getattr(config, "dtype", None) if name == "auto" else getattr(torch, name)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def trunk_of_path(path: str) -> Any:
    """The trunk of a folder or Hub name in float32, as reward models use it."""
    from transformers import AutoConfig, AutoModel, PreTrainedConfig

    auto: Any = AutoConfig
    config: PreTrainedConfig = load_pretrained(auto, path, "reward model")
    trunk: Any = AutoModel.from_config(config, dtype=torch.float32)
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    return trunk


def matrix_weights(model: nn.Module) -> int:
    """The number of a trunk's weights that multiply every token: all but embedding tables and vectors."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables and p.dim() > 1)


def layer_count(model: Any) -> int:
    """The number of a trunk's layers."""
    return int(model.config.get_text_config().num_hidden_layers)


def head_sizes(model: Any) -> tuple[int, int, int]:
    """Numbers of query heads and of key and value heads, and the width of one."""
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    return heads, kv_heads, int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def largest_layer(model: nn.Module) -> float:
    """Bytes of a model's largest layer, for strategies that gather one layer at a time."""
    sizes: Sequence[int] = [
        sum(p.nbytes for p in layer.parameters()) for block in model.modules() if isinstance(block, nn.ModuleList) for layer in block
    ]
    return float(max(sizes, default=0))


UTILISATION = 0.4
"""Fraction of a GPU's peak that training reaches: well-tuned runs reach 0.35 to 0.55."""
LAYER_SECONDS = 3e-4
"""Python and kernel launches of one layer's forward pass."""


@dataclass(frozen=True)
class Roofline:
    """Seconds of passes on a device at a precision."""

    device: Device
    precision: str

    def forward(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of one forward pass.

        Args:
            output: D x V of the output layer, computed at predicted tokens; 0 without one.
        """
        return self._seconds(forward_flops(trunk, texts, output), layer_count(trunk))

    def train_step(self, trunk: Any, texts: Texts, output: int = 0) -> float:
        """Seconds of forward and backward."""
        frozen = any(not parameter.requires_grad for parameter in trunk.parameters())
        flops, layers = forward_flops(trunk, texts, output) * (2 if frozen else 3), 3 * layer_count(trunk)
        if has_checkpointing(trunk):  # its blocks run forward once more
            flops, layers = flops + forward_flops(trunk, texts), layers + layer_count(trunk)
        return self._seconds(flops, layers)

    def generate(self, trunk: Any, prompts: tuple[int, ...], tokens: int, output: int) -> float:
        """Seconds of `tokens` decoding steps of all rows, each of which reads every weight, key and value."""
        _, kv_heads, width = head_sizes(trunk)
        layers, itemsize = layer_count(trunk), 2 if self.precision.startswith("bf16") else 4
        weights, columns = matrix_weights(trunk) + output, sum(prompts) / len(prompts) + tokens / 2
        flops = 2.0 * weights * len(prompts)
        read = weights * itemsize + 2.0 * layers * len(prompts) * kv_heads * width * columns * itemsize
        step = max(flops / self._flops, read / self.device.bandwidth) + layers * LAYER_SECONDS
        return self.forward(trunk, Texts(prompts, (1,) * len(prompts)), output) + tokens * step

    @property
    def _flops(self) -> float:
        """FLOP/s in training."""
        return UTILISATION * self.device.peak(self.precision) if not self.device.host else self.device.peak(self.precision)

    def _seconds(self, flops: float, layers: int) -> float:
        computing, launching = flops / self._flops, layers * LAYER_SECONDS
        return computing + launching if self.device.host else max(computing, launching)


def forward_flops(trunk: Any, texts: Texts, output: int = 0) -> float:
    """FLOPs of a forward pass: 2 per weight and token, 2 products over half of each text's pairs."""
    heads, _, width = head_sizes(trunk)
    pairs = sum(length * length / 2 for length in texts.lengths)
    attention = 4.0 * layer_count(trunk) * heads * width * pairs
    return 2.0 * matrix_weights(trunk) * texts.tokens + attention + 2.0 * output * texts.predicted_tokens
