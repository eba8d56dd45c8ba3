"""stage=plan: memory and time of a job before it is started."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlhf_lightning.registry import option, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._input_check import check_inputs as check_inputs

if TYPE_CHECKING:
    from rlhf_lightning.plan.device import Device
    from rlhf_lightning.plan.phases import ByteRange, Plan
    from rlhf_lightning.report.report import Cells, Metric, Table

MIB, GIB = 2**20, 2**30


def check_combination(choices: ComposedConfig) -> None:
    """Run the checks of the planned job itself. Raises ConfigError."""
    check = option("stage", choices.settings("plan").job).check
    if check is not None:
        check(choices)


@register("stage", "plan", check=check_combination, needs=["elsewhere"])
def plan(run: Run) -> float:
    """Plan memory and time of plan.job on plan.device; returns the upper bound of the peak in GiB.

    Nothing is trained, and of a model's folder or Hub name only the config and the tokenizer are read. Activations are counted in a
    rehearsal of the training's own code on fake tensors, with the batches of the job. plan.json holds all numbers.
    """
    from rlhf_lightning.plan.device import bytes_after_imports, device_named
    from rlhf_lightning.stage._planned_run import Inputs, PlannedRun
    from rlhf_lightning.stage._report import write_report
    from rlhf_lightning.stage._switches import memory_switches
    from rlhf_lightning.training.trainer import device_kind

    settings = run.settings("plan")
    base = bytes_after_imports()
    rehearse = importlib.import_module(option("stage", settings.job).target.__module__).rehearse
    with run.time_stage("plan"):
        device = device_named(settings.device, device_kind(run.config.trainer.get("accelerator", "auto")))
        planned = PlannedRun(run.config, Inputs(run), device, base)
        job: Plan = rehearse(planned)
        switches = memory_switches(planned) if settings.switches else {}
        others: dict[str, Plan] = {words: rehearse(planned.with_changes(changes)) for words, changes in switches.items()}
    run.write_json("plan.json", as_json(job, others, device))
    write_report(
        run,
        f"Plan of stage={settings.job} on {device.name}",
        metrics=plan_metrics(job, device),
        tables=[models_table(job), phases_table(job), *([switches_table(job, others, device)] if others else [])],
        notes=list(dict.fromkeys(planned.notes)),
        results={"peak_low": job.peak.low / GIB, "peak": job.peak.high / GIB},
    )
    return job.peak.high / GIB


def verdict(job: Plan, device: Device) -> str:
    """Compare the peak with a GPU's memory, or that of all processes with this machine's."""
    processes = job.setup.world_size if device.host else 1
    if job.peak.high * processes <= device.memory:
        return "it fits"
    return "it may fit" if job.peak.low * processes <= device.memory else "it does NOT fit"


def plan_metrics(job: Plan, device: Device) -> list[Metric]:
    """The peak, the device's memory, and the duration of an update."""
    from rlhf_lightning.report.report import Metric

    processes = "a process" if job.setup.world_size == 1 else f"a process, of {job.setup.world_size}"
    fits = verdict(job, device)
    generation = Metric(label="Share of generation in it", after=job.generation_fraction, unit="%", better=None)
    return [
        Metric(label=f"Peak of {processes}, at least", after=job.peak.low / GIB, unit="GiB", better=None),
        Metric(label=f"Peak of {processes}, at most", after=job.peak.high / GIB, unit="GiB", better=None, note=f"{fits} on {device.name}"),
        Metric(label="of that before any model", after=job.base.low / GIB, unit="GiB", better=None, headline=False),
        Metric(label=f"Memory of {device.name}: {fits}", after=device.memory / GIB, unit="GiB", better=None),
        Metric(label="An update, estimated", after=job.update_seconds, unit="s", better=None),
        *([generation] if job.generation_fraction else []),
    ]


def memory_unit(job: Plan) -> tuple[str, float]:
    """Name and bytes of the unit of a plan's tables."""
    return ("GiB", GIB) if job.peak.high > 16 * GIB else ("MiB", MIB)


def show_range(peak: ByteRange, unit: float) -> str:
    """A range in a unit, as "812 to 1,030"."""
    digits = 1 if unit == GIB else 0
    return f"{peak.low / unit:,.{digits}f} to {peak.high / unit:,.{digits}f}"


def models_table(job: Plan) -> Table:
    """Permanent memory of each model."""
    from rlhf_lightning.report.report import Table

    name, unit = memory_unit(job)
    rows: list[Cells] = [
        [part.role, f"{part.parameters:,}", f"{part.trained:,}", part.weights / unit, part.gradients / unit, part.optimiser / unit]
        for part in job.parts
    ]
    heads = ["model", "parameters", "trained", f"weights {name}", "gradients", "optimiser"]
    return Table(title="Models, in each process", heads=heads, rows=rows, part="Memory")


def phases_table(job: Plan) -> Table:
    """The largest passes of each phase, and its peak."""
    from rlhf_lightning.plan.passes import PassMemory
    from rlhf_lightning.report.report import Table

    name, unit = memory_unit(job)
    rows: list[Cells] = []
    for phase in job.phases:
        for role, memory in (phase.passes or {"": PassMemory()}).items():
            parts = [memory.activations, memory.logits, memory.cache, memory.temporary]
            sizes: Cells = [part / unit if part else None for part in parts]
            rows.append([phase.name, role, phase.resident / unit, *sizes, show_range(job.peak_of(phase), unit), phase.seconds or None])
    heads = ["phase", "pass of", f"resident {name}", "activations", "logits", "KV cache", "temporary", "peak", "seconds"]
    note = "peak: of a process, from the living tensors and Python itself to the most that its allocator may keep"
    return Table(title="Phases, in each process", heads=heads, rows=rows, part="Memory", note=note)


def switches_table(job: Plan, others: Mapping[str, Plan], device: Device) -> Table:
    """The same job with one setting changed."""
    from rlhf_lightning.report.report import Table

    name, unit = memory_unit(job)
    rows: list[Cells] = [
        [
            words,
            show_range(other.peak, unit),
            f"{other.peak.high / job.peak.high - 1:+.0%}",
            verdict(other, device).removeprefix("it "),
            other.update_seconds,
        ]
        for words, other in sorted(others.items(), key=lambda pair: pair[1].peak.high)
    ]
    heads = ["setting", f"peak {name}", "change", device.name, "seconds"]
    return Table(title="With one setting changed", heads=heads, rows=rows, part="Memory")


def as_json(job: Plan, others: Mapping[str, Plan], device: Device) -> dict[str, Any]:
    """The content of plan.json, in bytes and seconds."""
    return {
        "device": dataclasses.asdict(device),
        "setup": dataclasses.asdict(job.setup),
        "models": [dataclasses.asdict(part) for part in job.parts],
        "phases": [dataclasses.asdict(phase) | {"peak": job.peak_of(phase)._asdict()} for phase in job.phases],
        "base": job.base._asdict(),
        **_summary(job, device),
        "generation_fraction": job.generation_fraction,
        "switches": {words: _summary(other, device) for words, other in others.items()},
    }


def _summary(job: Plan, device: Device) -> dict[str, Any]:
    return {"peak": job.peak._asdict(), "verdict": verdict(job, device), "seconds": job.update_seconds}
