"""Folders of any name: a run, its resumption, its configuration used again, and a sweep."""

from __future__ import annotations

import json
import os
import shutil
import textwrap

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.runtime import resume
from rlhf_lightning.runtime.saved_config import FILE
from rlhf_lightning.training import launch

NAMES = [
    "plain", "two words", " blanks around ", "tab\there", "a=b", "=", "a==b", "a=b=c", "a,b", ",", "(a)", "a(b", "a)b", "[a]", "a[0]",
    "a]b", "[", "{a}", "{a:b}", "a{b", "a}b", "'a'", "it's", '"a"', 'a"b', "a;b", "~a", "~", "a~b", "#a", "a#b", "!a", "a!b!", "$a", "a$b",
    "${x}", "a${b", "${oc.env:HOME}", "${", "$${x}", "a%b", "%20", "back\\slash", "end\\", "\\${x}", "-dash", "--config-path", "-m", "a|b",
    "a&b", "a?b", "a*b", "a<b>c", "a:b", "@a", "a+b", "`a`", "schön", "файл 文件 🙂", "null", "true", "1e5", "run.yaml", "auto",
]  # fmt: skip
ODD = ["${x}", "it's", "end\\", " blanks around "]
"""Those that go through whole commands by default; all are read as words of a command."""


def whole_commands(names: list[str], default: list[str]) -> list[object]:
    """The names as parameters, those that aren't run by default under the marker `full`."""
    return [pytest.param(name, marks=[pytest.mark.full] * (name not in default)) for name in names]


STAGE = '''
from __future__ import annotations
from rlhf_lightning.registry import register


@register("stage", "{name}")
def {name}(run):
    """Writes a file."""
    run.write_json("made.json", run.seed)
    return 0.5
'''


