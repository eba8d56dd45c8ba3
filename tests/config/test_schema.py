"""From a signature to a typed configuration node, and back to checked values."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf, ValidationError
from pydantic import Field, PositiveInt

from rlhf_lightning import registry
from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.config.schema import REQUIRED, config_class, descriptions_of, did_you_mean, settings_of, validate
from rlhf_lightning.errors import ConfigError, RegistryError
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.tracking.logger_settings import LOGGERS
from rlhf_lightning.training.trainer import TrainerSettings


class Everything:
    def __init__(
        self,
        width: int,
        *,
        count: int = 3,
        share: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        on: bool = False,
        name: str,
        family: Literal["gpt2", "llama"] = "llama",
        level: Literal[1, 2] = 1,
        mixed: Literal["auto", 1] = "auto",
        limit: PositiveInt | None = None,
        ends: tuple[float, float] = (-1.0, 1.0),
        words: list[str] = ["a"],  # noqa: B006  (the default that must not be shared)
        table: dict[str, int] = {},  # noqa: B006
        free: int | str = 1,
        seed: int = 7,
    ) -> None:
        self.width = width


def function(rollout: Any, *, gamma: float = 1.0) -> None: ...


def untyped(rollout: Any, *, gamma=1.0) -> None: ...


@dataclass
class Section:
    size: PositiveInt = 2
    path: str | None = None
    must: int = REQUIRED


@dataclass
class Needy:
    must: int
    may: int = 1


def node_of(target: Any = Everything, **values: Any) -> Any:
    return OmegaConf.merge(OmegaConf.structured(config_class(target, {})), values)


def test_settings_are_the_keyword_only_parameters():
    assert [setting.name for setting in settings_of(Everything)][:4] == ["count", "share", "on", "name"]
    assert "width" not in [setting.name for setting in settings_of(Everything)]
    assert [(s.name, s.type, s.default) for s in settings_of(function)] == [("gamma", float, 1.0)]


def test_a_section_s_settings_are_its_fields():
    assert [(s.name, s.type, s.default) for s in settings_of(Needy)] == [("must", int, REQUIRED), ("may", int, 1)]


def test_a_setting_without_a_type_is_refused_by_name():
    with pytest.raises(RegistryError, match=r"test_schema\.untyped: setting 'gamma' needs a type"):
        settings_of(untyped)


def test_defaults_become_the_node():
    node = node_of()
    assert {key: node[key] for key in ("count", "share", "on", "family", "level", "mixed", "limit", "free")} == {
        "count": 3, "share": 0.5, "on": False, "family": "llama", "level": 1, "mixed": "auto", "limit": None, "free": 1,
    }  # fmt: skip
    assert (list(node.ends), list(node.words), dict(node.table)) == ([-1.0, 1.0], ["a"], {})
    assert OmegaConf.is_missing(node, "name")


def test_a_seed_follows_the_run_s_unless_it_is_set():
    whole = OmegaConf.create({"seed": 11, "task": config_class(Everything, {})})
    assert whole.task.seed == 11
    whole.task.seed = 5
    assert whole.task.seed == 5


def test_a_default_list_is_not_shared():
    config = config_class(Everything, {})
    one, two = config(), config()
    one.words.append("b")
    assert two.words == ["a"]
    assert config().words == ["a"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", "many"), ("count", 1.5), ("share", "half"), ("on", "maybe"), ("level", "x"), ("limit", "x"), ("ends", "x"), ("words", 3)],
)
def test_a_value_of_the_wrong_type_is_refused_while_composing(name, value):
    with pytest.raises((ValidationError, ValueError)):
        node_of(**{name: value})


def test_numbers_and_lists_arrive_as_python_s_own():
    checked = validate(Everything, node_of(name="x", share=0, ends=[1, 2], words=["p", "q"], limit=4, seed=3), "task")
    assert checked == {
        "count": 3, "share": 0.0, "on": False, "name": "x", "family": "llama", "level": 1, "mixed": "auto", "limit": 4,
        "ends": (1.0, 2.0), "words": ["p", "q"], "table": {}, "free": 1, "seed": 3,
    }  # fmt: skip
    assert type(checked["ends"]) is tuple
    assert type(checked["words"]) is list


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.0}, r"task\.share=1\.0: Input should be less than 1"),
        ({"share": -0.1}, r"task\.share=-0\.1: .*greater than or equal to 0"),
        ({"family": "gpt3"}, r"task\.family=gpt3: Input should be 'gpt2' or 'llama'"),
        ({"level": 3}, r"task\.level=3: Input should be 1 or 2"),
        ({"mixed": "manual"}, r"task\.mixed=manual: Input should be 'auto' or 1"),
        ({"limit": 0}, r"task\.limit=0: Input should be greater than 0"),
        ({"ends": [1.0]}, r"task\.ends\.1"),
        ({"ends": [1.0, 2.0, 3.0]}, r"task\.ends"),
    ],
)
def test_choices_and_ranges_are_held(wrong, message):
    with pytest.raises(ConfigError, match=message):
        validate(Everything, node_of(name="x", seed=1, **wrong), "task")


def test_a_missing_setting_is_named_in_full():
    with pytest.raises(ConfigError, match=r"task\.name must be given: add `task\.name=\.\.\.`"):
        validate(Everything, node_of(seed=1), "task")
    with pytest.raises(ConfigError, match=r"needy\.must must be given"):
        validate(Needy, {}, "needy")


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"x has no setting 'gama', did you mean 'gamma'\?; it has: gamma"):
        validate(function, {"gama": 1}, "x")


def test_an_address_is_left_out_only_where_it_is_the_component_s_own():
    own = {"_target_": f"{__name__}.function", "_partial_": True, "gamma": 0.5}
    assert validate(function, own, "x") == {"gamma": 0.5}
    with pytest.raises(ConfigError, match="no setting '_target_'"):
        validate(function, own | {"_target_": "os.system"}, "x")


@pytest.mark.parametrize("given", [3, "words", None, [1]])
def test_settings_must_be_settings(given):
    with pytest.raises(ConfigError, match=r"takes settings; write ppo\.<setting>=<value>"):
        validate(Section, given, "ppo")


@pytest.mark.parametrize(("target", "option"), [(MLPHead, "reward_head=mlp"), (gae, "advantage=gae")])
def test_a_config_is_importable_and_picklable(target, option):
    """By its option's name: a worker of a sweep finds a plugin's so, wherever its file is."""
    config = target.Config
    assert (config.__module__, config.__qualname__) == ("rlhf_lightning.runtime.option_configs", option)
    again = pickle.loads(pickle.dumps(config()))
    assert type(again) is config
    assert again == config()


@pytest.mark.parametrize(("word", "near"), [("hiden", ", did you mean 'hidden'?"), ("zzz", "")])
def test_did_you_mean(word, near):
    assert did_you_mean(word, ["hidden", "dropout"]) == near


registry.load_components()
TARGETS: dict[str, Callable[..., Any]] = {
    **{f"{c.group}={c.name}": c.target for c in registry.components()},
    **{name: registry.section_class(name) for name in registry.section_names()},
    "trainer": TrainerSettings,
    **{f"logger={name}": settings for name, settings in LOGGERS.items()},
}
ELLIPSIS = re.compile(r"(of|as in|as for)\b")
"""Beginnings that say nothing without the setting's name or another option."""


