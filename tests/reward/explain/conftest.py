"""Reward models whose reasons are known, and tiny ones of each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean

TOKENIZER = byte_level_bpe(["a good lamp, a good fan, a good kettle."] * 4, 290)


class TableScore(nn.Module):
    """The sum of a number for each token, squared or not."""

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(len(TOKENIZER), 1)
        self.power = power
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(0))

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, tokens: PackedTokens) -> Tensor:
        ids, mask = tokens.to_padded()
        return (self.table(ids)[:, :, 0] * mask).sum(1) ** self.power


@pytest.fixture
def table_model() -> Callable[[int], RewardModel]:
    """A model whose score is the sum of a number for each token, to some power."""
    return lambda power=1: RewardModel(TableScore(power), TOKENIZER).eval()


def small_trunk(family: str) -> Any:
    """An untrained trunk whose weights are large enough that its score bends."""
    from transformers import (
        BertConfig,
        BertModel,
        GPT2Config,
        GPT2Model,
        LlamaConfig,
        LlamaModel,
        T5Config,
        T5Model,
    )

    torch.manual_seed(1)
    ids: dict[str, Any] = {"vocab_size": len(TOKENIZER), "pad_token_id": TOKENIZER.pad_token_id}
    if family == "bert":
        trunk: Any = BertModel(
            BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64, **ids),
            add_pooling_layer=False,
        )
    elif family == "gpt2":
        trunk = GPT2Model(GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=4, **ids))
    elif family == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 2, "d_ff": 64, "feed_forward_proj": "gated-gelu"}
        trunk = T5Model(T5Config(**sizes, decoder_start_token_id=TOKENIZER.pad_token_id, **ids))
    else:
        trunk = LlamaModel(
            LlamaConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
                max_position_embeddings=64, **ids,
            )
        )  # fmt: skip
    with torch.no_grad():
        for parameter in trunk.parameters():
            if parameter.dim() > 1 and family != "t5":
                parameter.mul_(4.0)
        # Where transformers keeps the padding's embedding at zero, the two baselines would be one.
        table = trunk.get_input_embeddings().weight
        table[TOKENIZER.pad_token_id] = 0.3 * table.std() * torch.randn(table.shape[1])
    return trunk.eval()


@pytest.fixture
def family_model() -> Callable[[str], RewardModel]:
    """A reward model on a tiny trunk of a family; encoders are pooled by the mean, the others by the last token."""

    def make(family: str) -> RewardModel:
        trunk = small_trunk(family)
        model = RewardModel(ComposedScore(trunk, mean if family == "bert" else last, LinearHead(32)), TOKENIZER, 64)
        return model.eval().requires_grad_(False)

    return make
