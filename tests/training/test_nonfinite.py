"""Numbers that go wrong in each training: nothing of a bad update is applied, its batch can be read, and three in a row end the run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from rlhf_lightning.checkpoint.fit import fit
from rlhf_lightning.errors import UserError
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.training.nonfinite import MAX_DUMPS, BatchDump, clip, total_norm
from tests.fork_server import run

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["sft", "reward", "dpo", "ppo", "grpo"]
SUPERVISED = ["sft", "reward", "dpo"]
MINIBATCHES = PPOSettings().epochs * 2


@pytest.fixture(scope="module")
def trainings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trainings_of_bad_updates", Path(__file__).parents[1] / "checkpoint" / "trainings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(trainings: ModuleType, module: Any) -> list[str]:
    """Of the weights, the optimiser's state and the schedule."""
    trainer = module.trainer
    schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    parts = [module.state_dict(), [optimizer.state_dict() for optimizer in trainer.optimizers], schedules]
    return [hashlib.sha256(repr(trainings.plain(part)).encode()).hexdigest() for part in parts]


class Poison(L.Callback):
    """Spoils the backward passes of these numbers, counted from 0 over the whole training: the gradient of a parameter becomes infinite, or
    the activations of the trunk, and with them the loss, are no numbers.

    Attributes:
        unmoved: whether the steps of these numbers left everything as it was.
    """

    def __init__(self, trainings: ModuleType, numbers: tuple[int, ...], what: str) -> None:
        self.trainings, self.numbers, self.what = trainings, numbers, what
        self.unmoved: list[bool] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.bad = trainer.fit_loop.total_batch_idx + 1 in self.numbers
        if not self.bad:
            return
        self.before = digest(self.trainings, pl_module)
        trunk = next(module for module in pl_module.modules() if type(module).__name__ == "GPT2Model")
        if self.what == "loss":
            self.hook = trunk.ln_f.register_forward_hook(lambda module, given, made: made * math.nan)
        else:
            self.hook = trunk.ln_f.weight.register_hook(lambda gradient: gradient * math.inf)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: Any) -> None:
        if self.bad:
            self.hook.remove()
            self.unmoved.append(digest(self.trainings, pl_module) == self.before)


