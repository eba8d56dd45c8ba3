"""What bfloat16 costs, through the commands that users give: log-probabilities, ratios and losses beside those of float32."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.policy.model import Policy

ATEN = torch.ops.aten
NORMALISING = {ATEN._log_softmax.default, ATEN.logsumexp.default}
PRODUCTS = {ATEN.mm.default, ATEN.addmm.default, ATEN.mkldnn_linear.default} if hasattr(ATEN, "mkldnn_linear") else {
    ATEN.mm.default, ATEN.addmm.default,
}  # fmt: skip


class Dtypes(TorchDispatchMode):
    """Notes in which dtypes logits are normalised and matrices multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.normalised: set[torch.dtype] = set()
        self.multiplied: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in NORMALISING:
            self.normalised.add(args[0].dtype)
        if func in PRODUCTS:
            self.multiplied.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


PPO_LOSS = '''
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip

SEEN = []


@register("policy_loss", "watched")
def watched(experience, log_probs):
    """ppo_clip, which notes what it is given and gives."""
    losses, metrics = ppo_clip(experience, log_probs)
    SEEN.append((experience, log_probs, losses))
    return losses, metrics
'''
DPO_LOSS = '''
from rlhf_lightning.preference.loss.dpo import DPO

SEEN = []


@register("preference_loss", "watched", needs=["reference"])
class Watched(DPO):
    """dpo, which notes what it is given and gives."""

    def __call__(self, judged):
        losses = super().__call__(judged)
        SEEN.append((judged, losses))
        return losses
'''


@pytest.fixture
def seen(plugin) -> Callable[[str], list[Any]]:
    """Installs a watched loss; what it has seen is in the list."""

    def install(text: str) -> list[Any]:
        assert plugin("watched", text) == []
        found: list[Any] = sys.modules["plugins.watched"].SEEN
        return found

    return install


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_ppo_under_bf16_mixed_says_what_float32_says(family, world, command, seen, trunk_folder, tmp_path):
    """Log-probabilities within 1e-2 a token on average, the first ratio within 1e-2 of 1 (NM3, NM6); only products are in bfloat16."""
    steps = seen(PPO_LOSS)
    folder = trunk_folder(family)
    lexicon = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}"]
    words = [*world.task, "backbone=causal", f"backbone.path={folder}", *world.sizes, *lexicon, "policy_loss=watched"]
    with Dtypes() as dtypes:
        done = command("stage=ppo", *words, "trainer.precision=bf16-mixed", "ppo.self_checks=false", folder=tmp_path / "half")
    assert done.code == 0, done.error
    assert torch.bfloat16 in dtypes.multiplied
    assert dtypes.normalised == {torch.float32}
    experience, log_probs, losses = steps[0]
    numbers = {name: value for name, value in vars(experience).items() if isinstance(value, Tensor) and value.is_floating_point()}
    assert {"advantages", "returns", "rewards", "values", "old_log_probs", "ref_log_probs", "sampled_log_probs"} <= numbers.keys()
    assert {value.dtype for value in (*numbers.values(), log_probs, losses)} == {torch.float32}
    mask = experience.response_mask.bool()
    with torch.no_grad():
        exact = Policy(causal([], path=folder)).eval()(experience)
    error = (experience.old_log_probs - exact.log_probs)[mask]
    assert 0 < error.abs().mean() < 1e-2
    assert largest(error) < 3e-2
    assert largest(experience.entropy - exact.entropy) < 4e-3
    assert largest((experience.sampled_log_probs - exact.log_probs)[mask]) < 3e-2
    assert largest((log_probs.detach() - experience.old_log_probs)[mask].exp() - 1) < 1e-2


def test_dpo_under_bf16_mixed_says_what_float32_says(world, command, seen, tmp_path):
    """Summed log-probabilities within 1e-2 a token; at the start policy and reference are the same to the last bit."""
    steps = seen(DPO_LOSS)
    first = {}
    for precision in ("32-true", "bf16-mixed"):
        steps.clear()
        words = ["preference_loss=watched", "preference.learning_rate=1e-4", f"trainer.precision={precision}"]
        with Dtypes() as dtypes:
            done = command(*world.preference(*words), folder=tmp_path / precision)
        assert done.code == 0, done.error
        first[precision] = steps[0]
        assert dtypes.normalised == {torch.float32}
        assert (torch.bfloat16 in dtypes.multiplied) is (precision == "bf16-mixed")
    (exact, _), (judged, losses) = first["32-true"], first["bf16-mixed"]
    assert losses.dtype == torch.float32
    for mine, theirs in ((judged.chosen, exact.chosen), (judged.rejected, exact.rejected)):
        assert mine.log_probs.dtype == mine.ref_log_probs.dtype == torch.float32
        assert torch.equal(mine.tokens, theirs.tokens)
        assert 0 < largest((mine.log_probs - theirs.log_probs) / mine.tokens) < 1e-2
        assert largest(mine.log_ratio()) < 1e-4


@pytest.fixture
def curves(world, command, learned, tmp_path) -> Callable[..., tuple[Tensor, Tensor]]:
    """The losses [50] of as many steps of SFT under float32 and under another precision."""

    def found(precision: str, *words: str) -> tuple[Tensor, Tensor]:
        losses = []
        for each in ("32-true", precision):
            given = world.sft("sft.epochs=25", "sft.batch_size=4", "logger=csv", *words, f"trainer.precision={each}")
            done = command(*given, folder=tmp_path / each)
            assert done.code == 0, done.error
            losses.append([step["sft/loss"] for step in learned(tmp_path / each)[1] if "sft/loss" in step])
        exact, half = torch.tensor(losses, dtype=torch.float64)
        assert len(exact) == 50
        assert exact[-1] < 0.7 * exact[0], "it learns"
        return exact, half

    return found


def test_fifty_steps_under_bf16_mixed_go_where_float32_goes(curves):
    """Each loss within 2e-2 of float32's, and no drift: the mean residual within 1e-3 of the mean loss (NM17)."""
    exact, half = curves("bf16-mixed")
    assert 0 < largest(half - exact) < 2e-2
    assert abs((half - exact).mean() / exact.mean()) < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="16-mixed needs a GPU")
def test_fifty_steps_under_16_mixed_learn(curves):
    """The scale of the gradients takes a few steps to settle, which are left out: the curves are no copies of one another."""
    exact, half = curves("16-mixed", "trainer=gpu")
    assert abs(half[0] - exact[0]) < 1e-2
    assert half[-1] < 0.7 * half[0]
