"""The README and the docs are true: every block of code is run, links lead somewhere, and tables name settings that there are.

A page is a story: its blocks run in order in one folder. A block with a title is that file. A bash block's commands are composed, checked
and run with the sizes of `world`; what a page names and doesn't make itself (`pairs.jsonl`, `MODEL` ...) is put there by `stock`. A block
that can't be run stands under `<!-- not run: REASON -->`, which skips its test with that reason; its commands are composed all the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning import registry
from rlhf_lightning.config.overrides import quote_comparisons
from rlhf_lightning.config.presets import CONF, list_presets
from rlhf_lightning.errors import UserError
from rlhf_lightning.runtime.composition import check
from rlhf_lightning.tracking.logger_settings import NAMINGS

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("docs/ is not shipped with the tests", allow_module_level=True)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PROGRAMS = (["python", "train.py"], ["rlhf-lightning"])
MODELS = {
    "policy": ["MODEL", "gpt2", "runs/SFT/policy", "runs/PPO/policy"],
    "reward_model": ["RM", "runs/REWARD/reward_model", "runs/A/reward_model", "runs/B/reward_model", "A/reward_model", "B/reward_model"],
}
"""Folders that pages name, by what the world has to put there."""
LONG = ("README.md", "docs/tutorial.md", "docs/howto/sweep.md")
ALREADY: set[tuple[str, ...]] = set()
"""Commands that have been run: each is run once, unless it says where."""
SAID = re.compile(r"<!-- not run: (?P<reason>.*?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A block of code: its language, what stands in its first line behind it, its text, and why it isn't run."""

    page: str
    line: int
    language: str
    about: str
    text: str
    not_run: str = ""

    @property
    def title(self) -> str:
        found = re.search(r'title="([^"]+)"', self.about)
        return found.group(1) if found else ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Fenced blocks, and of indented ones those that begin with a command."""
    name, found, lines = str(page.relative_to(ROOT)), [], page.read_text(encoding="utf-8").splitlines()
    place = 0
    while place < len(lines):
        line, start = lines[place], place
        fence = re.match(r"```(\w*)(.*)", line)
        if fence:
            place += 1
            while not lines[place].startswith("```"):
                place += 1
            said = SAID.match(lines[start - 1])
            text = "\n".join(lines[start + 1 : place])
            found.append(Block(name, start + 1, fence.group(1), fence.group(2), text, said["reason"] if said else ""))
        elif line.startswith("    ") and (not start or not lines[start - 1].strip() or SAID.match(lines[start - 1])):
            while place + 1 < len(lines) and (lines[place + 1].startswith("    ") or not lines[place + 1].strip()):
                place += 1
            text = "\n".join(one[4:] for one in lines[start : place + 1])
            said = SAID.match(lines[start - 1])
            if re.search(r"^(python|pip|rlhf-lightning) ", text, re.MULTILINE):
                found.append(Block(name, start + 1, "bash", "", text.strip(), said["reason"] if said else ""))
        place += 1
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
NOT_RUN = [block for block in BLOCKS if block.not_run]


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command of a bash block, comments and variables before it left out."""
    text = block.text.replace("\\\n", " ")
    commands = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        while words:
            part, _, rest = (
                ([*words[: words.index("&&")], "&&"], None, words[words.index("&&") + 1 :]) if "&&" in words else (words, None, [])
            )
            commands.append([word for word in part if word != "&&"])
            words = rest
    return commands


def our_words(command: list[str]) -> list[str] | None:
    """What follows `python train.py` or `rlhf-lightning`; None for another program."""
    for program in PROGRAMS:
        if command[: len(program)] == program:
            return command[len(program) :]
    return None


