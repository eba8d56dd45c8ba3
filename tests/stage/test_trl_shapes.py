"""Each shape of TRL's data sets trains by the overrides of the table in docs/howto/from_trl.md, plain and conversational."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "from_trl.md"
THINGS = ("lamp", "fan", "kettle", "tent", "desk", "rug")
if not PAGE.is_file():
    pytest.skip("docs/ is not shipped with the tests", allow_module_level=True)


def table() -> dict[str, list[str]]:
    """The overrides of each shape."""
    rows = re.findall(r"^\| (.+?) \| `.+` \| `(stage=.+)` \|$", PAGE.read_text(), re.MULTILINE)
    return {shape: shlex.split(overrides) for shape, overrides in rows}


def texts(shape: str) -> list[dict[str, Any]]:
    """Rows of texts of a shape."""
    rows: list[dict[str, Any]] = []
    for i, thing in enumerate(THINGS):
        prompt, good, bad = f"The {thing}:", f" a good {thing}.", f" bad, bad {thing}"
        rows.append(
            {
                "language modelling": {"text": prompt + good},
                "prompt-only": {"prompt": prompt, "answer": thing},
                "prompt-completion": {"prompt": prompt, "completion": good},
                "preference": {"prompt": prompt, "chosen": good, "rejected": bad},
                "preference, implicit prompt": {"chosen": f"{prompt}\n\nAssistant:{good}", "rejected": f"{prompt}\n\nAssistant:{bad}"},
                "unpaired preference": {"prompt": prompt, "completion": good if i % 2 else bad, "label": bool(i % 2)},
                "stepwise supervision": {"prompt": prompt, "completions": [good, bad], "labels": [True, False]},
            }[shape]
        )
    return rows


def chats(shape: str) -> list[dict[str, Any]]:
    """The same rows as conversations."""
    if shape == "language modelling, conversational":
        turns = [[("user", f"The {thing}:"), ("assistant", "Good."), ("user", "Why?"), ("assistant", "So.")] for thing in THINGS]
        return [{"messages": [{"role": role, "content": content} for role, content in row]} for row in turns]
    rows = []
    for row in texts(shape):
        question = [{"role": "user", "content": row.get("prompt", "Hm?")}]
        answers = {name: [{"role": "assistant", "content": row[name]}] for name in ("completion", "chosen", "rejected") if name in row}
        if shape == "preference, implicit prompt":
            question = [{"role": "user", "content": row["chosen"].partition("\n")[0]}]
            answers = {name: [*question, {"role": "assistant", "content": row[name].rpartition(":")[2]}] for name in answers}
            rows.append(answers)
        else:
            rows.append(row | {"prompt": question} | answers)
    return rows


ONLY = {"language modelling": "text", "language modelling, conversational": "chat", "stepwise supervision": "text"}
CASES = [(shape, kind) for shape in table() for kind in ("text", "chat") if ONLY.get(shape, kind) == kind]


def test_the_table_has_all_shapes():
    assert len(table()) == 8
    assert len(CASES) == 13


@pytest.mark.parametrize(("shape", "kind"), CASES)
def test_a_shape_trains(command, world, tmp_path, shape, kind):
    file = tmp_path / "data.jsonl"
    rows = texts(shape) if kind == "text" else chats(shape)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = [word.replace("DATA", str(file)) for word in table()[shape]]
    scorer = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}", "ppo.updates=1"]
    outcome = command(*overrides, *world.trained, *world.sizes, *(scorer if "stage=ppo" in overrides else []), folder=tmp_path / "run")
    assert outcome.code == 0, outcome.error
    left = "reward_model" if "stage=reward" in overrides else "policy"
    assert (tmp_path / "run" / left).is_dir()
    if kind == "chat" and left == "policy":
        template = tmp_path / "run" / "policy" / "chat_template.jinja"
        assert "Assistant:" in template.read_text(), "the default template goes with the policy"
    if kind == "chat" and "stage=ppo" in overrides:
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert all(re.fullmatch(r"User: The \w+:\nAssistant:", sample["prompt"]) for sample in report["samples"])
