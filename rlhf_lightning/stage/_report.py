"""The report of a stage as page, JSON and terminal table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.config.yaml_dump import to_yaml
from rlhf_lightning.model.card import FILE
from rlhf_lightning.runtime.run import Run


def write_report(run: Run, title: str, results: Mapping[str, float], **parts: Any) -> None:
    """Write report.html and report.json into the run's folder and print the table; only on rank 0.

    Args:
        results: metrics by name, for the table of a sweep.
        parts: what Report takes beyond title, command, seed, configuration, seconds and versions.
    """
    if not run.is_rank_zero:
        return
    from rlhf_lightning.report.page import write_page
    from rlhf_lightning.report.report import Report, StageTime
    from rlhf_lightning.report.terminal import print_report

    tables = [*parts.pop("tables", []), *speed_tables(run.speeds)]
    endings = [f"{name} {ending}" for name, ending in run.endings.items() if ending.is_early]
    endings += [
        f"{name}: the weights after step {best['step']} of {run.endings[name].planned} are kept, by {best['metric']} {best['value']:.4g}"
        for name, best in run.best.items()
    ]
    report = Report(
        title=title,
        command=["train.py", *without_secrets(sys.argv[1:])],
        seed=run.seed,
        config_yaml=to_yaml(without_secrets(run.config)),
        finished=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        seconds=[StageTime(stage, seconds) for stage, seconds in run.seconds.items()],
        versions={name: version(name) for name in ("torch", "lightning", "transformers", "hydra-core")},
        tables=tables,
        notes=[*endings, *parts.pop("notes", [])],
        **parts,
    )
    page = run.folder / "report.html"
    write_page(report, page)
    run.results = dict(results)
    if run.card is not None and run.model_folder is not None:
        write_atomic(run.model_folder / FILE, run.card())
    print_report(report, page, run.console)
    run.publish(report.samples, page, run.results)


def speed_tables(speeds: Mapping[str, Mapping[str, float]]) -> list[Any]:
    """The table of each training's speed, for the page only; none without a training."""
    from rlhf_lightning.report.report import Table
    from rlhf_lightning.tracking.throughput import PREFIX

    names = {"tokens a second": "tokens_per_second", "samples a second": "samples_per_second", "MFU": "mfu"}
    columns = {head: name for head, name in names.items() if any(PREFIX + name in speed for speed in speeds.values())}
    rows: list[list[str | float | None]] = [
        [stage, *(speed.get(PREFIX + name) for name in columns.values())] for stage, speed in speeds.items()
    ]
    note = "means of each training; of PPO the tokens of the responses, else those of all texts"
    table = Table(title="Speed", heads=["training", *columns], rows=rows, part="Speed", note=note, in_terminal=False)
    return [table] if rows else []
