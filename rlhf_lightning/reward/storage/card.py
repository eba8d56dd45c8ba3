"""The model card (README.md) of a reward model; names from data or files are inert code spans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from rlhf_lightning.config.display import markdown, markdown_code
from rlhf_lightning.config.model_files import read_json_object
from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.model.card import bullets, metric_cells, metric_table, render_card, table

FAMILY = {"decoder": "decoder-only", "encoder": "encoder", "encoder_decoder": "encoder-decoder"}
LAYOUT = {
    "decoder": "The prompt, the response and the end-of-text token are one row; special-token strings in texts are read as plain text.",
    "encoder": "Prompt and response stand in the tokenizer's template for pairs; special-token strings in texts are read as plain text.",
    "encoder_decoder": "The encoder reads the prompt, the decoder the response; special-token strings in texts are read as plain text.",
}
PIPELINE = """\
    from transformers import pipeline

    score = pipeline("text-classification", model="THIS_FOLDER", function_to_apply="none")
    score("A prompt" + "A response")

or `vllm serve THIS_FOLDER --runner pooling`, and POST /classify. The tokenizer adds the end-of-text. A chat is rendered by
`apply_chat_template(..., tokenize=False)` first; a classifier of an encoder takes `{{"text": prompt, "text_pair": response}}`.