@pytest.fixture(scope="module")
def stock(tmp_path_factory, world) -> Callable[[Path], None]:
    """Puts what pages name into a folder."""
    rows = [json.loads(line) for line in (world.files / "feedback.jsonl").read_text().splitlines()]
    pairs = "".join(json.dumps(row) + "\n" for row in rows if "chosen" in row)
    shown = (world.files / "prompts.jsonl").read_text()
    stars = "prompt,response,rating\n" + "".join(f"p{i},a{i},{1 + i % 5}\n" for i in range(8))
    files = {name: pairs for name in ("pairs.jsonl", "pairs.jsonl.gz", "P.jsonl", "F.jsonl", "ours.jsonl", "theirs.jsonl")}
    files |= {"prompts.jsonl": shown, "demos.jsonl": shown, "lexicon.tsv": "good\t2.0\nbad\t-2.0\n", "stars.csv": stars}

    foreign = tmp_path_factory.mktemp("classifier")
    classifier = AutoModelForSequenceClassification.from_pretrained(world.policy, num_labels=1)
    tokenizer: Any = AutoTokenizer.from_pretrained(world.policy)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    classifier.save_pretrained(foreign)
    tokenizer.save_pretrained(foreign)

    def put(folder: Path) -> None:
        (folder / "CLASSIFIER").symlink_to(foreign)
        for name, text in files.items():
            (folder / name).write_text(text)
        for kind, places in MODELS.items():
            for place in places:
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).symlink_to(getattr(world, kind))

    return put


def composed(words: list[str]) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [quote_comparisons(word) for word in words if not word.startswith("hydra")])


def first_of_each(words: list[str]) -> list[str]:
    """A sweep's words as those of its first job; another command's as they are."""
    if "-m" not in words:
        return words
    words = [word for word in words if word != "-m"]
    return [re.sub(r"^([^=\[]+=[^\[,]+),.*$", r"\1", word) for word in words]


def sizes_for(world: Any, config: Any, words: list[str]) -> list[str]:
    """The world's sizes, but for what the command says itself."""
    sizes = [*(size for size in world.sizes if not size.startswith("ppo.updates=")), "ppo.updates=1"]
    if config.backbone._target_.endswith("tiny"):
        sizes += world.tiny[1:]
    if config.stage._target_.endswith("rounds"):
        sizes += ["backbone.positions=128", "task.demonstrations=60", "stage.max_rounds=1", "stage.prompts=24", "stage.responses=3"]
    if config.stage._target_.endswith("explain"):
        sizes += ["stage.limit=3"]
    if config.stage._target_.endswith("plan"):
        sizes += ["plan.switches=false"]  # eight rehearsals instead of one: tests/stage/test_plan.py
    if "lexicon" in (config.get("rollout_scorer") or {}):
        sizes += ["ppo.self_checks=false"]  # eight tiny responses may hold none of its words
    if "task.prompts=prompts.jsonl" in words:
        sizes += ["task.test_fraction=0.3"]
    said = {word.partition("=")[0].lstrip("+") for word in words}
    sizes = [size for size in sizes if size.partition("=")[0] not in said]
    return [size for size in sizes if not (size == "logger=none" and any(word.startswith("logger.") for word in said))]


