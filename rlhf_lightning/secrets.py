"""Secrets stay out of what a run writes."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import OmegaConf

LEFT_OUT = "***"
_NAMED = re.compile(r"(?i)(key|token|password|secret)$")
_ASSIGNED = re.compile(r"(?i)((?:key|token|password|secret)=)(?!\$\{|null$).+")
_IN_ADDRESS = re.compile(r"(://[^/\s:@]+:)[^/\s@]+(?=@)")


def without_secret(text: str) -> str:
    """A word of a command or an address, without what stands behind `key=`, `token=`, `password=` or `secret=`, or as a password in
    `https://name:password@host`."""
    return _IN_ADDRESS.sub(rf"\1{LEFT_OUT}", _ASSIGNED.sub(rf"\1{LEFT_OUT}", text))


def without_secrets(node: Any, name: str = "") -> Any:
    """A configuration as plain containers, without the text of anything named like a key, token, password or secret, and every other text
    `without_secret`.

    Nothing is resolved, so that `${oc.env:NAME}` stays a reference.
    """
    node = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(node, dict):
        return {key: without_secrets(value, str(key)) for key, value in node.items()}
    if isinstance(node, list):
        return [without_secrets(value) for value in node]
    if not isinstance(node, str) or node.startswith("${"):
        return node
    return LEFT_OUT if _NAMED.search(name) else without_secret(node)


def left_out(node: Any, place: str = "") -> str | None:
    """Where a configuration that was saved `without_secrets` lacks one; None where it lacks none."""
    if isinstance(node, dict):
        return next((found for key, value in node.items() if (found := left_out(value, f"{place}.{key}".lstrip(".")))), None)
    gaps = ("=" + LEFT_OUT, f":{LEFT_OUT}@")
    is_gap = isinstance(node, str) and ((node == LEFT_OUT and _NAMED.search(place)) or any(gap in node for gap in gaps))
    return place if is_gap else None
