"""`rlhf-lightning new GROUP NAME`: write a working plugin and its test, to be changed by the user.

The plugin is a copy of an option of the group, so that its arguments and its result are right by construction.
"""

from __future__ import annotations

import ast
import keyword
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_lightning.cli.scaffold.contracts import CONTRACTS, TEST
from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, Component, components, option

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
    model = option(group, like or CONTRACTS[group].like)
    plugin, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in (plugin, test):
        if file.exists():
            raise ConfigError(f"{file} exists and is not overwritten: choose another name")
    source = copy_component(model, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        why = "is a file" if folder.is_file() else f"can't be made ({cause.strerror})"
        raise ConfigError(f"{folder} {why}, and a folder for plugins is needed: rename it, or start the command elsewhere") from cause
    for file, text in ((plugin, source), (test, test_of(group, name, like in (None, CONTRACTS[group].like)))):
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


def test_of(group: str, name: str, with_contract: bool) -> str:
    """The test of a new component.

    Args:
        with_contract: check the group's contract; False for an option that needs more than others.
    """
    contract = CONTRACTS[group]
    chosen = f"[{name}]" if GROUPS[group].many else name
    node = f"config.{group}.{name}" if GROUPS[group].many else f"config.{group}"
    text = TEST.format(group=group, name=name, chosen=chosen, node=node)
    imports = {line for line in contract.imports.strip().splitlines() if with_contract}
    heading, _, rest = text.partition("# imports\n")
    mine = _import_lines([*imports, *rest.partition("# end\n")[0].splitlines()])
    body = rest.partition("# end\n")[2]
    return heading + mine + body + ("\n\n" + contract.test.strip().replace("NAME", name) + "\n" if with_contract else "")


def _import_lines(lines: Sequence[str]) -> str:
    """Sort import statements as ruff does: standard library, others, this package."""
    of: dict[str, set[str]] = {}
    for line in lines:
        words = line.split()
        if words:
            of.setdefault(words[1], set()).update(" ".join(words[3:]).split(", ") if words[0] == "from" else ())
    blocks: list[list[str]] = [[], [], []]
    for module in sorted(of, key=lambda module: (bool(of[module]), module)):
        block = 0 if module.split(".")[0] in sys.stdlib_module_names else 2 if module.startswith("rlhf_lightning") else 1
        blocks[block].append(f"from {module} import {', '.join(sorted(of[module]))}" if of[module] else f"import {module}")
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