The score is raw: the one that PPO uses is (score - {mean:.6g}) / {deviation:.6g}.
"""


def model_card(metadata: Mapping[str, Any], kind: str) -> str:
    """Write the card of a reward model.

    Args:
        metadata: the content of reward_model.json. Optional keys: head, pooling, tuning, backbone, losses; judgements (a count by kind),
            sources (a count by data set); metrics (by name a number, or mean, low, high and n); held_out_note. Metrics named length/... are
            limits.
        kind: of the trunk: decoder, encoder, encoder_decoder.
    """
    return render_card(
        "A reward model",
        {
            "": _model(metadata, kind),
            "How to load it": _loading(metadata),
            "Training data": _data(metadata),
            "Metrics on held-out feedback": _metrics(metadata),
            "Limits": _limits(metadata),
        },
        task="text-classification",
        tags=["reward-model", "rlhf"],
        data="feedback",
    )


def _model(metadata: Mapping[str, Any], kind: str) -> str:
    backbone = f", from {markdown_code(str(metadata['backbone']))}" if metadata.get("backbone") else ""
    lines = [f"trunk: {FAMILY.get(kind) or markdown(kind)}{backbone}"]
    if metadata.get("net") == "classifier":
        lines.append("head: that of the transformers classifier it started from")
    else:
        lines += [f"{name}: {markdown(str(metadata[name]))}" for name in ("pooling", "head") if name in metadata]
    lines += [f"tuning: {markdown(str(metadata['tuning']))}"] if metadata.get("tuning") else []
    lines += [f"losses: {', '.join(map(markdown, map(str, metadata['losses'])))}"] if metadata.get("losses") else []
    score = "It scores a response to a prompt: higher is better. Scores have mean 0 and variance 1 on its training responses."
    return f"{score} {LAYOUT.get(kind, '')}\n\n" + bullets(lines)


def _loading(metadata: Mapping[str, Any]) -> str:
    usage = (
        "    from rlhf_lightning.reward.storage.folder import load_reward_model\n\n"
        '    model = load_reward_model("THIS_FOLDER_OR_HUB_NAME").eval()\n'
        '    model.score_texts(["A prompt"], ["A response"])\n\n'
        "or `rollout_scorer=reward_model rollout_scorer.reward_model.path=THIS_FOLDER` in a command of rlhf_lightning.\n"
    )
    if metadata.get("exports") == "pipeline":
        return PIPELINE.format(mean=metadata["mean"], deviation=metadata["deviation"])
    if metadata.get("exports") == "classifier":
        return usage + (
            "\nPlain transformers loads it as `AutoModelForSequenceClassification` (num_labels=1). Its logit is the raw score: the\n"
            f"normalised one is (logit - {metadata['mean']:.6g}) / {metadata['deviation']:.6g}.\n"
        )
    return usage + (
        "\nPlain transformers loads the trunk alone, as `AutoModel`; pooling and head are in reward_head.safetensors.\n"
        "Its classifiers can't hold this head: they pool otherwise, or have layers before the last one.\n"
    )


def _data(metadata: Mapping[str, Any]) -> str:
    tables = [
        table(("name", "judgements"), [(markdown(str(key)), int(count)) for key, count in sorted(metadata[name].items())])
        for name in ("judgements", "sources")
        if metadata.get(name)
    ]
    return "\n".join(tables) or "It isn't recorded.\n"


def _metrics(metadata: Mapping[str, Any]) -> str:
    metrics = metadata.get("metrics") or {f"accuracy/{kind}": value for kind, value in (metadata.get("accuracy") or {}).items()}
    if not metrics:
        return "Nothing was measured.\n"
    verdict = metadata.get("verdict")
    judgement = f"{markdown(str(verdict)[:1].upper() + str(verdict)[1:])}.\n\n" if verdict else ""
    division = metadata.get("held_out_note") or "Held out by prompt: no prompt is in training and here."
    return judgement + metric_table(metrics) + f"\n{division[0].upper()}{division[1:].rstrip('.')}.\n"


def _limits(metadata: Mapping[str, Any]) -> str:
    limits = [f"A text of more than {metadata['max_length']} tokens loses the beginning of its prompt, then the end of its response."]
    length = (metadata.get("metrics") or {}).get("length/spearman")
    if length is None:
        limits.append("Its dependence on the response's length was not measured.")
    else:
        limits.append(f"Rank correlation of the score with the response's length: {metric_cells(length)[0]}.")
    limits.append("It has seen the languages, topics and tastes of its feedback, and was measured on no others.")
    limits.append("A policy that is tuned against it exploits its errors: keep a KL penalty, and look at samples.")
    return bullets(limits)


Number = Annotated[float, pydantic.Field(strict=True, allow_inf_nan=False)]
DIVERGED = "the reward model diverged in its training: train it again with a lower reward.learning_rate, or take an earlier one"


class CanaryText(pydantic.BaseModel):
    """A text with its score at the time of saving."""

    prompt: str | list[Message]
    response: str
    score: Number


class ScoreCard(pydantic.BaseModel):
    """Normalisation constants, head and pooling with their settings; metrics as extra keys."""

    model_config = pydantic.ConfigDict(extra="allow")

    mean: Number
    deviation: Annotated[Number, pydantic.Field(gt=0)]
    max_length: Annotated[int, pydantic.Field(strict=True, gt=0)]
    net: Literal["classifier"] | None = None
    head: str | None = None
    head_settings: dict[str, Any] = {}
    pooling: str | None = None
    pooling_settings: dict[str, Any] = {}
    aspects: list[str | None] = [None]
    canary: list[CanaryText] = []


def read_card(file: Path) -> dict[str, Any]:
    """Read a reward model's card. Raises DataError: not a JSON object, or its head isn't a name."""
    card = read_json_object(file)
    if not isinstance(card.get("head", ""), str):
        raise DataError(f"{file}: head must be the name of a reward_head, and is {card['head']!r}")
    return card


def check_card(card: dict[str, Any], file: Path) -> None:
    """Validate a card.

    Raises:
        DataError: a key is missing or of a wrong type; numbers that aren't finite are reported as a diverged training.
    """
    try:
        checked = ScoreCard.model_validate(card)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        cause = f"; {DIVERGED}" if first["type"] == "finite_number" else "; copy or save the complete folder again"
        raise DataError(f"{file}: {key}: {first['msg']}{cause}") from None
    missing = [name for name in ("head", "pooling") if checked.net is None and getattr(checked, name) is None]
    if missing:
        raise DataError(f"{file} has no key {missing[0]!r}; copy or save the complete folder again")
