"""Scores from a function of the user's, in a Python file or an importable module."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator

from rlhf_lightning.config.schema import did_you_mean, expand_user
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.registry import register

NAMES = ("prompts", "responses", "completions", "completion_ids", "columns", "rollout")
"""Arguments that a function may ask for by name, beside the columns themselves."""


@register("rollout_scorer", "function")
class FunctionScorer:
    """A Python function of lists: prompts, responses and the columns of their rows to a list of scores.

    It is called by keyword with the parameters that it names: `prompts`, `responses`, `completion_ids` (lists of token ids), `columns` (a
    dictionary of lists), `rollout`, or a column of the task's rows by its name; with `**kwargs` it gets all columns. TRL's reward
    functions work as they are: `completions` are texts, or for conversations lists with the assistant's message, and the prompts of
    conversations lists of messages. It may be async.

    Args:
        path: FILE.py:NAME, or MODULE:NAME of an importable module.

    Raises:
        ConfigError: no such file or function, or a parameter that is neither of these nor a column.
    """

    def __init__(self, *, path: Annotated[str, AfterValidator(expand_user)]) -> None:
        self.path = path
        self.function = load_function(path)
        self.parameters = inspect.signature(self.function).parameters
        self.takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in self.parameters.values())
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        self.required = [name for name, p in self.parameters.items() if p.default is p.empty and p.kind not in variadic]

    def __call__(self, rollout: Rollout) -> Any:
        """The function's list of B numbers; None for no score."""
        output = self.function(**self._arguments(rollout))
        if inspect.isawaitable(output):
            # In a thread of its own: a notebook has an event loop that runs already.
            with ThreadPoolExecutor(1) as thread:
                output = thread.submit(asyncio.run, _wait_for(output)).result()
        return output

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that the task has the columns that the function names. Raises ConfigError."""
        available = [*NAMES, *names]
        for name in self.required:
            if name not in available and not self.takes_all:
                raise ConfigError(
                    f"rollout_scorer.function.path={self.path}: the rows of the task have no column {name!r}"
                    f"{did_you_mean(name, available)}; a function may take: {', '.join(available)}"
                )

    def _arguments(self, rollout: Rollout) -> dict[str, Any]:
        self.check_columns(list(rollout.columns))
        ids = [row[:length] for row, length in zip(rollout.response_ids.tolist(), rollout.response_mask.sum(1).tolist(), strict=True)]
        pairs = zip(rollout.prompts, rollout.responses, strict=True)
        arguments: dict[str, Any] = {
            **rollout.columns,
            "prompts": [plain_prompt(prompt) for prompt in rollout.prompts],
            "completions": [response if isinstance(prompt, str) else assistant_message(response) for prompt, response in pairs],
            "completion_ids": ids,
        }
        if self.takes_all:
            return arguments
        arguments |= {"responses": rollout.responses, "columns": rollout.columns, "rollout": rollout}
        return {name: arguments[name] for name in self.parameters if name in arguments}


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def plain_prompt(prompt: Prompt) -> str | list[dict[str, str]]:
    """A text as it is; a conversation as a list of messages, each a dictionary with role and content."""
    return str(prompt) if isinstance(prompt, str) else [{"role": message.role, "content": message.content} for message in prompt]


def assistant_message(response: str) -> list[dict[str, str]]:
    """The completion of a conversation, as TRL passes it."""
    return [{"role": "assistant", "content": response}]


def load_function(path: str) -> Callable[..., Any]:
    """Import FILE.py:NAME or MODULE:NAME. Raises ConfigError."""
    key = f"rollout_scorer.function.path={path}"
    source, colon, name = path.rpartition(":")
    if not (source and colon and name.isidentifier()):
        raise ConfigError(f"{key}: write the file and its function, as in rewards.py:brevity")
    members = vars(_import_file(Path(source), key) if source.endswith(".py") else _import_module(source, key))
    function = members.get(name)
    if not callable(function):
        functions = _own_functions(members)
        names = ", ".join(functions) or "none"
        raise ConfigError(f"{key}: {source} has no function {name!r}{did_you_mean(name, functions)}; it has: {names}")
    return cast(Callable[..., Any], function)


def _own_functions(members: Mapping[str, Any]) -> Sequence[str]:
    """The functions that a module defines itself."""
    return [name for name, value in members.items() if inspect.isfunction(value) and value.__module__ == members["__name__"]]


def _import_module(name: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise ConfigError(f"{key}: {name} can't be imported ({cause}); give a file as FILE.py:NAME") from cause


def _import_file(file: Path, key: str) -> Any:
    """Import a file once, as a module that its neighbours can be imported from."""
    if not file.is_file():
        raise ConfigError(f"{key}: there is no file {file}")
    name = f"rollout_scorer_function.{file.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    sys.path.append(str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:
        del sys.modules[name]
        trace, line = cause.__traceback__, ""
        while trace is not None:
            line = f" at {file}:{trace.tb_lineno}" if Path(trace.tb_frame.f_code.co_filename) == file else line
            trace = trace.tb_next
        if isinstance(cause, SyntaxError):
            line = f" at {cause.filename}:{cause.lineno}"
        raise ConfigError(f"{key}: {type(cause).__name__}{line}: {cause}") from cause
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module
