"""Plugins: a file of the working folder, a folder that is named, an installed package; what breaks is named, and the rest works."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlhf_lightning import registry
from rlhf_lightning.cli import help
from rlhf_lightning.config import plugins
from rlhf_lightning.config.presets import CONF, list_presets
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.composition import check

pytestmark = pytest.mark.usefixtures("untouched")
HEADING = "from rlhf_lightning.registry import register\n"
HEAD = """
@register("reward_head", "{name}")
class {name}:
    '''A head of the test.'''
    def __init__(self, width: int, *, size: int = {size}) -> None:
        self.width, self.size = width, size
"""


def composed(*words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


@pytest.mark.parametrize("group", registry.GROUPS)
def test_every_group_can_be_extended_by_a_plugin(plugin, group):
    text = f"""
        from pydantic import PositiveInt

        @register("{group}", "trivial_{group}")
        def trivial_{group}(*args, size: PositiveInt = 3):
            '''A component of the test.'''
            return args, size
    """
    assert plugin(f"trivial_{group}", text) == []
    many, name = registry.GROUPS[group].many, f"trivial_{group}"
    place = f"{group}.{name}" if many else group
    chosen = f"{group}=[{'utility,' * (group == 'evaluation_metric')}{name}]" if many else f"{group}={name}"  # stage=rounds wants it
    config = composed(chosen, f"{place}.size=5")
    check(config)
    node = config[group][name] if many else config[group]
    built = registry.build(node, "given")
    assert built.func(*built.args, "later", **built.keywords) == (("given", "later"), 5)
    node.size = 0
    with pytest.raises(ConfigError, match=rf"{place}\.size=0: Input should be greater than 0"):
        check(config)


def test_a_plugin_s_settings_are_unpickled_where_no_plugin_is_loaded_yet(plugin, tmp_path):
    """As by the workers of a sweep, before their job begins."""
    plugin("worker", HEAD.format(name="ForWorkers", size=3))
    node = composed("reward_head=ForWorkers", "reward_head.size=4").reward_head
    (tmp_path / "node.pickle").write_bytes(pickle.dumps(node))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'node.pickle')!r}, 'rb')).size)"
    env = os.environ | {"RLHF_PLUGINS": str(tmp_path / "plugins"), "PYTHONPATH": str(registry.PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.strip() == "4", done.stderr


def test_a_folder_is_named_by_the_flag_or_the_variable(monkeypatch, tmp_path):
    one, two = tmp_path / "my-heads", tmp_path / "others"
    for folder in (one, two):
        folder.mkdir()
        (folder / f"of_{folder.name[:2]}.py").write_text(HEADING + HEAD.format(name=f"Of{folder.name[:2]}", size=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHF_PLUGINS", "others")
    assert plugins.take_flag(["stage=sft", "--plugins", "my-heads", "-m", "seed=1,2"]) == ["stage=sft", "-m", "seed=1,2"]
    assert os.environ["RLHF_PLUGINS"] == f"{one}{os.pathsep}{two}"
    assert plugins.take_flag([f"--plugins={one}", "seed=1"]) == ["seed=1"]
    monkeypatch.chdir("/")
    assert registry.load_components() == []
    assert registry.component_of(composed("reward_head=Ofmy").reward_head).file == str(one / "of_my.py")
    assert registry.component_of(composed("reward_head=Ofot").reward_head).file == str(two / "of_ot.py")


def test_a_folder_that_is_named_twice_is_read_once(monkeypatch, tmp_path):
    (tmp_path / "plugins" / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "plugins" / "conf" / "experiment" / "once.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "plugins" / "one.py").write_text(HEADING + HEAD.format(name="One", size=1))
    (tmp_path / "link").symlink_to(tmp_path / "plugins")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHF_PLUGINS", os.pathsep.join(["plugins", str(tmp_path / "plugins"), "link"]))
    assert registry.load_components() == []
    assert plugins.plugin_folders() == [tmp_path / "plugins"]
    assert composed("experiment=once").seed == 7


@pytest.mark.parametrize("words", [["--plugins", "nowhere"], ["--plugins=nowhere"], ["--plugins"], ["--plugins="]], ids=" ".join)
def test_a_folder_that_is_not_there_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"--plugins .*: no such folder; give a folder that holds \.py files of plugins"):
        plugins.take_flag(words)


def test_a_variable_that_names_no_folder_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_PLUGINS", str(tmp_path / "gone"))
    assert registry.load_components() == [f"RLHF_PLUGINS names {tmp_path / 'gone'}, which is no folder"]


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("import nothing_of_this_name", 1, "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1\ndef f(:\n    pass", 2, "SyntaxError: invalid syntax"),
        ("\n\nraise SystemExit(3)", 3, "SystemExit: 3"),
        (
            HEADING + "@register('reward_heads', 'x')\ndef x(): ...",
            2,
            "RegistryError: no group 'reward_heads', did you mean 'reward_head'?",
        ),
        (HEADING + "@register('policy_kl', 'Off')\ndef x(): ...", 2, "RegistryError: policy_kl=Off can't be typed on a command line"),
        (HEADING + "@register('reward_head', 'a b')\ndef x(): ...", 2, "RegistryError: reward_head=a b can't be typed on a command line"),
        (HEADING + "@register('reward_head', 'x')\ndef x(*, a=1): ...", 2, "RegistryError: plugins.broken.x: setting 'a' needs a type"),
    ],
    ids=["import", "syntax", "exit", "group", "constant", "name", "setting"],
)
def test_a_broken_plugin_is_named_with_line_and_cause_and_the_rest_works(tmp_path, text, line, cause):
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "fine.py").write_text(HEADING + HEAD.format(name="Fine", size=1))
    (complaint,) = registry.load_components([tmp_path])
    assert complaint.startswith(f"plugin {tmp_path / 'broken.py'}:{line} is left out: {cause}")
    assert "\n" not in complaint
    assert composed("reward_head=Fine").reward_head.size == 1
    with pytest.raises(ConfigError, match="no option reward_head=Fyne, did you mean 'Fine'"):
        registry.option("reward_head", "Fyne")


def test_an_option_that_is_missing_is_reported_beside_the_plugins_that_are_broken(tmp_path, monkeypatch):
    """As where a saved model names a head whose plugin no longer loads."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as told:
        registry.make("reward_head", "mine", {}, 8)
    first, second = str(told.value).splitlines()
    assert first.startswith("no option reward_head=mine")
    assert first.endswith("in --plugins FOLDER, or installed")
    assert second == f"plugin {tmp_path / 'plugins' / 'mine.py'}:1 is left out: ZeroDivisionError: division by zero"


