"""Progress without a terminal: a few lines with the newest metrics, and nothing from other processes."""

from __future__ import annotations

import csv
import io
import itertools
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.tracking import progress as progress_module
from rlhf_lightning.tracking.progress import EPISODES, LENGTH, LINES, StageProgress, Throughput, last_responses, make_bar, track_batches


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock on which every look takes half a second."""
    ticks = itertools.count()
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(ticks) / 2)


def lines_of(total: int, is_first: bool = True, terminal: bool = False, before: int = 0, **metrics: float) -> list[str]:
    screen = io.StringIO()
    progress = StageProgress("ppo", total, {"kl": "KL", "absent": "x"}, Console(file=screen, width=120, force_terminal=terminal))
    trainer = SimpleNamespace(is_global_zero=is_first, fit_loop=SimpleNamespace(total_batch_idx=before - 1))
    module = SimpleNamespace(history=[])
    progress.on_train_start(trainer, module)
    for step in range(before, total):
        rows = {name: value * (step + 1) if name == EPISODES else value for name, value in metrics.items()}
        module.history.append({"kl": step / 8} | rows)
        progress.on_train_batch_end(trainer, module, None, None, step)
    progress.on_train_end(trainer, module)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("total", [1, 3, 100])
def test_a_few_lines_the_last_of_them_at_the_end(total):
    lines = lines_of(total)
    assert 1 <= len(lines) <= LINES + 1
    assert lines[-1].split()[:2] == ["ppo", f"{total}/{total}"]
    assert f"KL {(total - 1) / 8:.3g}" in lines[-1]
    assert "x" not in lines[-1]


def test_other_processes_are_silent():
    assert lines_of(10, is_first=False) == []


def test_an_error_before_the_start_is_not_hidden():
    """Lightning calls on_exception also where the training never began."""
    StageProgress("ppo", 2, {}).on_exception(SimpleNamespace(), SimpleNamespace(), ValueError())


def test_a_line_says_how_long_it_takes_yet():
    first, *_, last = lines_of(10)
    assert first.endswith("2/10  KL 0.125  1 s, 4 s left")
    assert last.endswith("10/10  KL 1.12  5 s")


def test_tokens_per_second_are_of_all_updates_so_far():
    """8 responses of 5 tokens in each update, half a second each."""
    lines = lines_of(4, **{LENGTH: 5.0, EPISODES: 8.0})
    assert all("80 tokens/s" in line for line in lines)
    assert "tokens/s" not in lines_of(4)[0]


def test_a_terminal_has_a_bar_with_the_same_metrics():
    screen = "".join(lines_of(4, terminal=True, **{LENGTH: 5.0, EPISODES: 8.0}))
    for text in ("ppo", "4/4", "KL 0.375", "80 tokens/s", "\x1b["):
        assert text in screen
    assert "s left" not in screen


def test_a_training_that_goes_on_counts_from_where_it_was():
    lines = lines_of(10, before=8)
    assert lines[-1].split()[:2] == ["ppo", "10/10"]
    assert lines_of(100, before=50)[0].split()[1] == "60/100"


def test_a_measurement_shows_its_items_and_takes_no_time_of_the_training():
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=False)
    batches = [[1, 2], [3, 4], [5]]
    assert list(track_batches(batches, "evaluate", console, len)) == batches
    assert screen.getvalue().split()[:2] == ["evaluate", "5/5"]
    quiet = io.StringIO()
    console = Console(file=quiet, width=120, force_terminal=False)
    list(track_batches(batches, "evaluate", console, len, make_bar(console)))
    assert quiet.getvalue() == "", "within a training its metrics are the line"
    progress = StageProgress("ppo", 4, {}, console)
    trainer = SimpleNamespace(is_global_zero=True, fit_loop=SimpleNamespace(total_batch_idx=-1))
    progress.on_train_start(trainer, None)
    start = progress.start
    progress.on_validation_start(trainer, None)
    progress.on_validation_end(trainer, None)
    assert progress.start == start + 0.5


def test_a_long_measurement_says_how_long_it_takes_yet():
    screen = io.StringIO()
    list(track_batches([[0]] * 50, "evaluate", Console(file=screen, width=120, force_terminal=False), len))
    lines = screen.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert "s left" in lines[0]
    assert "left" not in lines[-1]


CPU = torch.device("cpu")


def texts(*lengths: int) -> PackedTokens:
    return PackedTokens.of([[1] * length for length in lengths])


def model() -> nn.Module:
    """10 rows that are looked up, and 12 weights that tokens are multiplied with."""
    return nn.Sequential(nn.Embedding(10, 3), nn.Linear(3, 4, bias=False))


def test_packed_texts_are_counted_by_token():
    speed = Throughput()
    for batch in (texts(3, 5), SimpleNamespace(tokens=texts(4))):
        speed.add(model(), batch)
    assert speed.metrics(2.0, CPU, "32-true", 1) == {"perf/tokens_per_second": 6.0, "perf/samples_per_second": 1.5}
    assert speed.local.flops == 6 * 12 * 12
    assert speed.rate(2.0) is None, "other processes have texts too"


def test_responses_are_counted_by_the_history():
    """Of the second update: 8 responses of 2.5 tokens, to 2 prompts of 3 tokens each."""
    speed, module = Throughput(), model()
    module.history = [{LENGTH: 9.0, EPISODES: 8.0}, {LENGTH: 2.5, EPISODES: 16.0}]
    module.settings = SimpleNamespace(epochs=2)
    prompts = Prompts(
        prompts=["a", "b"], prompt_ids=torch.ones(2, 3, dtype=torch.long), prompt_mask=torch.ones(2, 3, dtype=torch.long),
        group=torch.arange(2),
    )  # fmt: skip
    speed.add(module, prompts)
    assert speed.metrics(4.0, CPU, "32-true", 1) == {"perf/tokens_per_second": 5.0, "perf/samples_per_second": 2.0}
    assert speed.rate(4.0) == 5.0
    assert speed.total.flops == 12 * (20 + 8 * 3) * (3 * 2 + 2 * 6)


def test_the_share_of_a_known_device_s_peak(monkeypatch):
    speed = Throughput()
    speed.total.tokens, speed.total.flops = 1.0, 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch, "tensor", lambda *values, **rest: torch.zeros(3))
    found = speed.metrics(4.0, torch.device("cuda", 0), "bf16-mixed", 2)
    assert found["perf/mfu"] == pytest.approx(1 / 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an unknown one")
    assert "perf/mfu" not in speed.metrics(4.0, torch.device("cuda", 0), "bf16-mixed", 2)


@pytest.mark.parametrize("history", [[], [{"loss": 1.0}], [{LENGTH: 3.0}]])
def test_a_history_that_says_nothing_counts_nothing(history):
    assert last_responses(history) == (0.0, 0.0)
    speed = Throughput()
    speed.add(SimpleNamespace(history=history), None)
    assert speed.metrics(1.0, CPU, "32-true", 1) == {}


@pytest.mark.parametrize(("stage", "log"), [("sft", "sft"), ("ppo", "ppo")])
def test_speeds_are_logged_and_stand_on_the_page_and_not_in_the_curves(command, world, stage, log):
    outcome = command(*getattr(world, stage)("logger=csv"))
    assert outcome.code == 0, outcome.error
    with (outcome.folder / "logs" / log / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = [float(row["perf/tokens_per_second"]) for row in rows if row["perf/tokens_per_second"]]
    assert said
    assert min(said) > 0
    assert len({row["step"] for row in rows}) == len(rows), "speeds stand in the row of their step"
    assert "tokens a second" in (outcome.folder / "report.html").read_text()
    assert "tokens a second" not in outcome.out
