"""The models of a job, made from their configs alone: no weights are loaded, and none are in memory.

Called with the device "meta"; `rehearsal.faked` then lets their passes be rehearsed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.loading import load_pretrained, load_tokenizer
from rlhf_lightning.model.trunk import check_writer, load_config, trunk_kind
from rlhf_lightning.plan.fake_run import rehearsable
from rlhf_lightning.tokenization.vocabulary import check_tokens


@dataclass(frozen=True)
class Part:
    """A model of a job, and what it takes in one process, in bytes.

    Attributes:
        role: policy, critic, reference, reward model.
        parameters, trained: numbers of weights, whole.
        weights: with buffers. gradients, optimiser: of what is trained; Adam keeps two averages of each weight in its own precision.
    """

    role: str
    parameters: int
    trained: int
    weights: float
    gradients: float
    optimiser: float

    @classmethod
    def of(cls, role: str, model: nn.Module, processes: int = 1) -> Part:
        """What a model takes where its weights are shared out over so many processes (FSDP2); 1 for whole ones."""
        parameters = list(model.parameters())
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        bytes_of = sum(p.nbytes for p in parameters) + sum(buffer.nbytes for buffer in model.buffers())
        gradients = sum(p.nbytes for p in learning)
        count = sum(p.numel() for p in learning)
        return cls(role, sum(p.numel() for p in parameters), count, bytes_of / processes, gradients / processes, 2 * gradients / processes)

    def alone(self, but: Part) -> Part:
        """This part without another that it holds."""
        own = {name: getattr(self, name) - getattr(but, name) for name in ("parameters", "trained", "weights", "gradients", "optimiser")}
        return dataclasses.replace(self, **own)


@dataclass
class Trunk:
    """A trunk whose passes can be rehearsed.

    Attributes:
        packs: whether it runs on packed rows.
    """

    model: Any
    packs: bool

    @classmethod
    def of(cls, model: Any) -> Trunk:
        return cls(model, rehearsable(model))


def policy_of_config(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A language model of transformers with the shapes of a config."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if trunk_kind(config) == "encoder_decoder" else AutoModelForCausalLM
    return auto.from_config(config, dtype=dtype)


def policy_of_path(path: str, dtype: torch.dtype) -> LanguageModel:
    """The language model of a folder or Hub name: its config and its tokenizer are read, its weights aren't.

    Raises:
        DataError: neither is there.
    """
    from rlhf_lightning.backbone.encoder_decoder import EncoderDecoder

    config = load_config(path)
    check_writer(config, path)
    model = policy_of_config(config, dtype)
    model.name_or_path = path
    made = EncoderDecoder if trunk_kind(config) == "encoder_decoder" else LanguageModel
    language_model = made(model, load_tokenizer(path))
    check_tokens(model, language_model.tokenizer, f"backbone.path: {path!r}")
    return language_model


def trunk_of_path(path: str) -> Any:
    """The trunk of a folder or Hub name in float32, as reward models are made on it."""
    from transformers import AutoModel, PreTrainedConfig

    config: PreTrainedConfig = load_pretrained(_auto_config(), path, "reward model")
    trunk: Any = AutoModel.from_config(config, dtype=torch.float32)
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    return trunk


def _auto_config() -> Any:
    from transformers import AutoConfig

    return AutoConfig


def matrix_weights(model: nn.Module) -> int:
    """Weights that every token is multiplied with: all of a trunk's but the tables that are looked up in."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables and p.dim() > 1)


def layer_count(model: Any) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def head_sizes(model: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and the width of one."""
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    return heads, shared, int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def largest_layer(model: nn.Module) -> float:
    """Bytes of the largest layer of a model whose layers are brought together one at a time."""
    sizes: Sequence[int] = [
        sum(p.nbytes for p in layer.parameters()) for block in model.modules() if isinstance(block, nn.ModuleList) for layer in block
    ]
    return float(max(sizes, default=0))