def test_what_a_plugin_registered_before_it_broke_is_gone(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text(HEADING + HEAD.format(name="Half", size=1) + "\n1 / 0\n")
    (complaint,) = registry.load_components([tmp_path])
    assert complaint == f"plugin {broken}:9 is left out: ZeroDivisionError: division by zero"
    assert "Half" not in [c.name for c in registry.components("reward_head")]
    with pytest.raises(Exception, match="Could not find 'reward_head/Half'"):
        composed("reward_head=Half")
    broken.write_text(HEADING + HEAD.format(name="Half", size=2))
    assert registry.load_components([tmp_path]) == []
    assert composed("reward_head=Half").reward_head.size == 2


def test_an_error_in_code_that_plugins_share_is_placed_there(tmp_path):
    (tmp_path / "_shared.py").write_text("\nx = 1 / 0\n")
    (tmp_path / "user.py").write_text("from plugins._shared import x\n")
    (complaint,) = registry.load_components([tmp_path])
    assert complaint == f"plugin {tmp_path / 'user.py'}:1 is left out: ZeroDivisionError: division by zero ({tmp_path / '_shared.py'}:2)"


def test_plugins_share_code_and_their_tests_are_no_plugins(tmp_path):
    (tmp_path / "_shared.py").write_text("SIZE = 7\n")
    (tmp_path / "Sized.py").write_text(HEADING + "from plugins._shared import SIZE\n" + HEAD.format(name="Sized", size="SIZE"))
    for name in ("test_sized", "conftest"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('this is a test')")
    assert registry.load_components([tmp_path]) == []
    assert composed("reward_head=Sized").reward_head.size == 7


def test_a_name_that_is_taken_is_refused_naming_both_owners(plugin, tmp_path):
    (complaint,) = plugin("thief", HEAD.format(name="mlp", size=1))
    assert "reward_head=mlp is taken by" in complaint
    assert complaint.count("reward/head/mlp.py") == 1
    assert f"{tmp_path / 'plugins' / 'thief.py'} must choose another name" in complaint
    assert composed("reward_head=mlp").reward_head._target_ == "rlhf_lightning.reward.head.mlp.MLPHead"


def test_two_files_of_one_name_are_refused_naming_both(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(HEADING + HEAD.format(name=f"In{folder}", size=1))
    (complaint,) = registry.load_components([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert complaint == f"plugin {tmp_path}/b/same.py is left out: {tmp_path}/a/same.py has the same file name; rename one of them"


def test_two_classes_of_one_name_in_a_file_are_refused(plugin):
    """A component is known by its path: the second would be taken for the first."""
    twice = HEAD.format(name="Twin", size=1)
    (complaint,) = plugin("twins", twice + twice.replace('"Twin"', '"other"'))
    assert "plugins.twins.Twin is reward_head=Twin already: reward_head=other needs a class or function of its own name" in complaint


def test_a_plugin_imported_by_its_bare_name_is_reported_with_its_address(plugin, tmp_path, monkeypatch):
    plugin("bare", HEAD.format(name="Bare", size=1))
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    with pytest.raises(Exception, match=r"bare\.py is imported under two names, as plugins\.bare and as bare: `from plugins\.bare import"):
        __import__("bare")


PRESET = "defaults:\n  - {name}\n  - _self_\nsize: 40\n"


def test_presets_of_a_plugin_compose_and_are_on_the_menu(plugin, tmp_path, capsys):
    conf = tmp_path / "plugins" / "conf"
    for place, text in {
        "reward_head/large_head": PRESET.format(name="Preset"),
        "experiment/mine": "# @package _global_\ndefaults:\n  - override /reward_head: large_head\nseed: 7\n",
    }.items():
        (conf / place).parent.mkdir(parents=True)
        (conf / f"{place}.yaml").write_text(text)
    assert plugin("preset", HEAD.format(name="Preset", size=3)) == []
    config = composed("experiment=mine", "reward_head.size=41")
    check(config)
    assert (config.seed, config.reward_head.size, config.reward_head._target_) == (7, 41, "plugins.preset.Preset")
    assert composed("reward_head=large_head").reward_head.size == 40
    help.print_help()
    lines = capsys.readouterr().out.splitlines()
    assert sum("large_head" in line for line in lines) == 1
    assert any(line.startswith("  experiment") and "mine" in line for line in lines) or any(" mine" in line for line in lines)


@pytest.mark.parametrize(
    ("place", "owner"),
    [("reward_head/mlp", "the component reward_head=mlp"), ("trainer/gpu", f"{CONF / 'trainer' / 'gpu.yaml'}")],
)
def test_a_preset_whose_name_is_taken_is_refused_naming_both(plugin, tmp_path, place, owner):
    file = tmp_path / "plugins" / "conf" / f"{place}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("precision: 16-mixed\n")
    (complaint,) = plugin("innocent", HEAD.format(name="Innocent", size=3))
    assert complaint == f"the presets of {tmp_path / 'plugins' / 'conf'} are left out: {file} has the name of {owner}; rename it"
    assert list_presets() == list_presets(CONF)
    assert composed("reward_head=Innocent").reward_head.size == 3


def test_a_preset_that_can_not_be_read_is_named(plugin, tmp_path):
    file = tmp_path / "plugins" / "conf" / "experiment" / "broken.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("seed: [1\n")
    (complaint,) = plugin("innocent", HEAD.format(name="Innocent2", size=3))
    assert complaint.startswith(f"the presets of {tmp_path / 'plugins' / 'conf'} are left out: ")
    assert str(file) in complaint


@pytest.mark.parametrize("open_to_all", ["file", "folder"])
def test_a_plugin_that_anyone_may_write_is_not_run(tmp_path, open_to_all):
    folder = tmp_path / "plugins"
    folder.mkdir()
    file = folder / "written.py"
    file.write_text("raise SystemExit('it ran')\n")
    (file if open_to_all == "file" else folder).chmod(0o777)
    (line,) = plugins.load([folder])
    assert "anyone may write to" in line
    assert f"chmod o-w {file if open_to_all == 'file' else folder}" in line


@pytest.mark.parametrize(
    ("user", "owner", "named", "runs"), [(1, 2, False, False), (1, 2, True, True), (1, 0, False, True), (0, 2, False, True)]
)
def test_a_plugin_of_another_user_is_run_where_it_is_named(tmp_path, monkeypatch, user, owner, named, runs):
    file = tmp_path / "other.py"
    file.write_text("")
    os.chown(file, owner, owner) if os.geteuid() == 0 else pytest.skip("only root gives files away")
    os.chown(tmp_path, owner, owner)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert (plugins._unsafe(file, named) == "") is runs