@pytest.fixture
def stub(untouched, tmp_path):
    """A stage that takes no time."""
    from rlhf_lightning import registry

    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "stub_stage.py").write_text(textwrap.dedent(STAGE.format(name="stub_stage")))
    assert registry.load_components([folder]) == []
    return ["stage=stub_stage", "logger=none"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of that stage, under a plain name; made by the first test that asks for it."""
    return tmp_path_factory.mktemp("finished") / "run"


def value_in_config(word: str) -> object:
    """The value of an override, as a configuration has it."""
    override = OverridesParser.create().parse_override(word)
    config = OmegaConf.create()
    OmegaConf.update(config, override.key_or_group, override.value())
    return OmegaConf.select(config, override.key_or_group)


def in_parent(folder):
    return sorted(path.name for path in folder.parent.iterdir())


def test_there_are_sixty_names():
    assert len(set(NAMES)) == len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_the_words_of_a_resumed_run_name_its_folder_whatever_it_is_called(tmp_path, monkeypatch, name):
    monkeypatch.delenv(resume.FLAG, raising=False)
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / FILE).write_text("seed: 0\n")
    words = resume.expand_resume([f"resume={folder}", "checkpoint.every=5"])
    assert words[0] == "checkpoint.every=5"
    assert value_in_config(words[1]) == str(folder)
    assert words[2:] == ["--config-path", str(folder)]


@pytest.mark.parametrize("name", whole_commands(NAMES, ODD))
def test_a_run_goes_on_and_is_run_again_whatever_its_folder_is_called(command, stub, finished, tmp_path, name):
    if not finished.exists():
        assert command(*stub, "seed=3", folder=finished).code == 0
    folder = tmp_path / "runs" / name
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    (folder / "made.json").unlink()
    resumed = command(f"resume={folder}", "checkpoint.every=5")
    assert resumed.code == 0, resumed.error
    assert "checkpoint.every: 20 -> 5" in resumed.out
    assert json.loads((folder / "result.json").read_text())["objective"] == 0.5
    again = command("--config-path", str(folder), folder=tmp_path / "again")
    assert again.code == 0, again.error
    assert json.loads((tmp_path / "again" / "made.json").read_text()) == 3
    assert f"{folder} is already complete" in command(f"resume={folder}").out
    assert in_parent(folder) == [name]
    assert sorted(os.listdir(folder)) == [".hydra", "begun.json", "config.yaml", "made.json", "result.json"]


@pytest.mark.parametrize("name", whole_commands(NAMES, ["a${b", "-m", "файл 文件 🙂"]))
def test_a_run_begins_whatever_its_folder_is_called(command, stub, tmp_path, name):
    folder = tmp_path / "runs" / name
    outcome = command(*stub, f"hydra.run.dir={quote_value(str(folder))}")
    assert outcome.code == 0, outcome.error
    assert in_parent(folder) == [name]
    assert sorted(os.listdir(folder)) == [".hydra", "begun.json", "config.yaml", "made.json", "result.json"]


@pytest.mark.parametrize("name", whole_commands(NAMES, ["${x}", "[a]"]))
def test_a_sweep_goes_on_whatever_its_folder_is_called(command, stub, tmp_path, name):
    folder = tmp_path / "runs" / name
    first = command("-m", *stub, "seed=1,2", f"hydra.sweep.dir={quote_value(str(folder))}")
    assert first.code == 0, first.error
    (folder / "1" / "result.json").unlink()
    before = (folder / "0" / "made.json").stat().st_mtime_ns
    resumed = command(f"resume={folder}")
    assert resumed.code == 0, resumed.error
    assert json.loads((folder / "1" / "made.json").read_text()) == 2
    assert (folder / "0" / "made.json").stat().st_mtime_ns == before
    assert in_parent(folder) == [name]


@pytest.mark.parametrize("name", whole_commands(["a=b", "-x", "it's", "[é]"], ["-x", "[é]"]))
def test_relative_names_and_hydras_own_quotes_are_taken_too(command, stub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert command(*stub, f"hydra.run.dir={quote_value(name)}", workdir=tmp_path).code == 0
    for typed in (name, f"./{name}", f"'{name}'"):
        (tmp_path / name / "result.json").unlink()
        resumed = command(f"resume={typed}", workdir=tmp_path)
        assert resumed.code == 0, resumed.error
        assert (tmp_path / name / "result.json").is_file()
    again = command("--config-path", name, folder=tmp_path / "again", workdir=tmp_path)
    assert again.code == 0, again.error


@pytest.mark.parametrize("name", whole_commands(["${x}", "a=b", "[é]"], ["${x}"]))
def test_a_working_folder_may_have_such_a_name(command, stub, tmp_path, name):
    (tmp_path / name).mkdir()
    outcome = command(*stub, "hydra.run.dir=out", workdir=tmp_path / name)
    assert outcome.code == 0, outcome.error
    assert (tmp_path / name / "out" / "result.json").is_file()


def test_a_folder_of_presets_that_hydra_cannot_take_is_refused(command, stub, tmp_path):
    for name in ("${x}", "conf.yaml"):
        shutil.copytree(tmp_path / "components", tmp_path / name)
        outcome = command(*stub, "--config-dir" if "$" in name else "--config-path", str(tmp_path / name))
        assert outcome.code == 2
        assert "Hydra can't read configurations in a folder of this name" in outcome.error


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1) | st.text("ab\\${}'\"=,", min_size=1))
def test_a_quoted_text_is_read_as_it_is(text):
    assert value_in_config(f"hydra.run.dir={quote_value(text)}") == text


@pytest.mark.parametrize("name", NAMES)
def test_processes_that_lightning_starts_have_the_command_as_it_was(monkeypatch, name):
    """Lightning itself repeats the words that Hydra was given, and the folder between double quotes."""
    monkeypatch.delenv(launch.COMMAND, raising=False)
    words = ["stage=sft", f"backbone.path={quote_value(name)}", "-m"]
    launch.export_command(words=words)
    launch.export_command(folder=f"/runs/{name}")
    record = json.loads(os.environ[launch.COMMAND])
    monkeypatch.setenv(launch.COMMAND, json.dumps(record | {"process": os.getppid()}))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.inherited_overrides(["mangled"]) == [*words, f"hydra.run.dir={quote_value(f'/runs/{name}')}"]
    launch.export_command(words=[f"resume={name}x"])
    monkeypatch.setenv(launch.COMMAND, json.dumps(record | {"process": os.getppid(), "words": [f"resume={name}x"]}))
    assert launch.inherited_overrides(["mangled"]) == [f"resume={name}x"]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.inherited_overrides(["mine"]) == ["mine"]
    assert launch.COMMAND not in os.environ


def test_resume_is_a_flag_for_one_process(monkeypatch):
    monkeypatch.setenv(resume.FLAG, "before")
    assert resume.expand_resume(["stage=sft"]) == ["stage=sft"]
    assert resume.FLAG not in os.environ
