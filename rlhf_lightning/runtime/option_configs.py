"""The address of an option's settings class for pickle: `option_configs.<group>=<name>`.

A worker of a sweep unpickles the classes before it has loaded any plugin, and a plugin's file is on no import path.
"""

from __future__ import annotations

from rlhf_lightning.registry import option


def __getattr__(name: str) -> type:
    group, equals, option_name = name.partition("=")
    if not equals:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return option(group, option_name).config
