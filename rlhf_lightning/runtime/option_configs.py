"""Where pickle finds the dataclass of an option's settings: as `option_configs.<group>=<name>`.

A worker of a sweep meets the classes before it has loaded any plugin, and a plugin's file is on no path that it searches.
"""

from __future__ import annotations

from rlhf_lightning.registry import option


def __getattr__(name: str) -> type:
    group, equals, chosen = name.partition("=")
    if not equals:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return option(group, chosen).config
