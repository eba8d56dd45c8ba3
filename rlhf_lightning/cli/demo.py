"""`rlhf-lightning demo collect`: the collection's page on the embedded task, without data or a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import make

FOLDER = Path("demo")
ITEMS = 40


def demo_args(args: Sequence[str]) -> list[str]:
    """Write the demo's items into demo/ and return the arguments of its command; others are appended.

    Raises:
        ConfigError: no demo of this name.
    """
    if list(args[:1]) != ["collect"]:
        raise ConfigError(f"no demo {' '.join(args[:1]) or 'without a name'}; there is: rlhf-lightning demo collect")
    texts: dict[str, list[str]] = {}
    for demonstration in make("task", "reviews", {}).demonstrations():
        responses = texts.setdefault(str(demonstration.prompt), [])
        if len(responses) < 2 and demonstration.response not in responses:
            responses.append(str(demonstration.response))
    rows = [{"prompt": prompt, "responses": responses} for prompt, responses in texts.items() if len(responses) == 2][:ITEMS]
    FOLDER.mkdir(exist_ok=True)
    write_atomic(FOLDER / "items.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["stage=collect", f"collect.items={FOLDER / 'items.jsonl'}", f"collect.database={FOLDER / 'collection.sqlite'}"]
    return [*command, "collect.annotators=[demo]", *args[1:]]
