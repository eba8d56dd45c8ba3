"""Descriptions of options and settings in the shell completion of fish."""

from __future__ import annotations

import os

from hydra._internal.core_plugins.fish_completion import FishCompletion

from rlhf_lightning.cli.help import searchable
from rlhf_lightning.registry import section_class, section_names

LONGEST = 80
"""Characters of a description next to a candidate."""


def add_descriptions() -> None:
    """Add descriptions to the candidates of Hydra's completion for fish."""
    setattr(FishCompletion, "query", print_candidates)  # Hydra accepts one plugin for each shell


def print_candidates(completion: FishCompletion, config_name: str | None) -> None:
    """Print the candidates for the command line in COMP_LINE with their descriptions."""
    line = completion.strip_python_or_app_name(os.environ["COMP_LINE"])
    descriptions = {key.partition(" ")[0].removesuffix("..."): text for key, text in searchable()}
    descriptions |= {f"{name}.": (section_class(name).__doc__ or "").split("\n")[0] for name in section_names()}
    for candidate in completion._query(config_name=config_name, line=line):
        text = descriptions.get(candidate, descriptions.get(candidate.removesuffix("="), ""))
        print(f"{candidate}\t{text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}" if text else candidate)
