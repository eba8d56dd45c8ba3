"""Settings that are written like flags, or with blanks, are told how they are written; everything else passes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rlhf_lightning.config.overrides import check_arguments, double_quote, expand_home, quoting_hint
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import build, load_components, option
from rlhf_lightning.runtime.composition import expand_paths


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("--stage=ppo", "stage=ppo"),
        ("stage=sft --seed 3", "seed=3"),
        ("--backbone.path=x", "backbone.path=x"),
        ("-stage=ppo seed=1", "stage=ppo"),
        ("-seed=3", "seed=3"),
        ("--ppo.learning_rate 1e-5", "ppo.learning_rate=1e-5"),
        ("-m --seed=1,2", "seed=1,2"),
        ("--hydra.run.dir=runs/x", "hydra.run.dir=runs/x"),
        ("--resume runs/x", "resume=runs/x"),
        ("--config-path runs/x --seed=3", "seed=3"),
        ("--seed: 3", "seed=3"),
        ("stage: ppo", "stage=ppo"),
        ("'stage: ppo'", "stage=ppo"),
        ("seed =3", "seed=3"),
        ("seed = 3", "seed=3"),
        ("'seed = 3'", "seed=3"),
        ("seed= 3", "seed=3"),
        ("stage=sft ppo.updates =80 seed=1", "ppo.updates=80"),
    ],
)
def test_a_message_shows_how_a_setting_is_written(line, written):
    with pytest.raises(ConfigError, match=f"write {written}$"):
        check_arguments(shlex.split(line))


@pytest.mark.parametrize("flag", ["--frobnicate", "--multirn", "--experimental-rerun", "-x", "--seed"])
def test_what_is_no_flag_is_listed(flag):
    with pytest.raises(ConfigError, match=f"unrecognized arguments: {flag}.*the flags are --cfg, .*--multirun"):
        check_arguments(["stage=sft", flag])


@pytest.mark.parametrize(
    "line",
    [
        "stage=ppo seed=3", "-m seed=1,2", "--multirun seed=1,2", "--multi seed=1", "--cfg job", "-c job --resolve", "-cp x",
        "--config-path runs/x seed=1", "--config-path=a=b", "--config-dir -x", "~logger", "+x=1", "++x=1", "x= y=1", "x= ~logger", "x= -m",
        "--info", "--info searchpath", "'x=a: b'", "'x=a = b'", "'x={a: 1}'", "'x=[a, b]'", "resume=runs/x", "'resume=a = b'",
        "-sc install=bash", "--version", "--hydra-help", "-p x", "'a.b@c=d'", "hydra/launcher=joblib",
    ],
)  # fmt: skip
def test_everything_else_passes(line):
    check_arguments(shlex.split(line))


def test_the_command_ends_with_the_hint(command):
    outcome = command("stage=inspect", "--seed", "3")
    assert outcome.code == 2
    assert outcome.error == "error: --seed 3: a setting has no dashes in front, and an equals sign: write seed=3\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home of ö=1"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        (["backbone.path=~/x"], ['backbone.path="HOME/x"']),
        (["+a.b=~/x/y.jsonl"], ['+a.b="HOME/x/y.jsonl"']),
        (["a=~"], ['a="HOME"']),
        (["hydra.run.dir=~/runs/x"], ['hydra.run.dir="HOME/runs/x"']),
        (["hydra.sweep.dir='~/runs/x'"], ["hydra.sweep.dir='HOME/runs/x'"]),
        (["resume=~/runs/x", "-m"], ["resume=HOME/runs/x", "-m"]),
        (["--config-path", "~/x", "seed=1"], ["--config-path", "HOME/x", "seed=1"]),
        (["--config-path=~/x", "-cd=~/y"], ["--config-path=HOME/x", "-cd=HOME/y"]),
        (["~logger", "~task.prompts", "a=x~y", "a='~/x'", "a=[~/x]"], ["~logger", "~task.prompts", "a=x~y", "a='~/x'", "a=[~/x]"]),
    ],
)
def test_the_home_folder_in_a_command(home, words, expanded):
    assert expand_home(words) == [word.replace("HOME", str(home)) for word in expanded]


@pytest.mark.parametrize("value", ["a b", "lr=0.1/x", 'q"q', 'q\\"q', "end\\", "'", "ö,[](){}", "~/x", "#!;", "a", "${x"])
def test_a_quoted_value_is_read_to_the_letter(value):
    override = OverridesParser.create().parse_override(f"a={double_quote(value)}")
    assert override.value() == value


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("backbone.path=lr=0.1/llama", "'backbone.path=\"lr=0.1/llama\"'"),
        ("+backbone.path=a(b/c", "'+backbone.path=\"a(b/c\"'"),
        ("a.b=~x,~y", "'a.b=\"~x,~y\"'"),
        ("a.b=it's", "'a.b=\"it'\"'\"'s\"'"),
        ("feedback_format=[edit", ""),
        ("nothing", ""),
        ("=x", ""),
    ],
)
def test_the_word_to_paste(word, hint):
    assert quoting_hint(word) == hint
    if hint:
        (pasted,) = shlex.split(hint)
        assert OverridesParser.create().parse_override(pasted).value() == word.partition("=")[2]


def test_a_value_with_an_equals_sign_is_answered_by_the_word_to_paste(command):
    outcome = command("stage=reward", "backbone=causal", "backbone.path=lr=0.1/llama")
    assert outcome.code == 2
    assert "write 'backbone.path=\"lr=0.1/llama\"'" in outcome.error


def test_every_setting_that_is_a_path_knows_the_home_folder(home):
    load_components()
    (home / "x").mkdir()
    config = OmegaConf.create(
        {
            "ppo": {"held_out_scorer": "~/x"},
            "backbone": {"_target_": option("backbone", "causal").path, "path": "~/x"},
            "task": {
                "_target_": option("task", "files").path, "prompts": "~/p", "test_prompts": "~/t", "demonstrations": "~/d", "prefix": "~/",
            },
            "rollout_scorer": {"lexicon": {"_target_": option("rollout_scorer", "lexicon").path, "path": "~/l"}},
            "stage": {"_target_": option("stage", "evaluate_reward").path, "models": ["~/x", "hub/name"]},
            "feedback_source": {
                "jsonl": {"_target_": option("feedback_source", "jsonl").path, "path": "~/f"},
                "csv": {"_target_": option("feedback_source", "csv").path, "path": ["~/f", "g"]},
            },
            "feedback_filter": {
                "leakage": {"_target_": option("feedback_filter", "leakage").path, "against": ["~/a"]},
                "toxicity": {"_target_": option("feedback_filter", "toxicity").path, "words": "~/w", "model": "~/m"},
            },
            "reward_feature": {
                "embedding": {"_target_": option("reward_feature", "embedding").path, "path": "~/x"},
                "lexicon": {"_target_": option("reward_feature", "lexicon").path, "path": "~/l"},
            },
        }
    )  # fmt: skip
    expand_paths(config)
    left = json.dumps(OmegaConf.to_container(config), ensure_ascii=False)
    assert left.count("~/") == 1, left
    assert config.task.prefix == "~/"
    assert config.stage.models == [f"{home}/x", "hub/name"]


def test_a_source_and_a_task_read_from_the_home_folder(home):
    load_components()
    (home / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    task = build({"_target_": option("task", "files").path, "prompts": "~/p.jsonl", "test_fraction": 0.0})
    assert [row.prompt for row in task.train_prompts()] == ["a", "b"]
    rows = build({"_target_": option("feedback_source", "jsonl").path, "path": "~/p.jsonl"})
    assert [row.data["prompt"] for row in rows()] == ["a", "b"]


def test_a_run_in_and_from_the_home_folder(command, home):
    (home / "p.jsonl").write_text("".join(json.dumps({"prompt": f"q{i}", "chosen": f"good {i}", "rejected": "b"}) + "\n" for i in range(9)))
    words = ["stage=inspect", "logger=none", "feedback_source=jsonl", "feedback_format=[pairwise]", "feedback_source.jsonl.path=~/p.jsonl"]
    outcome = command(*words, "hydra.run.dir=~/run")
    assert outcome.code == 0, outcome.error
    assert (home / "run" / "result.json").is_file()
    # Read as YAML, which wraps a long path.
    assert OmegaConf.load(home / "run" / "config.yaml").feedback_source.jsonl.path == f"{home}/p.jsonl"
