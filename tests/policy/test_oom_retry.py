"""Out of memory: half as many rows at a time give the same, once; then the sizes."""

from __future__ import annotations

import functools
import importlib.util
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch

from rlhf_lightning.checkpoint.fit import fit
from rlhf_lightning.errors import UserError
from rlhf_lightning.policy.oom_retry import Workload, is_out_of_memory, retry_on_oom
from tests.fork_server import run as run_forked

ROOT = Path(__file__).resolve().parents[2]
TEXT = "CUDA out of memory. Tried to allocate 20.00 GiB."


@functools.cache
def trainings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trainings_of_memory", ROOT / "tests" / "checkpoint" / "trainings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ppo(kind: str = "ppo", **settings: Any) -> tuple[Any, Any, list[str]]:
    L.seed_everything(7, verbose=False)
    module, data, _ = trainings().KINDS[kind]()
    vars(module.settings).update(settings)
    said: list[str] = []
    module.components.log = said.append
    module.settings.self_checks = False
    return module, data, said


def run(module: Any, data: Any, folder: Path | None = None, *callbacks: L.Callback) -> Any:
    trainer = trainings().trainer_of(1, *callbacks, clip=False)
    trainer.fit(module, data) if folder is None else fit(trainer, module, data, folder=folder, every=1)
    return module


def failing(function: Callable[..., Any], calls: tuple[int, ...]) -> Callable[..., Any]:
    """The real error of torch, at the calls of these numbers."""
    counted = iter(range(10**9))

    def wrapped(*given: Any, **more: Any) -> Any:
        if next(counted) in calls:
            raise torch.OutOfMemoryError(TEXT)
        return function(*given, **more)

    return wrapped


def difference(one: Any, other: Any) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("place", ["loss", "manual_backward"])
@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_minibatch_in_halves_has_the_same_gradient(monkeypatch, kind, place):
    """Also where memory runs out in the middle, with part of the gradient there."""
    gradients: dict[int, list[torch.Tensor]] = {}
    for attempt, calls in enumerate(((), (1,))):
        module, data, said = ppo(kind, micro_batch_size=2, updates=1)
        taken = gradients[attempt] = []

        def keep(loss: Any, *rest: Any, module: Any = module, taken: Any = taken) -> None:
            taken.extend(p.grad.clone() for p in module.parameters() if p.grad is not None)

        monkeypatch.setattr(module, "_optimizer_step", keep)
        monkeypatch.setattr(module, place, failing(getattr(module, place), calls))
        run(module, data)
        assert module.reduced_batch_sizes == ({"optimisation": 1} if calls else {})
    assert said == ["out of memory in optimisation: 1 responses at a time instead of 2, for the rest of this training"]
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0])
    assert len(gradients[0]) == len(gradients[1])
    assert max((a - b).abs().max().item() for a, b in zip(gradients[0], gradients[1], strict=True)) < 1e-6


@pytest.mark.parametrize("work", ["optimisation", "sampling", "scoring", "the scorer"])
def test_a_training_whose_memory_ran_out_once_learns_the_same(monkeypatch, work):
    whole = run(*ppo(epochs=1)[:2])
    module, data, said = ppo(epochs=1)
    if work == "optimisation":
        monkeypatch.setattr(module, "loss", failing(module.loss, (3,)))
    elif work == "sampling":
        module.components.sampler = failing(module.components.sampler, (1,))
    elif work == "scoring":
        monkeypatch.setattr(module.reference, "forward", failing(module.reference.forward, (2,)))
    else:
        module.components.scorer = failing(module.components.scorer, (2,))
    run(module, data)
    assert list(module.reduced_batch_sizes) == [work]
    assert len(said) == 1
    assert difference(module, whole) < 1e-5
    assert [step["objective/scores"] for step in module.history] == pytest.approx([step["objective/scores"] for step in whole.history])


@pytest.mark.parametrize("work", ["optimisation", "sampling", "the scorer"])
def test_a_second_time_ends_with_the_sizes(monkeypatch, work):
    module, data, said = ppo()
    if work == "optimisation":
        monkeypatch.setattr(module, "loss", failing(module.loss, (3, 7)))
    elif work == "sampling":
        module.components.sampler = failing(module.components.sampler, (1, 4))
    else:
        module.components.scorer = failing(module.components.scorer, (1, 2))
    with pytest.raises(UserError, match=rf"out of memory in {work}, with \d of \d responses at a time \(half of the first") as told:
        run(module, data)
    assert len(said) == 1
    parameters = sum(p.numel() for p in module.policy.parameters())
    for part in (f"a model of {parameters:,} parameters", "lower ", "tokens", TEXT):
        assert part in str(told.value)


