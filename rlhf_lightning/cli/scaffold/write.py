"""`rlhf-lightning new GROUP NAME`: write a working plugin and its test, to be changed by the user.

The plugin is a copy of an option of the group, so that its arguments and its result are right by construction.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, Component, components, option

PLAINEST = {
    "stage": "inspect",
    "task": "files",
    "backbone": "causal",
    "optimizer": "sgd",
    "schedule": "constant",
    "callback": "lr_monitor",
    "feedback_source": "jsonl",
    "feedback_format": "edit",
    "feedback_filter": "length",
    "feedback_comment": "vader",
    "feedback_annotator": "simulated",
    "feedback_selection": "random",
    "collect_question": "comment",
    "reward_pooling": "mean",
    "reward_head": "mlp",
    "reward_tuning": "full",
    "reward_feature": "readability",
    "reward_loss": "bradley_terry",
    "preference_loss": "ipo",
    "rollout_sampler": "transformers",
    "rollout_scorer": "lexicon",
    "rollout_shaping": "missing_eos",
    "advantage": "rloo",
    "policy_tuning": "full",
    "policy_critic": "shared",
    "policy_loss": "reinforce",
    "policy_correction": "truncated",
    "policy_kl": "reward",
    "policy_reduction": "token_mean",
    "policy_value_loss": "mse",
    "policy_kl_control": "fixed",
    "evaluation_metric": "length",
    "sandbox": "landlock",
}
"""By group the option that a new one begins from."""
TEST = '''"""{group}={name}: written by `rlhf-lightning new`; add what yours promises."""

from __future__ import annotations

from pathlib import Path

from rlhf_lightning.registry import load_components
from rlhf_lightning.testing.check import {check}


def test_contract() -> None:
    load_components([Path(__file__).parent])
    {check}("{group}", "{name}")
'''
"""The test of a new component. Where it begins from an option that needs settings, the contract needs them too."""
USAGE = "rlhf-lightning new GROUP NAME [--like OPTION]"


def write_new(args: Sequence[str], folder: Path) -> list[Path]:
    """Write a plugin and its test.

    Args:
        args: group, name, and `--like` with the option to copy; default: the group's simplest option.
        folder: for the two files; created if it is missing.

    Returns:
        The plugin and its test.

    Raises:
        ConfigError: a wrong number of arguments, no such group or option, an invalid or used name, or a file that exists.
    """
    group, name, like = _parse_args(args)
    model = option(group, like or PLAINEST[group])
    plugin, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in (plugin, test):
        if file.exists():
            raise ConfigError(f"{file} exists and is not overwritten: choose another name")
    source = copy_component(model, name)
    check = "check_component" if like in (None, PLAINEST[group]) else "check_option"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        why = "is a file" if folder.is_file() else f"can't be made ({cause.strerror})"
        raise ConfigError(f"{folder} {why}, and a folder for plugins is needed: rename it, or start the command elsewhere") from cause
    for file, text in ((plugin, source), (test, TEST.format(group=group, name=name, check=check))):
        with file.open("x") as handle:
            handle.write(text)
    return [plugin, test]


def _parse_args(args: Sequence[str]) -> tuple[str, str, str | None]:
    plain = list(args)
    like = None
    if "--like" in plain:
        i = plain.index("--like")
        like = (plain[i + 1 : i + 2] or [""])[0]
        del plain[i : i + 2]
    if len(plain) != 2 or like == "" or any(word.startswith("-") for word in plain):
        raise ConfigError(f"write {USAGE}, as in: rlhf-lightning new reward_head my_head")
    group, name = plain
    if group not in GROUPS:
        raise ConfigError(f"no group {group!r}{did_you_mean(group, GROUPS)}; there are: {', '.join(GROUPS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_") or name == "conftest":
        raise ConfigError(
            f"{name!r} can't be a component's name: small letters, digits and _, no word of Python's, no test_, as in my_head"
        )
    owner = next((component.file for component in components(group) if component.name == name), None)
    if owner:
        raise ConfigError(f"{group}={name} is taken by {owner}: choose another name")
    return group, name, like


def copy_component(model: Component, name: str) -> str:
    """The source file of a component with its class or function and its registered name replaced.

    Raises:
        ConfigError: the file uses the name for something else.
    """
    # The new name of the class or function, and the names that the file uses.
    source = Path(model.file).read_text()
    tree = ast.parse(source)
    old = model.target.__qualname__
    new = "".join(word.capitalize() for word in name.split("_")) if old[0].isupper() else name
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    }
    if new in used - {old}:
        raise ConfigError(f"{new!r} is a name of something else in {model.file}, the file to copy: choose another name")
    # Rename it, then its address in decorators and messages.
    lines = source.splitlines(keepends=True)
    for line, column in sorted(set(_positions(tree, old, lines)), reverse=True):
        text = lines[line].encode()
        lines[line] = (text[:column] + new.encode() + text[column + len(old.encode()) :]).decode()
    body = "".join(lines)
    body = re.sub(rf'(@register\(\s*"{model.group}",\s*)"{model.name}"', rf'\1"{name}"', body)
    body = re.sub(rf"\b{model.group}([=.]){model.name}\b", rf"{model.group}\g<1>{name}", body)
    if isinstance(tree.body[0], ast.Expr):  # the module's docstring
        body = "".join(body.splitlines(keepends=True)[tree.body[0].end_lineno :]).lstrip("\n")
    summary = f"{model.group}={name}: a copy of {model.group}={model.name}."
    return f'"""{summary}\n\nPositional parameters are given at run time; keyword-only parameters are settings.\n"""\n\n{body}'


def _positions(tree: ast.AST, name: str, lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Line (from 0) and byte offset of the definition's name and each of its uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name:
            yield node.lineno - 1, node.col_offset
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name and node.col_offset == 0:
            yield node.lineno - 1, re.match(r"(?:class|def)\s+", lines[node.lineno - 1]).end()  # type: ignore[union-attr]
