"""Weights shared out between two real processes, and models that never were."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf_lightning.training.sharding import full_tensor, transformer_layers, unsharded_weights
from tests.fork_server import run

SHARES = '''
import copy
import os
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.training.sharding import Shardable, transformer_layers, shard, copy_full_weights, unsharded_weights
from transformers import GPT2Config, GPT2LMHeadModel

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)


class ScoredBatch(nn.Module):
    """A tied language model beside a number that can't be shared out."""

    def __init__(self):
        super().__init__()
        self.model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2)).eval()
        self.number = nn.Parameter(torch.tensor(0.5))

    def forward(self, ids):
        return self.model(input_ids=ids).logits.sum() * self.number

    def more(self, ids):
        return 2 * self(ids)


model = ScoredBatch()
kept = copy.deepcopy(model.state_dict())
sharded = shard(model, mesh, ("forward", "more"))
own = sum(p.to_local().numel() for p in sharded.model.parameters())
assert 0.4 < own / sum(p.numel() for p in model.model.parameters()) < 0.6
assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items()), "the model itself is left as it was"
assert sharded.model.lm_head.weight is sharded.model.transformer.wte.weight, "what was one weight is one weight"

ids = torch.arange(6)[None]
with unsharded_weights(sharded), torch.no_grad():  # as often as each process likes, and parts by themselves
    for _ in range(1 + 2 * rank):
        assert torch.allclose(sharded.model(input_ids=ids).logits, model.model(input_ids=ids).logits, atol=1e-6)
    assert sharded.model.transformer.wte.weight.shape == (50, 8)
assert all(p.to_local().numel() <= 0.6 * p.numel() for p in sharded.model.parameters() if p.shape[0] > 1), "they are shares again"


class Training(Shardable):
    trained = "scored"


training = Training()
training.scored, training._full_model = sharded, (model,)
mine = ids + 3 * rank
for call, times in ((sharded, 1), (sharded.more, 2)):
    sharded.zero_grad()
    call(mine).backward()
    training.average_scalar_gradients()
    wanted = torch.zeros(2)
    for place in range(2):
        model.zero_grad()
        (times * model(ids + 3 * place)).backward()
        wanted += torch.stack([model.number.grad, model.model.transformer.ln_f.weight.grad.sum()]) / 2
    found = torch.stack([sharded.number.grad, sharded.model.transformer.ln_f.weight.grad.full_tensor().sum()])
    assert torch.allclose(found, wanted, rtol=1e-5), (found, wanted)

torch.optim.SGD(sharded.parameters(), lr=0.1).step()
copy_full_weights(model, sharded)
assert not torch.equal(kept["number"], model.number)
assert not torch.equal(kept["model.transformer.h.1.mlp.c_fc.weight"], model.model.transformer.h[1].mlp.c_fc.weight)
both = [torch.zeros_like(model.model.lm_head.weight) for _ in range(2)]
torch.distributed.all_gather(both, model.model.lm_head.weight.detach())
assert torch.equal(*both)
torch.distributed.destroy_process_group()
os._exit(0)  # as the program does (cli.program)
'''


@pytest.mark.slow
def test_two_processes_share_a_model_out_and_bring_it_together(tmp_path):
    (tmp_path / "shares.py").write_text(SHARES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "shares.py")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = run(launch, timeout=200, env=env, spares=2)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize(("family", "expected"), [("gpt2", 2), ("llama", 2), ("bert", 2)])
def test_layers_of_transformers_are_found(tiny_of, family, expected):
    model = nn.ModuleList([tiny_of(family).model, nn.Linear(2, 2)])
    found = transformer_layers(model)
    assert len(found) == expected
    assert len({type(layer) for layer in found}) == 1
    inside = sum(parameter.numel() for layer in found for parameter in layer.parameters())
    assert inside > 0


def test_a_model_that_was_never_shared_out_is_whole():
    model = nn.Linear(2, 2)
    with unsharded_weights(model):
        assert torch.equal(full_tensor(model.weight), model.weight)
