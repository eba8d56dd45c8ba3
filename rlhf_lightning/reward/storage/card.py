"""The README.md of a reward model's folder, its model card. Names that come from data or files are code spans: nothing in them acts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlhf_lightning.config.display import markdown, markdown_code

HEAD_MATTER = """---
library_name: rlhf_lightning
pipeline_tag: text-classification
license: unknown
tags:
- reward-model
- rlhf
---
"""
FAMILY = {"decoder": "decoder-only", "encoder": "encoder", "encoder_decoder": "encoder-decoder"}
READS = {
    "decoder": "The prompt, the response and the end-of-text token are one row; special-token strings in texts are read as plain text.",
    "encoder": "Prompt and response stand in the tokenizer's template for pairs; special-token strings in texts are read as plain text.",
    "encoder_decoder": "The encoder reads the prompt, the decoder the response; special-token strings in texts are read as plain text.",
}


def readme(about: Mapping[str, Any], kind: str) -> str:
    """The card of a reward model.

    Args:
        about: the content of reward_model.json. Read where there: head, pooling, tuning, backbone, losses; judgements (a count by kind),
            sources (a count by data set); metrics (by name a number, or mean, low, high and n); held_out_note; metrics named
            length/... as limits.
        kind: of the trunk: decoder, encoder, encoder_decoder.
    """
    parts = [
        HEAD_MATTER,
        "# A reward model\n",
        _what(about, kind),
        "## How to load it\n",
        _how(about),
        "## What it learned from\n",
        _data(about),
        "## On feedback that it had not seen\n",
        _metrics(about),
        "## Limits\n",
        _limits(about),
        "## Licence\n",
        "Unknown: it depends on the licences of the model it started from and of the feedback, which this program doesn't know.\n",
    ]
    return "\n".join(parts)


def _what(about: Mapping[str, Any], kind: str) -> str:
    start = f", from {markdown_code(str(about['backbone']))}" if about.get("backbone") else ""
    made = [f"- trunk: {FAMILY.get(kind) or markdown(kind)}{start}"]
    if about.get("net") == "classifier":
        made.append("- head: that of the transformers classifier it started from")
    else:
        made += [f"- {name}: {markdown(str(about[name]))}" for name in ("pooling", "head") if name in about]
    made += [f"- tuning: {markdown(str(about['tuning']))}"] if about.get("tuning") else []
    made += [f"- losses: {', '.join(map(markdown, map(str, about['losses'])))}"] if about.get("losses") else []
    score = "It gives a response to a prompt a number: higher is better. Scores have mean 0 and variance 1 on its training responses."
    return f"{score} {READS.get(kind, '')}\n\n" + "\n".join(made) + "\n"


def _how(about: Mapping[str, Any]) -> str:
    own = (
        "    from rlhf_lightning.reward.model import RewardModel\n\n"
        '    model = RewardModel.from_pretrained("THIS_FOLDER_OR_HUB_NAME").eval()\n'
        '    model.score_texts(["A prompt"], ["A response"])\n\n'
        "or `rollout_scorer=reward_model rollout_scorer.path=THIS_FOLDER` in a command of rlhf_lightning.\n"
    )
    if about.get("exports") == "classifier":
        return own + (
            "\nPlain transformers loads it as `AutoModelForSequenceClassification` (num_labels=1). Its logit is the raw score: the\n"
            f"normalised one is (logit - {about['mean']:.6g}) / {about['deviation']:.6g}.\n"
        )
    return own + (
        "\nPlain transformers loads the trunk alone, as `AutoModel`; pooling and head are in reward_head.safetensors.\n"
        "Its classifiers can't hold this head: they pool otherwise, or put layers of their own before the last one.\n"
    )


def _data(about: Mapping[str, Any]) -> str:
    tables = [
        _table(("what", "judgements"), [(markdown(str(what)), int(count)) for what, count in sorted(about[name].items())])
        for name in ("judgements", "sources")
        if about.get(name)
    ]
    return "\n".join(tables) or "It isn't recorded.\n"


def _metrics(about: Mapping[str, Any]) -> str:
    metrics = about.get("metrics") or {f"accuracy/{kind}": value for kind, value in (about.get("accuracy") or {}).items()}
    rows = [(markdown(name), *_metric(value)) for name, value in metrics.items()]
    if not rows:
        return "Nothing was measured.\n"
    division = about.get("held_out_note") or "Held out by prompt: no prompt is in training and here."
    return _table(("metric", "value", "95 % interval", "n"), rows) + f"\n{division[0].upper()}{division[1:].rstrip('.')}.\n"


def _metric(value: Any) -> tuple[str, str, str]:
    if not isinstance(value, Mapping):
        return f"{float(value):.3f}", "", ""
    low, high = float(value.get("low", math.nan)), float(value.get("high", math.nan))
    known = math.isfinite(low) and math.isfinite(high)
    return (
        f"{float(value['mean']):.3f}",
        f"{low:.3f} to {high:.3f}" if known else "",
        _count(value.get("n")),
    )


def _count(items: Any) -> str:
    return str(items) if isinstance(items, int) else ""


def _limits(about: Mapping[str, Any]) -> str:
    said = [f"- A text of more than {about['max_length']} tokens loses the beginning of its prompt, then the end of its response."]
    metrics = about.get("metrics") or {}
    if "length/spearman" in metrics:
        said.append(f"- Rank correlation of the score with the response's length: {_metric(metrics['length/spearman'])[0]}.")
    else:
        said.append("- How far it goes by length was not measured.")
    said.append("- It knows the languages, topics and tastes of the feedback that it learned from, and was measured on no others.")
    said.append("- A policy that is tuned against it finds what it gets wrong: keep a KL penalty, and look at samples.")
    return "\n".join(said) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
