"""Model cards, and the Hub that models are pushed to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.config.display import markdown
from rlhf_lightning.errors import ConfigError, UserError

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


def check_push(name: Any) -> None:
    """Check the setting `push` before anything is trained.

    Raises:
        ConfigError: not a name on the Hub, the Hub is switched off, or no token is stored.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except (HFValidationError, TypeError) as cause:
        raise ConfigError(f"push={name}: give a name on the Hub, as in push=you/my-policy: {str(cause).splitlines()[0]}") from None
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"push={name} needs the Hub, which HF_HUB_OFFLINE=1 switches off: unset it, or leave push out")
    if not get_token():
        raise ConfigError(f"push={name} needs a token that may write: run `hf auth login`, or set HF_TOKEN")


def push_folder(folder: Path, name: str, *, private: bool = True, **options: Any) -> str:
    """Create a repository on the Hub, unless it exists, and upload a folder; returns its address.

    Args:
        options: of huggingface_hub.HfApi.create_repo, such as `token`.

    Raises:
        UserError: the Hub can't be reached or refuses, or the repository exists and is public; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=options.get("token"))
    try:
        name = api.create_repo(name, private=private, exist_ok=True, **options).repo_id
        if private and not api.repo_info(name).private:
            raise UserError(f"push={name}: a repository of this name exists and is public, and nothing was uploaded: choose another name")
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except UserError:
        raise
    except Exception as cause:  # of the Hub, the network or the disk, in many classes
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(
            f"push={name} failed: {reason}; the model is complete in {folder}: upload it by `hf upload {name} {folder} . --private`"
        ) from cause
