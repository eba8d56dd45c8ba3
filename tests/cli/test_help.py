"""The menu: one screen of groups, and a table of every component that says what its settings take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from rich.console import Console

from rlhf_lightning import registry
from rlhf_lightning.cli import help
from rlhf_lightning.cli.help import type_name, value_name
from rlhf_lightning.config import schema
from rlhf_lightning.config.presets import default_options, list_presets
from rlhf_lightning.config.schema import FilePath, ModelPath, in_order
from rlhf_lightning.errors import ConfigError

registry.load_components()


@pytest.fixture
def listing(capsys, monkeypatch):
    """Prints components in lines that don't wrap."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(name: str | None) -> str:
        help.print_components(name)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(("name", "written"), [("reward_loss", "reward_loss=plackett_luce"), ("ppo", "ppo.critic_learning_rate")])
def test_names_are_complete_at_80_columns(capsys, monkeypatch, name, written):
    monkeypatch.setenv("COLUMNS", "80")
    help.print_components(name)
    text = capsys.readouterr().out
    assert written in text
    assert "…" not in text


def test_help_is_one_screen(capsys):
    help.print_help()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60, "one screen"
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("  python train.py") for line in lines) >= 5


def test_help_names_every_group_with_its_options(capsys):
    help.print_help()
    text = capsys.readouterr().out
    words = set(text.replace("*", " ").replace(",", " ").replace("[", " ").replace("]", " ").split())
    assert {c.name for c in registry.components()} | set(registry.GROUPS) <= words
    for group, options in list_presets().items():
        assert {group, *options} <= words
    assert all(f"{name}.*" in text for name in [*registry.section_names(), "trainer", "logger"])


def test_help_marks_the_defaults(capsys):
    help.print_help()
    text = capsys.readouterr().out
    assert default_options()["advantage"] == ["gae"]
    assert default_options()["rollout_scorer"] == []
    assert default_options()["rollout_shaping"] == ["missing_eos"]
    assert " gae*, " in text
    assert "[clip_score, gdpo, missing_eos*, normalise_score, whiten_rewards]" in text
    assert "program, reference, reward_model]" in " ".join(text.split())


def test_its_examples_are_commands_that_compose(command, tmp_path):
    commands = [line.split(" " * 3)[0].replace("'", "").split()[2:] for line in help.EXAMPLES.splitlines()]
    assert len(commands) == 5
    for words in commands:
        outcome = command(*[word for word in words if word != "-m"], "--cfg", "job", folder=tmp_path)
        if "-m" not in words:
            assert outcome.code == 0, outcome.error


def test_every_component_is_listed_with_its_settings(listing):
    everything = listing(None)
    for component in registry.components():
        assert f"{component.group}={component.name} " in everything
        assert component.summary.split("[")[0].strip() in everything


def test_a_setting_is_shown_as_it_is_written_with_what_it_takes(listing):
    heads = listing("reward_head")
    for text in ("hidden=256  (int > 0)", "dropout=0  (float >= 0 and < 1)", "reduction=mean  (one of mean, sum)", "seed=${seed}  (int)"):
        assert text in heads
    assert "width of the hidden layer." in heads
    assert "path=required  (folder or Hub name)" in listing("rollout_scorer")
    assert "rollout_scorer" not in heads


def test_a_section_is_listed_by_setting(listing):
    settings = listing("ppo")
    for text in ("ppo.learning_rate", "float > 0", "float > 0 or null", "int > 0 or null", "passes over each rollout."):
        assert text in settings


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("rating", ["feedback_format=rating", "reward_loss=gaussian_rating", "feedback_format.rating.scale", "preference.min_rating_gap"]),
        ("learning rate", ["ppo.learning_rate", "reward_head.learning_rate (features)", "policy_reduction.length (fixed_length)"]),
        ("group", ["ppo.responses_per_prompt", "logger.group"]),
        ("checkpoint keep", ["checkpoint.keep", "checkpoint.keep_finished"]),
        ("cuda", []),
    ],
)
def test_options_and_settings_are_found_by_name_group_or_description(listing, query, expected):
    if not expected:
        with pytest.raises(ConfigError, match=query):
            help.print_components(query)
        return
    found = listing(query)
    for name in expected:
        assert f" {name} " in found
    lines = [line for line in found.splitlines() if query.split()[0] in line.lower()]
    assert query.split()[0] in lines[1].split("\u2502")[1], "names come before descriptions"