def test_one_row_has_no_half(monkeypatch):
    module, data, _ = ppo(micro_batch_size=1)
    monkeypatch.setattr(module, "loss", failing(module.loss, (0,)))
    with pytest.raises(UserError, match="with 1 of 4 responses at a time: texts"):
        run(module, data)


def test_a_resumed_training_goes_on_in_halves(monkeypatch, tmp_path):
    """What it leaves is bitwise what it would have left without the stop."""
    import signal

    whole, data, _ = ppo()
    monkeypatch.setattr(whole, "loss", failing(whole.loss, (3,)))
    run(whole, data, tmp_path / "whole")
    stopped, data, _ = ppo()
    monkeypatch.setattr(stopped, "loss", failing(stopped.loss, (3,)))
    with pytest.raises(SystemExit):
        run(stopped, data, tmp_path / "stopped", trainings().Kills(2, signal.SIGTERM))
    again, data, said = ppo()
    run(again, data, tmp_path / "stopped")
    assert said == []
    assert again.reduced_batch_sizes == whole.reduced_batch_sizes == {"optimisation": 2}
    assert difference(again, whole) == 0.0
    assert again.history == whole.history


def test_other_errors_pass(monkeypatch):
    module, data, said = ppo()

    def wrong(*given: Any) -> Any:
        raise RuntimeError("the size of tensor a must match")

    monkeypatch.setattr(module, "loss", wrong)
    with pytest.raises(RuntimeError, match="the size of tensor a"):
        run(module, data)
    assert said == []


def test_several_processes_try_nothing_again(monkeypatch, scored_of):
    monkeypatch.setattr("rlhf_lightning.policy.oom_retry.world_size", lambda: 2)
    record, halved, calls = scored_of(torch.ones(4, 3, dtype=torch.long)), {}, []

    def attempt(times: int) -> None:
        calls.append(times)
        raise torch.OutOfMemoryError(TEXT)

    with pytest.raises(UserError, match=r"texts of up to 4 tokens, 16 together.*several don.t"):
        retry_on_oom(Workload("optimisation", record, 4), halved, attempt, torch.nn.Linear(2, 2), print)
    assert (calls, halved) == ([1], {})


def test_what_was_computed_is_freed_before_the_second_attempt(scored_of):
    """The error's frames hold it, and memory would run out again for that alone."""
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    def attempt(times: int) -> bool:
        if times == 1:
            large = torch.zeros(10)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError(TEXT)
        return held[0]() is None

    record = scored_of(torch.ones(4, 3, dtype=torch.long))
    assert retry_on_oom(Workload("sampling", record, 4), {}, attempt, torch.nn.Linear(2, 2), lambda text: None)


def test_an_allocation_that_the_system_refuses_is_recognised():
    """A real one: more memory than any machine's addresses reach."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**46, dtype=torch.float64)
    assert "DefaultCPUAllocator" in str(refused.value)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


LIMITED = """
import resource, sys, torch
from rlhf_lightning.policy.oom_retry import Workload, retry_on_oom
from rlhf_lightning.flow import Prompts

torch.set_num_threads(1)
width = 1 << 20
weight = torch.zeros(width, requires_grad=True)
rows = torch.arange(64.0)

def attempt(times):
    weight.grad = None
    for part in rows.split(64 // times):
        (weight * part[:, None]).cos().sum().backward()
    return weight.grad

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * width * 64 * 3, resource.RLIM_INFINITY))
record = Prompts(prompts=["a"] * 64, prompt_ids=torch.zeros(64, 1), prompt_mask=torch.ones(64, 1), group=torch.arange(64))
halved = {}
grad = retry_on_oom(Workload("optimisation", record, 64), halved, attempt, torch.nn.Linear(1, 1), lambda text: print(text, file=sys.stderr))
print(halved, grad.isfinite().all().item(), tuple(grad.shape))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_process_at_its_limit_of_memory_goes_on_in_halves():
    """The real thing: the system refuses the allocation in the middle of a backward pass or before it."""
    done = run_forked([sys.executable, "-c", textwrap.dedent(LIMITED)], timeout=120)
    assert done.returncode == 0, done.stderr
    assert "out of memory in optimisation: 32 responses at a time instead of 64" in done.stderr
    assert done.stdout.split() == ["{'optimisation':", "32}", "True", "(1048576,)"]
