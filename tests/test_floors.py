"""The floors of the house: small modules and functions, imports that only look down, and a menu that loads nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rlhf_lightning"
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in sorted(PACKAGE.rglob("*.py"))}
HEAVY = ["lightning", "transformers", "wandb", "datasets", "torchmetrics", "tensorboard"]


MODULE_LINES, FUNCTION_LINES = 300, 50
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
"""Those that are longer for now."""


def test_modules_are_short():
    long = {name for name, file in MODULES.items() if len(file.read_text().splitlines()) > MODULE_LINES}
    assert long - LONG_MODULES == set()


def test_functions_are_short():
    long = set()
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES:
                long.add(f"{name}.{node.name}")
    assert long - LONG_FUNCTIONS == set()


def imports_of(name: str, file: Path) -> set[str]:
    """The package's modules that this one imports, inside functions too, but not for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text()))
    return (found & MODULES.keys()) - {name, "rlhf_lightning"}


def test_no_import_goes_in_a_circle():
    imports = {name: imports_of(name, file) for name, file in MODULES.items()}
    assert imports["rlhf_lightning.cli.main"], "the walk must see imports"
    left = dict(imports)
    while True:
        leaves = [name for name, wanted in left.items() if not wanted & left.keys()]
        if not leaves:
            break
        for name in leaves:
            del left[name]
    assert left == {}


def test_a_module_imports_lower_floors_only():
    """The contract of pyproject.toml, by import-linter."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import rlhf_lightning.cli.main",
        "from rlhf_lightning import cli; from rlhf_lightning.registry import load_components; assert load_components() == []",
        "import sys; from rlhf_lightning.cli.main import main; sys.argv = ['train.py', '--help']; main()",
    ],
    ids=["import", "components", "help"],
)
def test_the_menu_loads_nothing_heavy(code):
    report = f"import sys; print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_components_import_torch_at_most():
    """Lightning and transformers are imported inside functions of component files."""
    from rlhf_lightning import registry

    registry.load_components()
    heavy = {}
    for component in registry.components():
        tree = ast.parse(Path(component.file).read_text())
        tops = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {alias.name.split(".")[0] for n in tops if isinstance(n, ast.Import) for alias in n.names}
        names |= {(n.module or "").split(".")[0] for n in tops if isinstance(n, ast.ImportFrom)}
        if names & {"lightning", "transformers"}:
            heavy[component.path] = names
    assert heavy == {}


@pytest.mark.parametrize("banned", ["utils", "common", "helpers", "manager", "misc"])
def test_no_module_is_called_nothing(banned):
    assert [name for name in MODULES if name.split(".")[-1] == banned] == []