class PoisonMinibatches(L.Callback):
    """The same for single minibatches of PPO, by their number over the whole training."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers, self.seen = numbers, -1

    def on_before_backward(self, trainer: L.Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        self.seen += 1
        if self.seen in self.numbers:
            weight = pl_module.language_model.model.transformer.ln_f.weight
            hook = weight.register_hook(lambda gradient: (hook.remove(), gradient * math.inf)[1])


def trained(
    trainings: ModuleType, kind: str, folder: Path, *callbacks: L.Callback, aside: Path | None = None, learning_rate: float | None = None
) -> tuple[Any, list[str]]:
    """The module after a training with checkpoints in `folder`, and what it said."""
    L.seed_everything(7, verbose=False)
    module, data, epochs = trainings.KINDS[kind]()
    if learning_rate is not None:
        module.settings.learning_rate = learning_rate
    said: list[str] = []
    module.batch_dump = BatchDump(aside or folder / "bad_batches", kind, said.append)
    trainer = trainings.trainer_of(epochs, *callbacks, clip=module.automatic_optimization)
    module.kept_trainer = (trainer,)
    fit(trainer, module, data, folder=folder / "checkpoints", every=1, keep=2)
    return module, said


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("kind", SUPERVISED)
def test_nothing_of_a_bad_update_is_applied_and_the_training_goes_on(trainings, tmp_path, kind, what):
    watch = Poison(trainings, (2, 4, 5), what)
    module, said = trained(trainings, kind, tmp_path, watch)
    assert watch.unmoved == [True] * 3, "weights, the optimiser's state or the schedule moved"
    assert [step["bad_updates"] for step in module.history] == [0, 1, 1, 2, 3, 3]
    assert all(torch.isfinite(weight).all() for weight in module.parameters())
    assert len(said) == 4
    assert said[0].startswith(f"the update isn't applied: step 2: the loss is {'nan' if what == 'loss' else ''}")
    assert said[-1] == f"{kind}: 3 updates had a loss or a gradient that isn't finite: not applied"


def test_a_dropped_update_leaves_what_a_training_without_that_batch_leaves(trainings, tmp_path):
    """The last step dropped: weights and optimiser are those of a training that was stopped before it."""

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.fit_loop.total_batch_idx + 1 == 5

    dropped, _ = trained(trainings, "sft", tmp_path / "dropped", Poison(trainings, (6,), "gradient"))
    shorter, _ = trained(trainings, "sft", tmp_path / "shorter", Stop())
    assert digest(trainings, dropped) == digest(trainings, shorter)


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_bad_minibatch_of_ppo_is_dropped_and_counted(trainings, tmp_path, kind):
    module, said = trained(trainings, kind, tmp_path, PoisonMinibatches((1, MINIBATCHES, MINIBATCHES + 1)))
    assert [step["bad_updates"] for step in module.history] == [1, 3, 3, 3, 3]
    assert all(math.isfinite(value) for step in module.history for value in step.values())
    assert "transformer.ln_f.weight" in said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_aside_can_be_read(trainings, tmp_path, kind):
    watch = PoisonMinibatches((1,)) if kind in ("ppo", "grpo") else Poison(trainings, (2,), "gradient")
    _, said = trained(trainings, kind, tmp_path, watch)
    step = 1 if kind in ("ppo", "grpo") else 2
    file = tmp_path / "bad_batches" / f"{kind}_step_{step}_bad_1_rank_0.json"
    assert str(file) in said[0]
    about = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (about["training"], about["step"], about["process"]) == (kind, step, 0)
    assert math.isfinite(about["loss"])
    assert about["gradient_norm"] in ("nan", "inf")
    assert about["first_parameter_with_a_bad_gradient"].endswith("ln_f.weight")
    tensors = load_file(file.with_suffix(".safetensors"))
    assert {name: list(value.shape) for name, value in tensors.items()} == {n: v["shape"] for n, v in about["tensors"].items()}
    texts = about["texts"]
    assert texts
    if kind in ("ppo", "grpo"):
        assert [text["score"] for text in texts] == tensors["scores"].tolist()
        low, high = about["log_ratio_to_old"]
        assert -1 < low <= high < 1
        assert about["advantages"][0] < about["advantages"][1]
    else:
        assert any("The " in text.get("text", text.get("prompt", "")) for text in texts)
        # The files hold the very batch: its texts, decoded from the tensors, are as many.
        (lengths,) = (value for name, value in tensors.items() if name.split(".")[-1] == "lengths")
        assert len(lengths) == len(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_that_blows_the_weights_up_ends_in_an_error(trainings, tmp_path, kind):
    """Also where it happens at the very end: no weights that aren't finite are ever saved."""
    with pytest.raises(UserError, match="learning_rate") as told:
        trained(trainings, kind, tmp_path, learning_rate=1e30)
    assert "finite" in str(told.value)
    for file in (tmp_path / "checkpoints").glob("step_*/trainer.ckpt"):
        weights = torch.load(file, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


class Spoil(L.Callback):
    """Weights that aren't numbers from the start."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            next(pl_module.parameters())[:] = math.nan


@pytest.mark.parametrize("kind", SUPERVISED)
def test_three_bad_updates_in_a_row_stop_the_training_and_name_the_file(trainings, tmp_path, kind):
    with pytest.raises(UserError, match=r"3 updates in a row .* step 3: the loss is nan") as told:
        trained(trainings, kind, tmp_path, Poison(trainings, (1, 2, 3, 4, 5, 6), "loss"))
    assert str(tmp_path / "bad_batches" / f"{kind}_step_3_bad_3_rank_0.json") in str(told.value)
    assert "the weights themselves" not in str(told.value)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_numbers_are_named(trainings, tmp_path, kind):
    """Where the self-checks of PPO are off too: they refuse such a policy at once."""

    class Now(Spoil):
        def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            if kind in ("ppo", "grpo"):
                pl_module.settings.self_checks = False
            super().on_train_start(trainer, pl_module)

    with pytest.raises(UserError, match=r"the weights.* aren't finite, the first are .*wte"):
        trained(trainings, kind, tmp_path, Now())


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_the_counts_go_on_after_a_stop(trainings, tmp_path, kind):
    """A stop between two bad updates in a row doesn't let more than three pass, and the history is the uninterrupted one's."""
    bad = (2, 3) if kind == "sft" else (3 * MINIBATCHES - 1, 3 * MINIBATCHES)

    def watch() -> L.Callback:
        return Poison(trainings, bad, "gradient") if kind == "sft" else PoisonMinibatches(bad)

    whole, _ = trained(trainings, kind, tmp_path / "whole", watch())
    stop = 2 if kind == "sft" else 3
    first = watch()
    with pytest.raises(SystemExit):
        trained(trainings, kind, tmp_path / "stopped", first, trainings.Kills(stop, signal.SIGTERM))
    again = watch()
    if isinstance(again, PoisonMinibatches) and isinstance(first, PoisonMinibatches):
        again.seen = first.seen
    resumed, _ = trained(trainings, kind, tmp_path / "stopped", again)
    assert resumed.history == whole.history
    assert (resumed.bad_updates, resumed.bad_in_a_row) == (whole.bad_updates, whole.bad_in_a_row) == (2, 0)
    (trainer,), (other,) = resumed.kept_trainer, whole.kept_trainer
    assert trainings.left_by(trainer, resumed) == trainings.left_by(other, whole)


def test_only_so_many_batches_are_written(trainings, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "EPOCHS", 10)
    bad = tuple(number for number in range(1, 31) if number % 2)
    module, said = trained(trainings, "sft", tmp_path, Poison(trainings, bad, "gradient"))
    assert module.bad_updates == 15
    assert len(list((tmp_path / "bad_batches").glob("*.json"))) == MAX_DUMPS
    assert len(said) == MAX_DUMPS + 1


def test_a_batch_that_can_not_be_written_is_reported_and_no_reason_to_stop(trainings, tmp_path):
    (tmp_path / "file").write_text("")
    module, said = trained(trainings, "sft", tmp_path, Poison(trainings, (2,), "gradient"), aside=tmp_path / "file" / "bad")
    assert module.bad_updates == 1
    assert "couldn't be written" in said[0]


@pytest.mark.parametrize("bad", [(), (5,)])
def test_a_gradient_that_overflows_its_scale_is_the_scaler_s_to_mend(trainings, tmp_path, bad):
    """Half precision: the scale is halved until gradients fit, the schedule waits, and only a loss that is no number counts."""
    from lightning.pytorch.plugins import MixedPrecision

    L.seed_everything(7, verbose=False)
    module, data, epochs = trainings.KINDS["sft"]()
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**20))
    applied: list[tuple[bool, int]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: Any) -> None:
            applied.append((pl_module.applied, trainer.lr_scheduler_configs[0].scheduler.last_epoch))

    trainer = trainings.trainer_of(epochs, Watch(), Poison(trainings, bad, "loss"), plugins=[plugin])
    trainer.fit(module, data)
    assert applied[:4] == [(False, 0), (False, 0), (False, 0), (True, 1)]
    assert applied[-1] == (True, 2 if bad else 3)
    assert module.bad_updates == len(bad)
    assert plugin.scaler.get_scale() == 2.0 ** (16 if bad else 17)


def test_norm_and_clipping_are_torch_s():
    torch.manual_seed(0)
    mine, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (7,), (2, 2))] for _ in range(2))
    for one, other in zip(mine, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    norm = total_norm(p.grad for p in mine)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs, 0.5))
    clip(mine, 0.5, norm)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(mine, theirs, strict=True))


UNEVEN = '''
"""A reward loss of which the second process sees no number, in the steps that NAN_STEPS names."""
import math
import os
import torch
from torch import nn
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry


@register("reward_loss", "uneven")
class Uneven(nn.Module):
    """Bradley-Terry, and NaN now and then on one process."""

    kinds = BradleyTerry().kinds

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.inner, self.calls = scale, BradleyTerry(), 0

    def forward(self, scored, batch):
        losses, weights = self.inner(scored, batch)
        self.calls += torch.is_grad_enabled()
        bad = self.calls in map(int, os.environ["NAN_STEPS"].split(",")) and os.environ.get("LOCAL_RANK") == "1"
        return losses * (math.nan if bad else self.scale), weights
'''


def on_two(folder: Path, strategy: str, words: list[str], steps: str) -> subprocess.CompletedProcess[str]:
    """Two processes; a hang is an error."""
    two = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.run.dir=out"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NAN_STEPS": steps}
    command = [sys.executable, str(ROOT / "train.py"), *words, *two]
    return run(command, cwd=folder, timeout=180, env=env, spares=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "steps", "code"), [("ddp", "1,2,3,4,5", 2), ("fsdp2", "2", 0), pytest.param("ddp", "2", 0, marks=pytest.mark.full)]
)
def test_two_processes_drop_an_update_together(world, tmp_path, strategy, steps, code):
    """A loss that is no number on one process only: both pass over the update, or both stop, and neither waits for the other."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "uneven.py").write_text(UNEVEN)
    done = on_two(tmp_path, strategy, world.reward("reward_loss=[uneven,plackett_luce,gaussian_rating]", "reward.batch_size=7"), steps)
    assert done.returncode == code, done.stderr
    written = sorted(path.name for path in (tmp_path / "out" / "bad_batches").glob("*.json"))
    count = 1 if code == 0 else 3
    assert written == sorted(
        f"reward_step_{number + (code == 0)}_bad_{number}_rank_{rank}.json" for number in range(1, count + 1) for rank in (0, 1)
    )
    if code:
        assert "3 updates in a row had a loss or a gradient that isn't finite" in done.stderr
        assert not (tmp_path / "out" / "reward_model").exists()
    else:
        weights = [load_file(file) for file in (tmp_path / "out" / "reward_model").glob("**/*.safetensors")]
        assert weights
        assert all(value.isfinite().all() for part in weights for value in part.values())
        assert "1 updates had a loss" in done.stdout


SHORT = '''
"""A policy loss for which memory doesn't suffice on one process."""
import os
import torch
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.registry import register


@register("policy_loss", "short")
def short(experience, log_probs, *, rank: str = "1"):
    """PPO's, where memory suffices."""
    if os.environ.get("LOCAL_RANK", "0") == rank:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return ppo_clip(experience, log_probs)
'''


@pytest.mark.slow
def test_a_process_without_memory_ends_all_with_the_sizes(world, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "short.py").write_text(SHORT)
    done = on_two(tmp_path, "ddp", world.ppo("policy_loss=short", "policy_loss.rank='1'"), "0")
    assert done.returncode != 0
    assert "out of memory in optimisation, with 2 of 2 responses at a time: texts of up to" in done.stderr
    assert "lower ppo.micro_batch_size" in done.stderr
    assert not (tmp_path / "out" / "policy").exists()
