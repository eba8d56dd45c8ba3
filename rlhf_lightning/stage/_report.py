"""The report of a stage as page, JSON and terminal table, and the card of a trained policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rlhf_lightning.checkpoint.run_record import flatten, library_versions
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import markdown, markdown_code, without_secrets
from rlhf_lightning.config.yaml_dump import to_yaml
from rlhf_lightning.model.card import FILE, bullets, metric_table, render_card, table
from rlhf_lightning.registry import GROUPS, component_of
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    import lightning as L

    from rlhf_lightning.model.language_model import LanguageModel


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
    from rlhf_lightning.tracking.progress import PREFIX

    names = {"tokens a second": "tokens_per_second", "samples a second": "samples_per_second", "MFU": "mfu"}
    columns = {head: name for head, name in names.items() if any(PREFIX + name in speed for speed in speeds.values())}
    rows: list[list[str | float | None]] = [
        [stage, *(speed.get(PREFIX + name) for name in columns.values())] for stage, speed in speeds.items()
    ]
    note = "means of each training; of PPO the tokens of the responses, else those of all texts"
    table = Table(title="Speed", heads=["training", *columns], rows=rows, part="Speed", note=note, in_terminal=False)
    return [table] if rows else []


SECTIONS = {"sft": ["sft"], "ppo": ["ppo"], "preference": ["preference"], "rounds": ["sft", "reward", "ppo"]}
"""Sections of the configuration with the settings of a stage's trainings."""
FILES = ("path", "prompts", "demonstrations")
"""Settings of a task or source with names of files."""
LOADING = """\
    from transformers import {auto}, AutoTokenizer

    model = {auto}.from_pretrained("THIS_FOLDER_OR_HUB_NAME")
    tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER_OR_HUB_NAME")

or `rlhf-lightning chat THIS_FOLDER` in a terminal.
"""


def save_policy(run: Run, trainer: L.Trainer, folder: Path, policy: LanguageModel) -> None:
    """Save a trained policy with its card, to which `write_report` adds the metrics."""
    card = set_policy_card(run, policy)
    run.save(trainer, folder, lambda target: policy.save(target, card()))


def set_policy_card(run: Run, policy: LanguageModel) -> Callable[[], str]:
    """Make a policy's card the one that `write_report` completes; returns its writer."""
    kind = "AutoModelForCausalLM" if policy.decoder_prefix is None else "AutoModelForSeq2SeqLM"
    run.card = lambda: policy_card(run, kind)
    return run.card


def policy_card(run: Run, auto_class: str) -> str:
    """Write the card of a policy from its run's configuration and metrics.

    Args:
        auto_class: the class of transformers that loads it.
    """
    stage = run.component_of("stage").name
    backbone = _settings(run, "backbone")
    path = str(backbone.get("path") or "")
    # Local paths are shown by their last part.
    base = markdown_code(Path(path).name if Path(path).exists() else path) if path else "a model made from a config"
    family = "encoder-decoder" if "Seq2Seq" in auto_class else "decoder-only"
    facts = [f"model: {family}, from {base}", f"training: stage {markdown(stage)}, seed {run.seed}"]
    facts += [f"tuning: {markdown(run.component_of('policy_tuning').name)}"] if run.config.get("policy_tuning") else []
    names = SECTIONS.get(stage, [stage])
    rows = [(markdown(name), markdown(str(value))) for part in names for name, value in flatten(_settings(run, part), part)]
    return render_card(
        "A policy",
        {
            "": "A language model tuned on human feedback.\n\n" + bullets(facts),
            "How to load it": LOADING.format(auto=auto_class),
            "Training data": bullets(_data(run)),
            "Settings": table(("setting", "value"), [*_options(run), *rows]),
            "Metrics": metric_table(run.results) if run.results else "Nothing was measured.\n",
            "Versions": bullets(f"{name} {markdown(number)}" for name, number in library_versions().items()),
            "Limits": bullets(
                [
                    "It has learned the tastes and errors of its feedback, and was measured on no other topics and languages.",
                    "Its statements may be wrong, and it may have learned to please its scorer: look at samples.",
                ]
            ),
        },
        task="text-generation",
        tags=["policy", "rlhf"],
        data="training data",
    )


def _settings(run: Run, name: str) -> Any:
    """A section or an option of a run, with its references resolved and without secrets."""
    node = run.config.get(name)
    return without_secrets(OmegaConf.to_container(node, resolve=True)) if node else {}


def _data(run: Run) -> list[str]:
    """The task, and the sources of feedback, with the names of their files."""
    sources = run.config.get("feedback_source") or {}
    nodes = [("task", run.config.get("task"))] + [(f"feedback {name}", node) for name, node in sources.items()]
    lines = []
    for part, node in nodes:
        paths = [value for name, value in flatten(without_secrets(node)) if value and name.split(".")[-1] in FILES] if node else []
        files = [Path(str(item)).name for value in paths for item in (value if isinstance(value, list) else [value])]
        listed = ", ".join(markdown_code(file) for file in dict.fromkeys(files))
        kind = component_of(node).name if node else "none"
        lines.append(f"{markdown(part)}: {markdown(kind)}{f' of {listed}' if listed else ''}")
    return lines


def _options(run: Run) -> list[tuple[str, str]]:
    """The chosen options of the groups of a policy's training."""
    groups = [group for group in GROUPS if group.startswith(("policy_", "rollout_", "advantage", "preference_"))]
    return [(group, ", ".join(markdown(c.name) for c in run.components_of(group))) for group in groups if run.config.get(group)]
