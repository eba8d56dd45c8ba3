"""Every option of every group composes and runs two steps of the stage that it belongs to; so do presets and combinations."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rlhf_lightning import registry
from rlhf_lightning.cli.sweep.check import values_of
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.runtime.composition import check
from rlhf_lightning.testing.check import check_contract

registry.load_components()
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
SPACES = sorted(file.stem for file in (CONF / "hparams").glob("*.yaml"))

PPO = ("rollout_sampler", "rollout_shaping", "advantage", "policy_critic", "policy_loss", "policy_correction",
       "policy_kl", "policy_reduction", "policy_value_loss", "policy_kl_control", "policy_tuning")  # fmt: skip
REWARD = ("feedback_comment", "reward_pooling", "reward_head", "reward_tuning", "reward_loss")
PREFERENCE = ("preference_loss",)
READERS = {"encoder": "bert", "encoder_decoder": "t5"}
"""A family of each backbone that reads and doesn't write."""


FORMATS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "pairwise": ({"prompt": "p", "chosen": "good", "rejected": "bad"}, {}),
    "verdict": ({"prompt": "p", "response_1": "good", "response_2": "bad", "verdict": 1}, {}),
    "ranking": ({"prompt": "p", "responses": ["good", "bad", "so so"], "ranking": [0, 2, 1]}, {}),
    "rating": ({"prompt": "p", "response": "good", "rating": 5}, {"scale": "[1,7]"}),
    "attributes": ({"prompt": "p", "response": "good", "ratings": {"helpfulness": 3}}, {"scale": "[0,4]"}),
    "edit": ({"prompt": "p", "response": "bad", "edit": "good"}, {}),
    "thumbs": ({"prompt": "p", "response": "good", "label": True}, {}),
    "spans": ({"prompt": "p", "response": "a bad word", "spans": [{"start": 2, "end": 5, "value": -1}]}, {}),
    "stepwise": ({"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}, {}),
    "comment": ({"prompt": "p", "response": "good", "comment": "I like it."}, {}),
    "dialogue": (
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "good", "rating": 4}]},
        {"scale": "[1,5]"},
    ),
    "record": ({"version": 1, "prompt": "p", "responses": ["good", "bad"], "judgement": {"kind": "ranking", "ranks": [0, 1]}}, {}),
    "oasst": (
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "p",
                "role": "prompter",
                "replies": [{"text": t, "role": "assistant", "rank": i, "replies": []} for i, t in enumerate(["good", "bad"])],
            },
        },
        {},
    ),
    "label_studio": (
        {
            "data": {"prompt": "p", "answer1": "good", "answer2": "bad"},
            "annotations": [
                {"completed_by": 1, "result": [{"type": "pairwise", "from_name": "c", "to_name": "t", "value": {"selected": "left"}}]}
            ],
        },
        {},
    ),
    "argilla": (
        {"fields": {"prompt": "p", "response": "good"}, "responses": {"q": [{"value": 4, "user_id": "u"}]}},
        {"questions": "{q: rating}", "scale": "[1,5]"},
    ),
}  # fmt: skip
"""For each feedback_format a row and the settings that it needs."""


def inspecting(world, source: str, file: Path, *words: str) -> list[str]:
    return ["stage=inspect", "logger=none", f"feedback_source={source}", f"feedback_source.{source}.path={file}", *words]


def words_for_format(world, name: str) -> list[str]:
    row, settings = FORMATS[name]
    file = world.files / f"{name}.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return inspecting(
        world, "jsonl", file, f"feedback_format=[{name}]", *(f"feedback_format.{name}.{key}={v}" for key, v in settings.items())
    )


