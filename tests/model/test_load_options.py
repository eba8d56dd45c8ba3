"""dtype, attention and quantization of a loaded model, and what is refused before it loads."""

from __future__ import annotations

import shutil

import pytest
import torch

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.backbone.encoder import encoder
from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.load_options import restore_float32
from rlhf_lightning.model.packing import supports_packing
from tests.fixtures.models import make_tiny, write_reader

IDS = torch.tensor([[5, 9, 30, 12, 7]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy whose checkpoint is in bfloat16."""
    folder, language_model = tmp_path_factory.mktemp("model"), make_tiny("llama")
    language_model.model.bfloat16()
    language_model.save(folder / "half")
    return str(folder / "half")


def test_auto_is_the_checkpoints_dtype_in_every_family(folder, tmp_path):
    assert causal((), path=folder, dtype="auto").model.dtype == torch.bfloat16
    assert causal((), path=folder).model.dtype == torch.float32
    assert encoder_decoder((), path=write_reader("t5", tmp_path / "t5"), dtype="auto").model.dtype == torch.float32
    bert = write_reader("bert", tmp_path / "bert")
    assert encoder((), path=bert, dtype="bfloat16")[0].dtype == torch.bfloat16
    assert encoder((), path=bert)[0].dtype == torch.float32


@torch.no_grad()
def test_eager_attention_gives_the_same_logits_unpacked(folder):
    plain, eager = causal((), path=folder), causal((), path=folder, attn_implementation="eager")
    assert supports_packing(plain.trunk)
    assert not supports_packing(eager.trunk)
    assert torch.allclose(plain.model(input_ids=IDS).logits, eager.model(input_ids=IDS).logits, atol=1e-4)


def test_an_attention_that_the_model_lacks_is_named(folder):
    with pytest.raises(ConfigError, match=r"backbone\.attn_implementation=flash_attention_2: "):
        causal((), path=folder, attn_implementation="flash_attention_2")


def test_float32_is_restored_and_wider_numbers_stay():
    module = torch.nn.ModuleList([torch.nn.Linear(2, 2).bfloat16(), torch.nn.Linear(2, 2).double()])
    restore_float32(module)
    assert [layer.weight.dtype for layer in module] == [torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone.quantization=4bit"], "policy_tuning=lora"),
        (["backbone.quantization=8bit", "policy_tuning=lora"], "CUDA GPU"),
        (["backbone.attn_implementation=flash_attention_2"], "flash-attn"),
    ],
)
def test_a_command_is_refused_before_its_model_loads(command, world, words, message, tmp_path):
    bare = tmp_path / "bare"  # without weights: loading would fail otherwise
    shutil.copytree(world.policy, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    base = [word for word in world.sft() if not word.startswith("backbone")]
    outcome = command(*base, "backbone=causal", f"backbone.path={bare}", *words)
    assert outcome.code == 2
    assert words[0].split("=")[0] in outcome.error
    assert message in outcome.error
