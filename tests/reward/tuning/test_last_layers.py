"""reward_tuning=last_layers: the last blocks and the norm after them, in every family."""

from __future__ import annotations

import pytest
import torch
from transformers import AlbertConfig, AutoModel, MambaConfig

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.tuning.last_layers import last_layers

EXPECTED = {
    "gpt2": ("h.1.", "ln_f."),
    "llama": ("layers.1.", "norm."),
    "bert": ("encoder.layer.1.",),
    "roberta": ("encoder.layer.1.",),
    "distilbert": ("transformer.layer.1.",),
    "modernbert": ("layers.1.", "final_norm."),
    "t5": ("decoder.block.1.", "decoder.final_layer_norm."),
    "bart": ("decoder.layers.1.",),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_the_last_block_and_its_norm_learn_and_nothing_else(model_of, family):
    model = model_of(family)
    last_layers(model.net.trunk, layers=1)
    names = {name for name, parameter in model.net.trunk.named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in model.net.trunk.named_parameters() if name.startswith(EXPECTED[family])}
    assert names
    model(model.tokenise([("It", "is a fan"), ("a", "lamp")])).square().sum().backward()
    learned = {name for name, p in model.net.trunk.named_parameters() if p.grad is not None}
    assert learned == names


@pytest.mark.parametrize("family", EXPECTED)
def test_all_blocks_leave_the_embeddings(model_of, family):
    trunk = model_of(family).net.trunk
    last_layers(trunk, layers=2)
    assert not any(p.requires_grad for name, p in trunk.named_parameters() if "embed" in name or name.startswith(("wte", "wpe", "shared")))


def test_more_blocks_than_there_are_are_refused(model_of):
    with pytest.raises(ConfigError, match=r"reward_tuning\.layers=3: LlamaModel has 2 blocks"):
        last_layers(model_of("llama").net.trunk, layers=3)


def test_a_model_whose_blocks_are_one_is_reported_and_a_state_space_model_works():
    torch.manual_seed(0)
    albert = AutoModel.from_config(
        AlbertConfig(vocab_size=99, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    )
    with pytest.raises(ConfigError, match="AlbertModel has 1 blocks"):
        last_layers(albert, layers=2)
    mamba = AutoModel.from_config(MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2))
    last_layers(mamba, layers=1)
    trained = {name for name, p in mamba.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in mamba.named_parameters() if name.startswith(("layers.1.", "norm_f."))}


def test_a_module_without_blocks_is_refused():
    linear = torch.nn.Linear(2, 2)
    linear.config = object()
    with pytest.raises(ConfigError, match="finds no blocks in Linear"):
        last_layers(linear)
