"""Arguments in the signature of a transformers model's forward, which ignores others silently.

transformers renamed its cache argument in 5.24 (`past_key_values` and `cache_params` became `cache`) and drops the old names in 5.40.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

from torch import nn

CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")
"""Names of the argument and output with keys, values or states, newest first."""


def accepted_arguments(module: nn.Module, **arguments: Any) -> dict[str, Any]:
    """The arguments that the module's forward names as parameters."""
    names = _parameters_of_forward(cast(Any, type(module)))
    return {name: value for name, value in arguments.items() if name in names}


def cache_argument(module: nn.Module) -> str | None:
    """The name of the cache parameter of the module's forward; None if it has none."""
    names = _parameters_of_forward(cast(Any, type(module)))
    return next((name for name in CACHE_ARGUMENTS if name in names), None)


@functools.cache
def _parameters_of_forward(model_class: Any) -> frozenset[str]:
    """The named parameters of a class's forward, without `*args` and `**kwargs`."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return frozenset(name for name, p in inspect.signature(model_class.forward).parameters.items() if p.kind not in variadic)