class Story:
    """A page's blocks, run one after the other in its folder."""

    def __init__(self, folder: Path, world: Any, command: Any) -> None:
        self.folder, self.world, self.command = folder, world, command
        self.runs = 0

    def run(self, block: Block) -> None:
        if block.title:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text + "\n")
        getattr(self, block.language, self.nothing)(block)

    def nothing(self, block: Block) -> None:
        """Text and other languages say nothing that could be run."""
        assert block.language in ("text", "toml"), f"{block.where}: a block of {block.language or 'no language'}: name one"
        if block.language == "toml":
            tomllib.loads(block.text)

    def json(self, block: Block) -> None:
        for line in block.text.splitlines() if block.title.endswith("jsonl") else [block.text]:
            json.loads(line)

    def yaml(self, block: Block) -> None:
        assert yaml.safe_load(block.text) is not None

    def python(self, block: Block) -> None:
        registered = re.search(r'^@register\("\w+", "(\w+)"', block.text, re.MULTILINE)
        if registered or block.title.startswith("plugins/"):
            file = self.folder / (block.title or f"plugins/{registered.group(1)}.py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text + "\n")
            load_plugin(file)
        elif not block.title:  # a file with a title is a program, which a command of the page runs
            exec(compile(block.text, block.where, "exec"), {"__name__": "docs"})

    def bash(self, block: Block) -> None:
        for words in commands_of(block):
            ours = our_words(words)
            if ours is None:
                check_other(block, words)
            elif any(word.startswith("hydra/launcher=") for word in ours):
                check(composed(first_of_each(ours)))  # it starts processes: tests/sweep does
            elif {"--cfg", "--check", "--help"} & set(ours) or ours[:1] in (["components"], ["new"], ["judge"], ["look"]):
                self.ends_well(block, ours)
            else:
                self.train(block, ours)

    def train(self, block: Block, words: list[str]) -> None:
        config = composed(first_of_each(words))
        try:
            check(config)
        except UserError as error:
            raise AssertionError(f"{block.where}: {error}") from error
        self.ends_well(block, [*words, *sizes_for(self.world, config, words)])

    def ends_well(self, block: Block, words: list[str]) -> None:
        if tuple(words) in ALREADY and not any(word.startswith("hydra.run.dir=") for word in words):
            return  # another page says the same
        ALREADY.add(tuple(words))
        folder = next((self.folder / word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")), None)
        self.runs += 1
        outcome = self.command(*words, folder=folder or self.folder / "runs" / f"run_{self.runs}")
        assert outcome.code == 0, f"{block.where}: {' '.join(words)}\n{outcome.error}"


def load_plugin(file: Path) -> None:
    """A file of plugins/ as its module, anew where the repository has one of that name."""
    name = f"plugins.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    setattr(sys.modules["plugins"], file.stem, module)


@cache
def extras() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def check_other(block: Block, words: list[str]) -> None:
    """Another program's command: an installation names extras that there are."""
    if words[:2] == ["pip", "install"]:
        named = [one for word in words[2:] for part in re.findall(r"\[([\w,]+)\]", word) for one in part.split(",")]
        assert set(named) <= set(extras()), f"{block.where}: no such extra"
        return
    assert words[:1] == ["pytest"], f"{block.where}: {words[0]} isn't run; mark the block with <!-- not run: REASON -->"


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NAMES])
def test_every_block_of_a_page_runs(name, tmp_path, world, command, stock, monkeypatch, untouched):
    blocks = [block for block in BLOCKS if block.page == name and not block.not_run]
    if not blocks:
        pytest.skip("no code in it that is run")
    stock(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    registry.load_components()
    story = Story(tmp_path, world, command)
    for block in blocks:
        with contextlib.redirect_stdout(None):
            story.run(block)


@pytest.mark.parametrize("block", NOT_RUN, ids=[block.where for block in NOT_RUN])
def test_a_block_that_is_not_run_composes(block):
    """Shown as skipped, with the page's own reason."""
    registry.load_components()
    assert block.not_run.strip()
    for words in commands_of(block):
        ours = our_words(words)
        if ours is not None and "..." not in ours:
            composed(first_of_each(ours))
    pytest.skip(f"not run: {block.not_run}")


OVERRIDE = re.compile(r"^'?[a-z_]+(\.[a-z_]+)*=\S+$")


def overrides_in_tables(page: Path) -> list[tuple[str, list[str]]]:
    """For each code in a table of a page that is made of overrides, where it stands and its words."""
    found = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        column = line.split("|")[2] if line.startswith("|") and line.count("|") >= 3 else ""
        for code in re.findall(r"`([^`]+)`", column):
            words = shlex.split(code)
            words = [word for word in words if not word.startswith(("resume=", "hydra."))]
            if words and all(OVERRIDE.match(word) for word in words):
                found.append((f"{page.relative_to(ROOT)}:{number}", words))
    return found


TABLES = [
    "README.md",
    "docs/howto/from_lightning.md",
    "docs/howto/from_trl.md",
    "docs/howto/from_trl_grpo.md",
    "docs/howto/from_verl_openrlhf.md",
    "docs/howto/several_gpus.md",
]


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_says_to_write_composes(name):
    """With the options that settings belong to, where a cell doesn't name them; cells that don't touch the same group together."""
    registry.load_components()
    cells = overrides_in_tables(ROOT / name)
    assert cells
    together: list[tuple[str, dict[str, str]]] = []
    for where, words in cells:
        given = {word.partition("=")[0] for word in words}
        whole = {word.partition("=")[0]: word for word in [*(word for key in sorted(given) for word in chosen_for(key, given)), *words]}
        tops = {key.partition(".")[0] for key in whole}
        fitting = next((one for one in together if not tops & {key.partition(".")[0] for key in one[1]}), None)
        if fitting is None:
            together.append((where, whole))
        else:
            together[together.index(fitting)] = (f"{fitting[0]}, {where}", fitting[1] | whole)
    for where, whole in together:
        try:
            composed(list(whole.values()))
        except Exception as error:
            raise AssertionError(f"{where}: {' '.join(whole.values())}: {error}") from error


def chosen_for(key: str, given: set[str]) -> list[str]:
    """The option that a setting belongs to, where the default doesn't have it."""
    group, _, setting = key.partition(".")
    if not setting or group in given:
        return []
    if group in registry.GROUPS and registry.GROUPS[group].many:
        return [f"{group}={setting.partition('.')[0]}"]
    options = {"logger": "wandb"} if group in list_presets() else OWNERS
    owner = options.get(f"{group}.{setting}", options.get(group))
    return [f"{group}={owner}"] if owner else []


OWNERS = {
    "backbone": "causal", "task": "files", "preference_loss.gamma": "simpo",
    "policy_critic.warmup": "separate",
}  # fmt: skip


def test_the_names_of_metrics_are_those_that_a_logger_writes():
    page = (ROOT / "docs" / "howto" / "metrics.md").read_text()
    table = page.split("| trl (ours) |")[1].split("\n\n")[0]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| `")]
    for column, naming in ((1, "verl"), (2, "openrlhf")):
        assert {row[0]: row[column] for row in rows if row[column]} == dict(NAMINGS[naming])


def test_the_details_of_ppo_name_code_and_tests_that_there_are():
    missing = []
    for file, test in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "ppo_details.md").read_text()):
        path = ROOT / ("tests" if Path(file).name.startswith("test_") else "rlhf_lightning") / file
        if not path.is_file() or (test and f"def {test}" not in path.read_text()):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_docstrings_link_to_anchors_of_the_docs():
    links = {
        (page, anchor, str(file.relative_to(ROOT)))
        for file in (ROOT / "rlhf_lightning").rglob("*.py")
        for page, anchor in re.findall(r"\bdocs/([\w/]+\.md)#([\w-]+)", file.read_text(encoding="utf-8"))
    }
    assert len(links) > 50
    assert [link for link in links if f'<a id="{link[1]}">' not in (ROOT / "docs" / link[0]).read_text()] == []


def test_the_readme_s_map_names_every_package():
    tree = (ROOT / "README.md").read_text().partition("rlhf_lightning/\n")[2].partition("```")[0]
    packages = {file.parent.name for file in (ROOT / "rlhf_lightning").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))


def test_the_site_builds_without_a_broken_link(tmp_path):
    """A link, an anchor or a page of the navigation that leads nowhere is an error."""
    if shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("mkdocs isn't installed: pip install 'rlhf-lightning[docs]'")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    for group in registry.GROUPS:
        page = (tmp_path / "site" / "reference" / f"{group}.html").read_text()
        for component in registry.components(group):
            if component.target.__module__.startswith("rlhf_lightning."):
                assert f'id="{component.name}"' in page
