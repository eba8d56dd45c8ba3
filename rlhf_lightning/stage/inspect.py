"""stage=inspect: measure the quality of feedback before training on it."""

from __future__ import annotations

import dataclasses

from rlhf_lightning.registry import register
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import load_feedback


@register("stage", "inspect")
def inspect(run: Run) -> float:
    """Clean feedback, show it in words and report its quality; returns the number of clean judgements.

    Writes feedback.jsonl, quality.json and the report.
    """
    from rlhf_lightning.feedback.balance import measure_balance
    from rlhf_lightning.feedback.quality.quality import measure_quality
    from rlhf_lightning.report.feedback import balance_tables, cleaning_table, quality_curves, quality_metrics, quality_tables
    from rlhf_lightning.report.policy import feedback_counts
    from rlhf_lightning.stage._report import write_report

    with run.time_stage("read"):
        intake = load_feedback(run)
    with run.time_stage("measure"):
        quality = measure_quality(intake.feedback)
        balance = measure_balance(intake.feedback)
    for kind, texts in balance.examples.items():
        for text in texts:
            run.log(f"{kind}: {text}")
    count = sum(intake.remaining.values())
    run.write_json("quality.json", dataclasses.asdict(quality))
    write_report(
        run,
        "Quality of the feedback",
        metrics=quality_metrics(quality),
        curves=quality_curves(quality),
        feedback=feedback_counts(intake),
        tables=[*balance_tables(balance), cleaning_table(intake), *quality_tables(quality)],
        notes=[*intake.notes, *quality.lines()],
        results={"collected": float(intake.collected.total()), "kept": float(count)},
    )
    run.log(f"clean feedback: {run.folder / 'feedback.jsonl'}")
    return float(count)
