"""The rule of address: a group is a folder, an option is a file in it, and each has a docstring and a test where one looks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf_lightning import registry

TESTS = Path(__file__).parent
registry.load_components()
BUILT_IN = [c for c in registry.components() if c.target.__module__.startswith("rlhf_lightning.")]
NAMES = [f"{c.group}={c.name}" for c in BUILT_IN]


def folder_of(group: str) -> str:
    """reward_head is reward/head: the first word is the room, the rest the folder in it."""
    return group.replace("_", "/", 1)


@pytest.mark.parametrize("component", BUILT_IN, ids=NAMES)
def test_a_component_s_group_is_its_folder_and_its_name_its_file(component):
    where = Path(component.file).relative_to(registry.PACKAGE)
    assert where.as_posix() == f"{folder_of(component.group)}/{component.name}.py"


@pytest.mark.parametrize("component", BUILT_IN, ids=NAMES)
def test_a_component_says_what_it_is(component):
    assert component.target.__doc__
    assert component.summary.endswith((".", ":", ";")) or len(component.summary) > 20


@pytest.mark.parametrize("component", BUILT_IN, ids=NAMES)
def test_a_component_has_its_test(component):
    file = TESTS / folder_of(component.group) / f"test_{component.name}.py"
    assert file.is_file(), f"{component.group}={component.name} is tested nowhere: write {file.relative_to(TESTS.parent)}"
    assert "def test_" in file.read_text()


@pytest.mark.parametrize("group", registry.GROUPS)
def test_a_group_has_its_folder_and_an_option(group):
    assert registry.group_folder(group) == registry.PACKAGE / folder_of(group)
    assert registry.group_folder(group).is_dir()
    assert registry.components(group)


@pytest.mark.parametrize("group", registry.GROUPS)
def test_a_group_s_folder_holds_options_and_private_files(group):
    options = {Path(component.file) for component in BUILT_IN}
    others = {file for file in registry.group_folder(group).glob("*.py") if not file.name.startswith("_")}
    assert others - options == set()


def test_a_private_file_is_imported_within_its_folder_alone():
    outside = []
    for file in registry.PACKAGE.rglob("*.py"):
        for module in re.findall(r"^\s*(?:from|import) (rlhf_lightning[.\w]*)", file.read_text(), re.MULTILINE):
            folder, _, name = module.rpartition(".")
            package = ".".join(file.parent.relative_to(registry.PACKAGE.parent).parts)
            if name.startswith("_") and folder != package:
                outside.append(f"{file}: {module}")
    assert outside == []


def test_five_modules_at_most_are_at_the_top():
    modules = [file.name for file in registry.PACKAGE.glob("*.py") if not file.name.startswith("_")]
    assert len(modules) <= 5, modules


def test_a_file_holds_one_component_at_most():
    files = [c.file for c in BUILT_IN]
    assert sorted(files) == sorted(set(files))


def test_every_inner_init_is_empty():
    full = [str(file) for file in registry.PACKAGE.rglob("*/__init__.py") if file.read_text()]
    assert full == []


def test_every_folder_of_modules_is_a_package():
    folders = {file.parent for file in registry.PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_preset_has_a_component_s_name():
    """Hydra would merge the YAML file into the component in silence."""
    conf = registry.PACKAGE.parent / "conf"
    assert [f"{c.group}/{c.name}.yaml" for c in registry.components() if (conf / c.group / f"{c.name}.yaml").exists()] == []


def test_plugins_and_tests_mirror_the_package():
    """A test file stands where its source stands."""
    astray = []
    for file in TESTS.rglob("test_*.py"):
        where = file.relative_to(TESTS)
        folder = registry.PACKAGE / where.parent
        if where.parent != Path() and not folder.is_dir():
            astray.append(str(where))
    assert astray == []