def words_for_source(world, name: str) -> list[str]:
    """The same three pairs from each source."""
    rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(3)]
    file = world.files / f"pairs.{name}"
    if name == "hub":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(file))
    else:
        csv = "prompt,chosen,rejected\n" + "".join(",".join(row.values()) + "\n" for row in rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text({"csv": csv, "json": json.dumps(rows), "jsonl": lines}[name])
    return inspecting(world, name, file, "feedback_format=[pairwise]")


def words_for_filter(world, name: str) -> list[str]:
    (world.files / "words.tsv").write_text("nasty\t1.0\n")
    needed = {
        "leakage": [f"feedback_filter.leakage.against={world.files / 'prompts.jsonl'}"],
        "toxicity": [f"feedback_filter.toxicity.words={world.files / 'words.tsv'}"],
        "language": ["feedback_filter.language.allowed=[en]"],
    }.get(name, [])
    source = world.files / "pairs_elsewhere.jsonl"
    source.write_text(json.dumps({"prompt": "Somewhere else:", "chosen": "good", "rejected": "bad"}) + "\n")
    return inspecting(world, "jsonl", source, "feedback_format=[pairwise]", f"feedback_filter=[{name}]", *needed)


def words_for_task(world, name: str) -> list[str]:
    own = world.task if name == "files" else [f"task={name}", "task.demonstrations=60"]
    return ["stage=sft", *own, *world.tiny, *world.sizes]


def words_for_backbone(world, name: str) -> list[str]:
    if name in READERS:
        return world.reward(*world.reader(READERS[name]))
    return world.sft() if name != "causal" else world.ppo()


def words_for_loss(world, name: str) -> list[str]:
    default = ["bradley_terry", "plackett_luce", "gaussian_rating"]
    needed = ["reward_head=token"] if name == "spans" else []
    return world.reward(*needed, f"reward_loss=[{','.join([*default, *({name} - set(default))])}]")


def words_for_feature(world, name: str) -> list[str]:
    """Beside length, which varies in the world where others may not."""
    needed = {
        "lexicon": [f"reward_feature.lexicon.path={world.files / 'lexicon.tsv'}"],
        "embedding": [f"reward_feature.embedding.path={world.policy}"],
    }.get(name, [])
    chosen = ",".join(dict.fromkeys(["length", name]))
    return world.reward("reward_head=features", f"reward_feature=[{chosen}]", *needed)


def scorer_settings(world) -> dict[str, list[str]]:
    """By scorer what it wants beside its name."""
    program, function = world.files / "score.py", world.files / "rewards.py"
    program.write_text("import json, sys\nfor line in sys.stdin:\n    print(len(json.loads(line)['response']))\n")
    function.write_text("def brevity(responses):\n    return [-len(text) for text in responses]\n")
    return {
        "format": ["rollout_scorer.format.pattern='[a-z]'", "rollout_scorer.format.match=search"],
        "function": [f"rollout_scorer.function.path={function}:brevity"],
        "language": ["rollout_scorer.language.min_characters=0"],
        "length": ["rollout_scorer.length.longest=2"],
        "lexicon": [f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}"],
        "match": ["rollout_scorer.match.column=response"],
        "program": [f"rollout_scorer.program.command='{sys.executable} {program}'"],
        "reference": ["rollout_scorer.reference.column=response"],
        "reward_model": world.scorer[1:],
    }


def words_for_scorer(world, name: str) -> list[str]:
    return world.ppo(f"rollout_scorer=[{name}]", *scorer_settings(world)[name])


WORDS: dict[str, Callable[[Any, str], list[str]]] = {
    "stage": lambda world, name: getattr(world, name)(),
    "task": words_for_task,
    "backbone": words_for_backbone,
    "evaluation_metric": lambda w, name: ["stage=evaluate", "task=reviews", *w.trained, *w.sizes, f"evaluation_metric=[{name}]"],
    "feedback_annotator": lambda world, name: world.rounds(f"feedback_annotator={name}"),
    "feedback_format": words_for_format,
    "feedback_source": words_for_source,
    "feedback_filter": words_for_filter,
    "reward_feature": words_for_feature,
    "rollout_scorer": words_for_scorer,
    "reward_loss": words_for_loss,
}
"""By group: the tiny command in which an option is at work."""
BESIDE: dict[str, Callable[[Any], list[str]]] = {
    "reward_head=attributes": lambda world: world.aspects,
    "reward_pooling=cls": lambda world: world.reader("bert"),
    "reward_tuning=last_layers": lambda world: ["reward_tuning.layers=1"],
    "preference_loss=kto": lambda world: ["preference_loss.from_pairs=true"],
}
"""What an option wants beside it."""


def words_for(world, group: str, name: str) -> list[str]:
    """The tiny command in which an option is at work."""
    if group in WORDS:
        return WORDS[group](world, name)
    chosen = f"{group}=[{name}]" if registry.GROUPS[group].many else f"{group}={name}"
    beside = BESIDE.get(chosen, lambda world: [])(world)
    assert group in PPO + REWARD + PREFERENCE, f"say here in which command {group}={name} is at work"
    stage = world.ppo if group in PPO else world.reward if group in REWARD else world.preference
    return stage(*beside, chosen)


ANOTHER_MODEL, A_FILE, ANOTHER_JUDGEMENT = "reads another kind of model", "needs a file", "learns from another judgement"
ANOTHER_SHAPE, ANOTHER_INPUT = "scores in another shape", "needs more than the other options"
WITHOUT_CONTRACT = {
    "backbone=encoder": ANOTHER_MODEL, "backbone=encoder_decoder": ANOTHER_MODEL, "feedback_source=hub": "reads a folder",
    "feedback_filter=leakage": A_FILE, "feedback_filter=toxicity": A_FILE, "reward_head=attributes": ANOTHER_SHAPE,
    "reward_head=ensemble": ANOTHER_SHAPE, "reward_head=features": ANOTHER_SHAPE, "reward_head=token": ANOTHER_SHAPE,
    "reward_tuning=frozen": "trains the head alone", "reward_feature=embedding": A_FILE, "reward_feature=lexicon": A_FILE,
    "reward_loss=gaussian_rating": ANOTHER_JUDGEMENT, "reward_loss=ordinal": ANOTHER_JUDGEMENT,
    "reward_loss=plackett_luce": ANOTHER_JUDGEMENT, "reward_loss=spans": ANOTHER_JUDGEMENT, "reward_loss=thumbs": ANOTHER_JUDGEMENT,
    "preference_loss=kto": ANOTHER_JUDGEMENT, "rollout_sampler=vllm": "needs a GPU",
    "rollout_scorer=function": A_FILE, "rollout_scorer=match": ANOTHER_INPUT,
    "rollout_scorer=reference": ANOTHER_INPUT, "rollout_scorer=program": "needs a program",
    "rollout_scorer=reward_model": ANOTHER_MODEL, "advantage=remax": ANOTHER_INPUT, "policy_critic=reward_model": ANOTHER_INPUT,
    "evaluation_metric=utility": ANOTHER_INPUT,
}  # fmt: skip
"""Options that the contract of their group doesn't fit, and why; their own tests and the run below cover them."""
SOURCES = {"csv": "prompt\na\nb\n", "json": '[{"prompt": "a"}, {"prompt": "b"}]'}
CONTRACTS = [c for c in registry.components() if c.group != "stage" and f"{c.group}={c.name}" not in WITHOUT_CONTRACT]


@pytest.mark.parametrize("component", CONTRACTS, ids=[f"{c.group}={c.name}" for c in CONTRACTS])
def test_an_option_keeps_the_contract_of_its_group(component):
    row, settings = FORMATS.get(component.name, (None, {})) if component.group == "feedback_format" else (None, {})
    example = SOURCES.get(component.name) if component.group == "feedback_source" else row
    values = {name: yaml.safe_load(value) for name, value in settings.items()}
    if component.path.endswith("last_layers"):
        values = {"layers": 1}
    check_contract(component.group, component.name, example=example, **values)


@pytest.mark.parametrize("component", registry.components(), ids=[f"{c.group}={c.name}" for c in registry.components()])
def test_an_option_runs_two_steps(command, world, component):
    if component.name == "vllm":
        pytest.importorskip("vllm")
    outcome = command(*words_for(world, component.group, component.name))
    assert outcome.code == 0, outcome.error
    assert math.isfinite(outcome.result()["objective"])
    config = (outcome.folder / "config.yaml").read_text()
    assert f"_target_: {component.path}\n" in config, "the option must be in the configuration that ran"


@pytest.mark.parametrize(
    "words",
    [
        ["advantage=gae", "policy_critic=shared"],
        ["advantage=gae", "policy_critic=separate"],
        ["ppo.target_kl=0.01", "ppo.epochs=3"],
        ["policy_kl_control=adaptive", "rollout_shaping=[clip_score,missing_eos,whiten_rewards]"],
        ["advantage=rloo", "policy_loss=gspo", "policy_reduction=sequence_mean"],
        ["advantage=grpo", "policy_loss=dual_clip", "ppo.entropy_coef=0.01", "ppo.learning_rate_schedule=constant"],
        ["rollout_shaping=[]", "evaluation_metric=[]"],
        ["rollout_sampler.temperature=0.7", "rollout_sampler.top_p=0.9"],
        ["ppo.prompts_per_update=3", "ppo.responses_per_prompt=1", "ppo.num_minibatches=3"],
        ["trainer.precision=bf16-mixed"],
        ["+trainer.deterministic=true", "+trainer.max_time=00:01:00:00"],
    ],
    ids=" ".join,
)
def test_a_combination_runs(command, world, words):
    outcome = command(*world.ppo(*words))
    assert outcome.code == 0, outcome.error


@pytest.mark.parametrize(
    "words",
    [
        ["reward_tuning=frozen", "reward_head=linear"],
        ["reward_head=gated", "reward_head.hidden=4", "reward_pooling=mean"],
        ["reward.learning_rate_schedule=constant", "reward.warmup_fraction=0"],
        ["reward.max_length=8"],
        ["feedback_filter=[]"],
        ["feedback_filter=[encoding,identical,duplicates,length,contradictions]"],
        ["backbone=tiny", "backbone.width=16", "backbone.heads=2", "backbone.layers=1"],
    ],
    ids=" ".join,
)
def test_a_combination_of_the_reward_model_runs(command, world, words):
    words = [*world.reward(), *words]
    if "backbone=tiny" in words:
        words = [word for word in words if word not in world.trained]
    outcome = command(*words)
    assert outcome.code == 0, outcome.error


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_architecture_goes_through_every_stage(command, world, family):
    sft = command(*world.sft(f"backbone.family={family}", "backbone.positions=64"))
    trained = ["backbone=causal", f"backbone.path={sft.folder / 'policy'}"]
    reward = command(*world.reward(*trained))
    ppo = command(*world.ppo(*trained, f"rollout_scorer.reward_model.path={reward.folder / 'reward_model'}"))
    assert (sft.code, reward.code, ppo.code) == (0, 0, 0), sft.error + reward.error + ppo.error


def test_the_trainers_compose(command, world):
    said = {"cpu": "devices: 1", "gpu": "precision: bf16-mixed", "ddp": "strategy: ddp", "fsdp2": "strategy: fsdp2"}
    said |= {"multi_node": "num_nodes: 2", "deepspeed": "strategy: deepspeed_stage_2"}
    for trainer, expected in said.items():
        outcome = command(f"trainer={trainer}", "--cfg", "job", "--package", "trainer")
        assert outcome.code == 0, outcome.error
        assert expected in outcome.out


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard", "wandb"])
def test_a_logger_writes_every_update(command, world, logger, monkeypatch):
    if logger in ("tensorboard", "wandb"):
        pytest.importorskip(logger)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    outcome = command(*world.ppo(f"logger={logger}"))
    assert outcome.code == 0, outcome.error
    found = {
        "none": [],
        "csv": list(outcome.folder.glob("logs/ppo/metrics.csv")),
        "tensorboard": list(outcome.folder.glob("logs/ppo/events.out.tfevents.*")),
        "wandb": list(outcome.folder.glob("wandb/offline-run-*/run-*.wandb")),
    }
    assert [name for name, files in found.items() if files] == ([] if logger == "none" else [logger])
    if logger == "csv":
        header, *rows = found["csv"][0].read_text().splitlines()
        assert "objective/kl" in header.split(",")
        assert len(rows) == 2
    if logger == "wandb":
        import wandb

        assert wandb.run is None, "a run that stays open would swallow the next job's"


def test_every_preset_is_tried_here():
    loggers = {file.stem for file in (CONF / "logger").glob("*.yaml")}
    trainers = {file.stem for file in (CONF / "trainer").glob("*.yaml")}
    assert loggers == {"none", "csv", "tensorboard", "wandb"}
    assert trainers == {"cpu", "gpu", "ddp", "fsdp2", "multi_node", "deepspeed"}


def tiny_experiment(world, name: str) -> list[str]:
    """An experiment with the world's files and sizes in the place of its own."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"experiment={name}"])
    chosen = {group: config[group]._target_.split(".")[-1] for group in ("task", "backbone")}
    words = [f"experiment={name}", "trainer=cpu", *world.sizes]
    words += world.trained[1:] if chosen["backbone"] == "causal" else world.tiny
    words += world.task[1:] if chosen["task"] == "Files" else ["task.demonstrations=60"]
    if config.get("feedback_source"):
        words += [*world.feedback, "feedback_format=[pairwise,rating,ranking,edit]"]
    if config.get("rollout_scorer"):
        words += [word for name in config.rollout_scorer for word in scorer_settings(world)[name]]
    if config.stage._target_.endswith("rounds"):
        words += ["stage.max_rounds=1", "stage.prompts=24", "stage.responses=3"]
    return words


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_and_runs_two_steps(command, world, name):
    outcome = command(*tiny_experiment(world, name))
    assert outcome.code == 0, outcome.error


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_states_its_command_and_its_result(name):
    header = "".join(line for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines(True) if line.startswith("#"))
    assert header.startswith("# @package _global_\n")
    assert f"python train.py experiment={name}" in header
    assert re.search(r"# Result.*\d", header)


@pytest.mark.parametrize("name", SPACES)
def test_a_search_space_composes_and_runs_two_jobs(command, world, name):
    params = OmegaConf.load(CONF / "hparams" / f"{name}.yaml").hydra.sweeper.params
    stage = {"ppo": world.ppo, "policy_kl_control": world.ppo, "reward": world.reward, "preference": world.preference}
    words = stage.get(next(iter(params)).split(".")[0], world.sft)()
    values = {key: values_of(OverridesParser.create().parse_override(f"{key}={value}")) for key, value in params.items()}
    keys = [word for word in words if word.split("=")[0] not in values]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for word in [one for several in values.values() for one in several]:
            check(compose("config", [*keys, word]))
    outcome = command("-m", *keys, f"hparams={name}", *two_jobs(name, values))
    assert outcome.code == 0, outcome.error
    assert "2 jobs" in outcome.out
    assert {key for key in values if key in (outcome.folder / "sweep.csv").read_text().splitlines()[0].split(",")} == set(values)


def two_jobs(name: str, values: dict[str, list[str]]) -> list[str]:
    """What makes two jobs of a search space: two values of its first setting and one of the others, or two of Optuna's trials."""
    if "optuna" in (CONF / "hparams" / f"{name}.yaml").read_text():
        return ["hydra.sweeper.n_trials=2"]
    first, *others = values.values()
    return [f"{first[0]},{first[1].partition('=')[2]}", *(several[0] for several in others)]
