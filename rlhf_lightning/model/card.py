"""Model cards (README.md), in which names from data or files are inert code spans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_lightning.config.display import markdown

FILE = "README.md"
LICENCE = "Unknown: it depends on the licences of the base model and of the {data}, which this program doesn't know.\n"


def render_card(title: str, sections: Mapping[str, str], *, task: str, tags: Sequence[str], data: str) -> str:
    """Write a card.

    Args:
        sections: Markdown by heading; the text under "" comes first.
        task: the Hub's name of what the model does. data: what it was trained on, for the licence.
    """
    from huggingface_hub import ModelCardData

    head = ModelCardData(library_name="rlhf_lightning", pipeline_tag=task, license="unknown", tags=list(tags))
    parts = [f"---\n{head.to_yaml()}\n---\n", f"# {title}\n"]
    for heading, text in {**sections, "Licence": LICENCE.format(data=data)}.items():
        parts += [*([f"## {heading}\n"] if heading else []), text]
    return "\n".join(parts)


def bullets(items: Iterable[str]) -> str:
    """A list of Markdown items."""
    return "".join(f"- {item}\n" for item in items)


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """A Markdown table of cells that are Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def metric_table(metrics: Mapping[str, Any]) -> str:
    """A table of metrics by name: numbers, or mappings of mean, low, high and n."""
    return table(("metric", "value", "95 % interval", "n"), [(markdown(name), *metric_cells(value)) for name, value in metrics.items()])


def metric_cells(value: Any) -> tuple[str, str, str]:
    """Value, interval and number of observations of a metric."""
    if not isinstance(value, Mapping):
        return f"{float(value):.3f}", "", ""
    low, high = float(value.get("low", math.nan)), float(value.get("high", math.nan))
    interval = f"{low:.3f} to {high:.3f}" if math.isfinite(low) and math.isfinite(high) else ""
    n = value.get("n")
    return f"{float(value['mean']):.3f}", interval, str(n) if isinstance(n, int) else ""