def test_every_setting_has_a_description():
    """An entry `name: text` under Args or Attributes of the component's or section's docstring."""
    described = {f"{key} {name}": text for key, target in TARGETS.items() for name, text in descriptions_of(target).items()}
    assert [setting for setting, text in described.items() if not text] == []
    assert [f"{setting}: {text}" for setting, text in described.items() if ELLIPSIS.match(text)] == []


@dataclass
class Base:
    """Settings.

    Attributes:
        rate: of the base.
        steps, width: numbers of both,
            continued on a second line.
    """

    rate: float = 1.0
    steps: int = 2


@dataclass
class Derived(Base):
    """Other settings.

    Attributes:
        rate: its own description: with a colon.
    """

    width: int = 3
    height: int = 4


def test_entries_are_inherited_replaced_and_shared():
    shared = "numbers of both, continued on a second line."
    assert descriptions_of(Derived) == {"rate": "its own description: with a colon.", "steps": shared, "width": shared, "height": ""}


def scale(x: float, *, factor: float = 1.0, offset: float = 0.0) -> float:
    """Scale a number.

    Args:
        x: no setting.
        factor: multiplies x.
    """
    return x * factor + offset


def test_positional_parameters_are_no_settings():
    assert descriptions_of(scale) == {"factor": "multiplies x.", "offset": ""}
