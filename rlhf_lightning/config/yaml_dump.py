"""YAML text as OmegaConf writes it, four times as fast."""

from __future__ import annotations

import functools
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf._utils import get_omega_conf_dumper  # OmegaConf<2.4; how it quotes texts is nowhere public


def to_yaml(content: Any) -> str:
    """Format plain containers as OmegaConf.to_yaml does.

    libyaml writes the same in a quarter of the time, but for characters that need an escape or aren't ASCII.
    """
    options = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    if yaml.__with_libyaml__:
        text = str(yaml.dump(content, Dumper=_fast_dumper(), **options))
        if text.isascii() and "\\" not in text:
            return text
    return str(yaml.dump(content, Dumper=get_omega_conf_dumper(), **options))


@functools.cache
def _fast_dumper() -> Any:
    """OmegaConf's representers with libyaml's emitter."""
    return type("FastDumper", (yaml.CDumper,), {"yaml_representers": get_omega_conf_dumper().yaml_representers})
