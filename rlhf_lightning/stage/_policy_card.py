"""The model card (README.md) of a policy, beside its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rlhf_lightning.checkpoint.run_record import flatten, library_versions
from rlhf_lightning.config.display import markdown, markdown_code
from rlhf_lightning.config.redaction import without_secrets
from rlhf_lightning.model.card import bullets, metric_table, render_card, table
from rlhf_lightning.registry import GROUPS, component_of
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    import lightning as L

    from rlhf_lightning.model.language_model import LanguageModel

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
