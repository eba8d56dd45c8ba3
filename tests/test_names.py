"""The name rule: functions are verbs or name what they compute, variables name the thing, and a docstring begins with one short clause."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rlhf_lightning"
VAGUE = frozenset({
    "found", "said", "told", "about", "one", "own", "there", "known", "place", "places", "given", "left",
    "done", "kept", "begun", "seen", "whole", "each", "here", "taken", "shown", "asked", "beside",
})  # fmt: skip
"""Names that fit anything, so that they can't be searched, guessed or skimmed."""
IRREGULAR = (
    "begun|built|chosen|drawn|gone|held|hidden|laid|lost|made|met|sent|spelt|spoken|thrown|torn|worn|written|bound|bought|caught|felt|fed|"
    "grown|heard|meant|paid|sold|stood|thought|understood|won"
)
PARTICIPLE = re.compile(rf"_?(?:[a-z]+ed|{IRREGULAR}|{'|'.join(VAGUE)})")
NO_PARTICIPLES = frozenset({"seed", "feed", "embed", "need", "speed", "exceed"})
QUESTION = re.compile(r"(What|Where|Who|That|How|Whether|Whoever|Which)\b")
LONGEST_SUMMARY = 100
MAX_VAGUE_PER_THOUSAND = 3.0
MAX_PARTICIPLES = 0.003
EXCEPTIONS: dict[str, str] = {}
"""`file:name` -> why the name stays."""

FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "plugins").glob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")])


TREES = {file: ast.parse(file.read_text()) for file in FILES}


def bindings(tree: ast.AST) -> Iterator[str]:
    """Names of variables, arguments and attributes that a module binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name


def is_participle(name: str) -> bool:
    return bool(PARTICIPLE.fullmatch(name)) and name.lstrip("_") not in NO_PARTICIPLES


def addressed(file: Path, names: Iterator[str]) -> list[str]:
    address = file.relative_to(ROOT).as_posix()
    return [f"{address}:{name}" for name in names if f"{address}:{name}" not in EXCEPTIONS]


def test_no_name_is_vague():
    vague = [name for file, tree in TREES.items() for name in addressed(file, (n for n in bindings(tree) if n in VAGUE))]
    assert vague == []


def test_no_function_is_named_by_a_participle():
    participles = [name for file, tree in TREES.items() for name in addressed(file, (n for n in functions(tree) if is_participle(n)))]
    assert participles == []


def test_exceptions_are_few():
    """Over the package as a whole, by the counts of names bound and of functions defined."""
    trees = [tree for file, tree in TREES.items() if PACKAGE in file.parents]
    bound = [node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    defined = [name for tree in trees for name in functions(tree)]
    assert 1000 * sum(name in VAGUE for name in bound) / len(bound) < MAX_VAGUE_PER_THOUSAND
    assert sum(map(is_participle, defined)) / len(defined) < MAX_PARTICIPLES


def test_exceptions_are_needed_and_have_a_reason():
    for address, reason in EXCEPTIONS.items():
        file, _, name = address.partition(":")
        tree = ast.parse((ROOT / file).read_text())
        assert name in {*bindings(tree), *functions(tree)}, f"{address} is no name any more: take it out"
        assert reason


@pytest.mark.parametrize("file", TREES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_docstring_begins_with_a_short_clause(file):
    wrong = []
    for node in ast.walk(TREES[file]):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (text := ast.get_docstring(node)):
            summary = text.splitlines()[0]
            if len(summary) >= LONGEST_SUMMARY or QUESTION.match(summary):
                wrong.append(f"line {getattr(node, 'lineno', 1)}: {summary}")
    assert wrong == []