def test_an_unknown_group_is_refused():
    with pytest.raises(ConfigError, match=r"'rewardhead', did you mean 'reward_head'\?"):
        help.print_components("rewardhead")


def test_a_component_s_owner_is_its_file_or_its_package(monkeypatch, listing):
    assert help.owner(registry.option("reward_head", "mlp")) == "built in"
    gated = registry.option("reward_head", "gated")
    assert help.owner(gated).endswith("plugins/gated_head.py")
    monkeypatch.setattr(help, "packages", lambda: {"plugins": "somebody-s-heads 1.2"})
    assert help.owner(gated) == "somebody-s-heads 1.2"
    assert "built in" in listing("advantage")


def test_markup_in_a_plugin_s_words_is_text(monkeypatch, listing):
    assert "[U, D] to [U]" in listing("reward_head"), "Rich reads brackets as its own markup"
    assert Console().width == 400


@pytest.mark.parametrize(
    ("started", "name"),
    [
        ("train.py", "python train.py"),
        ("/venv/bin/rlhf-lightning", "rlhf-lightning"),
        (f"{registry.PACKAGE}/__main__.py", "rlhf-lightning"),
    ],
)
def test_help_calls_the_program_as_it_was_started(monkeypatch, capsys, started, name):
    monkeypatch.setattr("sys.argv", [started, "--help"])
    help.print_help()
    text = capsys.readouterr().out
    assert f"\n  {name} -m advantage=gae,rloo seed=1,2" in text
    assert ("train.py" in text) == ("train.py" in name)


registry.load_components()


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int, "int"),
        (str, "text"),
        (bool, "true or false"),
        (Any, "anything"),
        (PositiveFloat, "float > 0"),
        (NonNegativeFloat, "float >= 0"),
        (PositiveInt | None, "int > 0 or null"),
        (Annotated[float, Field(ge=0, lt=1)], "float >= 0 and < 1"),
        (Annotated[str, Field(min_length=1, max_length=3)], "text of length 1 to 3"),
        (Literal["k1", "k2"], "one of k1, k2"),
        (Literal["auto", 1] | None, "one of auto, 1 or null"),
        (tuple[str, ...], "list of text"),
        (list[int | str], "list of (int or text)"),
        (tuple[float, float] | None, "[float, float] or null"),
        (Annotated[tuple[float, float], schema.pydantic.AfterValidator(in_order)], "[float, float] in order"),
        (dict[str, PositiveInt], "{name: int > 0}"),
        (ModelPath, "folder or Hub name"),
        (FilePath | None, "path or null"),
        (tuple[ModelPath, ...], "list of (folder or Hub name)"),
    ],
)
def test_a_type(annotation, name):
    assert type_name(annotation) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "null"), (True, "true"), ("", "''"), ("a", "a"), (1e-5, "1e-05"), (0.5, "0.5"), (3, "3"), (0.123456789, "0.123456789"),
     ((1, "a", None), "[1, a, null]"), ({"a": 1.0}, "{a: 1}")],
)  # fmt: skip
def test_a_value(value, name):
    assert value_name(value) == name


def test_no_setting_shows_python_s_names():
    """Annotated, Union, class and the like say nothing to who types a command."""
    for component in registry.components():
        for setting in schema.settings_of(component.target):
            shown = type_name(setting.type)
            assert not any(word in shown for word in ("Annotated", "Union", "Optional", "class", "typing", "None")), shown
