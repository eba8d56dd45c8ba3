"""stage=plan: what a job would take, before it is started."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rlhf_lightning.registry import option, register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.plan.device import Device
    from rlhf_lightning.plan.phases import Plan
    from rlhf_lightning.report.report import Metric, Table

MIB, GIB = 2**20, 2**30


def check_combination(choices: ComposedConfig) -> None:
    """Refuse what the planned job itself would refuse. Raises ConfigError."""
    check = option("stage", choices.settings("plan").job).check
    if check is not None:
        check(choices)


@register("stage", "plan", check=check_combination, needs=["elsewhere"])
def plan(run: Run) -> float:
    """Work out memory and time of a job (plan.job) on a device (plan.device) from configs alone; writes plan.json. Returns the peak in GiB.

    Nothing is trained, and of a model's folder or Hub name only the config and the tokenizer are read. What layers keep for their gradients
    is counted in a rehearsal of the training's own code on tensors without numbers, with the batches that the job would have.
    """
    from rlhf_lightning.plan.cache import PlanCache
    from rlhf_lightning.plan.device import device_named
    from rlhf_lightning.plan.process_memory import bytes_after_imports
    from rlhf_lightning.stage._planning import Planner
    from rlhf_lightning.stage._report import end
    from rlhf_lightning.training.trainer import kind_of

    settings = run.settings("plan")
    base = bytes_after_imports()
    with run.time_stage("plan"):
        device = device_named(settings.device, kind_of(run.config.trainer.get("accelerator", "auto")))
        planner = Planner(run, PlanCache(device), base)
        found = planner.plan(run)
        notes = list(planner.known.notes)  # those of the others are on other settings
        others = [(words, planner.plan(other)) for words, other in planner.switches()] if settings.switches else []
    run.write_json("plan.json", as_json(found, others, device))
    end(
        run,
        f"Plan of stage={settings.job} on {device.name}",
        metrics=plan_metrics(found, device),
        tables=[models_table(found), phases_table(found), *([switches_table(found, others, device)] if others else [])],
        notes=[*notes, *found.notes],
        results={"peak": found.peak / GIB},
    )
    return found.peak / GIB


def fits(found: Plan, device: Device) -> bool:
    """Whether all processes of this machine's memory, or one of a device, have room."""
    return found.peak * (found.setup.processes if device.host else 1) <= device.memory


def plan_metrics(found: Plan, device: Device) -> list[Metric]:
    """The peak, what there is, and what an update takes."""
    from rlhf_lightning.report.report import Metric

    processes = found.setup.processes
    what = f"Peak of a process{'' if processes == 1 else f', of {processes}'}"
    verdict = "it fits" if fits(found, device) else "it does NOT fit"
    share = Metric(label="Share of generation in it", after=found.generation_share, unit="%", better=None)
    return [
        Metric(label=what, after=found.peak / GIB, unit="GiB", better=None, note=f"{verdict} on {device.name}"),
        Metric(label="of that before any model", after=found.base / GIB, unit="GiB", better=None, headline=False),
        Metric(label=f"Memory of {device.name}: {verdict}", after=device.memory / GIB, unit="GiB", better=None),
        Metric(label="An update, estimated", after=found.update_seconds, unit="s", better=None),
        *([share] if found.generation_share else []),
    ]


def unit_of(found: Plan) -> tuple[str, float]:
    return ("GiB", GIB) if found.peak > 16 * GIB else ("MiB", MIB)


def models_table(found: Plan) -> Table:
    """What each model takes for as long as it is there."""
    from rlhf_lightning.report.report import Table

    name, unit = unit_of(found)
    rows: list[list[str | float | None]] = [
        [part.role, f"{part.parameters:,}", f"{part.trained:,}", part.weights / unit, part.gradients / unit, part.optimiser / unit]
        for part in found.parts
    ]
    heads = ["model", "parameters", "trained", f"weights {name}", "gradients", "optimiser"]
    return Table(title="Models, in each process", heads=heads, rows=rows, part="Memory")


def phases_table(found: Plan) -> Table:
    """The largest pass of each phase, and the peak."""
    from rlhf_lightning.plan.passes import PassMemory
    from rlhf_lightning.report.report import Table

    name, unit = unit_of(found)
    rows: list[list[str | float | None]] = []
    for phase in found.phases:
        for role, taken in (phase.taken or {"": PassMemory()}).items():
            parts = [taken.activations, taken.logits, taken.cache, taken.temporary]
            sizes: list[str | float | None] = [part / unit if part else None for part in parts]
            rows.append([phase.name, role, phase.resident / unit, *sizes, found.of(phase) / unit, phase.seconds or None])
    heads = ["phase", "pass of", f"resident {name}", "activations", "logits", "KV cache", "temporary", "peak", "seconds"]
    note = "the peak holds what a process has before any model, and what its allocator keeps"
    return Table(title="Phases, in each process", heads=heads, rows=rows, part="Memory", note=note)


def switches_table(found: Plan, others: list[tuple[str, Plan]], device: Device) -> Table:
    """What the same job would take with one setting changed."""
    from rlhf_lightning.report.report import Table

    name, unit = unit_of(found)
    rows: list[list[str | float | None]] = [
        [words, other.peak / unit, f"{other.peak / found.peak - 1:+.0%}", "yes" if fits(other, device) else "no", other.update_seconds]
        for words, other in sorted(others, key=lambda pair: pair[1].peak)
    ]
    return Table(title="With one setting changed", heads=["setting", f"peak {name}", "change", "fits", "seconds"], rows=rows, part="Memory")


def as_json(found: Plan, others: list[tuple[str, Plan]], device: Device) -> dict[str, Any]:
    """Bytes and seconds, as plan.json holds them."""
    phases = [dataclasses.asdict(phase) | {"peak": found.of(phase)} for phase in found.phases]
    return {
        "device": dataclasses.asdict(device),
        "setup": dataclasses.asdict(found.setup),
        "models": [dataclasses.asdict(part) for part in found.parts],
        "phases": phases,
        "base": found.base,
        "peak": found.peak,
        "fits": fits(found, device),
        "seconds": found.update_seconds,
        "generation_share": found.generation_share,
        "switches": {words: {"peak": other.peak, "fits": fits(other, device), "seconds": other.update_seconds} for words, other in others},
    }
