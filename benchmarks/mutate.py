"""Mutation testing: change one operator or constant of a module at a time, and see whether its tests notice.

    python benchmarks/mutate.py --of advantage policy/loss --per-module 12 --seed 0 --out mutants.json

Each mutant runs in a forked process that has torch and pytest loaded already, with the module's own tests (the mirror path, the
properties of its folder, the goldens of its room) and stops at the first failure. Nothing on disk changes. Annotations, docstrings,
texts and defaults of settings aren't mutated. Where a module has more mutants than --per-module, a random sample of them is run.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 120
"""Seconds after which a mutant counts as noticed: it hangs."""
USERS = {"policy/objective.py": "policy/loss"}
"""A module outside a group, and the folder of tests of those that use it."""
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
OPPOSITE = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
SWAPS = {"maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "any": "all", "all": "any", "sum": "mean",
         "mean": "sum", "zeros_like": "ones_like", "ones_like": "zeros_like", "exp": "expm1", "log": "log1p"}  # fmt: skip


def changes_of(node: ast.AST) -> list[tuple[str, str, Any]]:
    """(what is changed, the field of the node, its new value); the field "" replaces the node itself."""
    match node:
        case ast.Compare(ops=[first, *rest]):
            kinds = [table[type(first)]() for table in (OTHER, OPPOSITE) if type(first) in table]
            return [("comparison", "ops", [kind, *rest]) for kind in kinds]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OTHER:
            return [("operator", "op", OTHER[type(op)]())]
        case ast.UnaryOp(operand=operand):
            return [("sign", "", operand)]
        case ast.IfExp(test=test) | ast.If(test=test):
            return [("condition", "test", ast.UnaryOp(ast.Not(), test))]
        case ast.Call(func=ast.Attribute(value=inner, attr="detach" | "abs")):
            return [("call left out", "", inner)]
        case _:
            return [(kind, field, value) for kind, field, value in renamed(node) if value is not None]


def renamed(node: ast.AST) -> list[tuple[str, str, Any]]:
    """Another constant, or the opposite of a name."""
    match node:
        case ast.Constant(value=bool() as value):
            return [("constant", "value", not value)]
        case ast.Constant(value=int() | float() as value):
            return [("constant", "value", value + 1), ("constant", "value", value * 2 - 1)]
        case ast.keyword(arg="min" | "max" as arg):
            return [("bound", "arg", SWAPS[arg])]
        case ast.Attribute(attr=attr):
            return [("function", "attr", SWAPS.get(attr))]
        case ast.Name(id="max" | "min" as word):
            return [("function", "id", SWAPS[word])]
        case _:
            return []


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of every node, outside annotations, defaults, decorators and messages of exceptions."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "exc", "kw_defaults", "defaults"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield node, name, index
                yield from places(child)


def child_at(parent: ast.AST, field: str, index: int | None) -> Any:
    return getattr(parent, field) if index is None else getattr(parent, field)[index]


def mutants_of(source: str) -> list[tuple[str, str]]:
    """(what was changed, the whole changed module) for every mutant that differs from the source."""
    tree, found, plain = ast.parse(source), [], ast.unparse(ast.parse(source))
    count = sum(1 for _ in places(tree))
    for number in range(count):
        parent, field, index = list(places(tree))[number]
        for choice in range(len(changes_of(child_at(parent, field, index)))):
            changed = copy.deepcopy(tree)
            spot_parent, _, _ = list(places(changed))[number]
            spot = child_at(spot_parent, field, index)
            kind, name, value = changes_of(spot)[choice]
            before, line = ast.unparse(spot), getattr(spot, "lineno", 0)
            if name:
                setattr(spot, name, value)
            elif index is None:
                setattr(spot_parent, field, value)
            else:
                getattr(spot_parent, field)[index] = value
            after = ast.unparse(value if not name else spot)
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text != plain:
                found.append((f"line {line}: {kind}: `{before}` -> `{after}`", text))
    return found


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from a text."""

    def __init__(self, name: str, file: Path, text: str) -> None:
        self.name, self.file, self.text = name, file, text

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(fullname, self, origin=str(self.file)) if fullname == self.name else None

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(self.file)
        exec(compile(self.text, str(self.file), "exec"), module.__dict__)


def tests_of(module: Path) -> list[str]:
    """The module's tests, the quickest to notice first."""
    folder = ROOT / "tests" / module.parent
    own = folder / f"test_{module.stem.removeprefix('_')}.py"
    room = ROOT / "tests" / module.parts[0] / "test_goldens.py"
    users = folder if module.stem.startswith("_") else ROOT / "tests" / USERS.get(str(module), "none")
    whole = sorted(users.glob("test_*.py"))
    return [str(file) for file in dict.fromkeys([own, folder / "test_properties.py", *whole, room]) if file.exists()]


def noticed(module: Path, text: str) -> bool:
    """Whether the module's tests fail with this text in its place."""
    child = os.fork()
    if child == 0:
        import pytest

        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
        signal.alarm(LIMIT)
        name = "rlhf_lightning." + ".".join(module.with_suffix("").parts)
        sys.meta_path.insert(0, Changed(name, ROOT / "rlhf_lightning" / module, text))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            code = 1
            with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()):
                code = int(pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *tests_of(module)]))
            os._exit(int(code != 0))
    return os.waitpid(child, 0)[1] != 0


def preload() -> None:
    """What no mutant touches, so that each forked process starts with it."""
    sys.path.insert(0, str(ROOT))
    for name in ("torch", "pytest", "hypothesis", "scipy.stats", "rlhf_lightning.registry", "rlhf_lightning.backbone.tiny"):
        importlib.import_module(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", required=True, help="folders or files under rlhf_lightning/")
    parser.add_argument("--per-module", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    preload()
    package, results = ROOT / "rlhf_lightning", []
    files = [f for one in given.of for f in ([package / one] if one.endswith(".py") else sorted((package / one).glob("*.py")))]
    for file in files:
        source, module = file.read_text(), file.relative_to(package)
        mutants = mutants_of(source)
        if not mutants:
            continue
        chosen = random.Random(f"{given.seed} {module}").sample(mutants, min(given.per_module, len(mutants)))
        start = time.perf_counter()
        if noticed(module, source):
            raise SystemExit(f"the tests of {module} fail without a mutant: {tests_of(module)}")
        survivors = sorted(what for what, text in chosen if not noticed(module, text))
        results.append({"module": str(module), "mutants": len(mutants), "run": len(chosen), "survivors": survivors})
        print(f"{module}: {len(chosen) - len(survivors)}/{len(chosen)} of {len(mutants)}, {time.perf_counter() - start:.0f} s", flush=True)
        for what in survivors:
            print(f"    {what}", flush=True)
        given.out.write_text(json.dumps(results, indent=1))
    killed, ran = sum(r["run"] - len(r["survivors"]) for r in results), sum(r["run"] for r in results)
    print(f"{killed} of {ran} mutants noticed: {killed / max(ran, 1):.1%}")


if __name__ == "__main__":
    main()
