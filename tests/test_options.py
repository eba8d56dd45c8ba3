"""Every option of every group composes and runs two steps of the stage that it belongs to; so do presets and combinations."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
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


def workbook(rows: list[dict[str, str]]) -> bytes:
    book, content = openpyxl.Workbook(), io.BytesIO()
    for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        book.active.append(cells)
    book.save(content)
    return content.getvalue()


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
        contents = {"csv": csv.encode(), "json": json.dumps(rows).encode(), "jsonl": lines.encode(), "xlsx": workbook(rows)}
        file.write_bytes(contents[name])
    return inspecting(world, name, file, "feedback_format=[pairwise]")


def words_for_filters(world, names: list[str]) -> list[str]:
    (world.files / "words.tsv").write_text("nasty\t1.0\n")
    needed = {
        "leakage": [f"feedback_filter.leakage.against={world.files / 'prompts.jsonl'}"],
        "toxicity": [f"feedback_filter.toxicity.words={world.files / 'words.tsv'}"],
        "language": ["feedback_filter.language.allowed=[en]"],
    }
    source = world.files / "pairs_elsewhere.jsonl"
    source.write_text(json.dumps({"prompt": "Somewhere else:", "chosen": "good", "rejected": "bad"}) + "\n")
    words = ["feedback_format=[pairwise]", f"feedback_filter=[{','.join(names)}]"]
    return inspecting(world, "jsonl", source, *words, *(word for name in names for word in needed.get(name, [])))


def words_for_task(world, name: str) -> list[str]:
    own = world.task if name == "files" else [f"task={name}", "task.demonstrations=60"]
    return ["stage=sft", *own, *world.tiny, *world.sizes]


def words_for_backbone(world, name: str) -> list[str]:
    if name in READERS:
        return world.reward(*world.reader(READERS[name]))
    return world.sft() if name != "causal" else world.ppo()


def words_for_feature(world, name: str) -> list[str]:
    """Beside length, which varies in the world where others may not."""
    return world.reward("reward_head=features", "reward_head.l2=1", f"reward_feature=[{','.join(dict.fromkeys(['length', name]))}]")


def scorer_settings(world) -> dict[str, list[str]]:
    """By scorer what it wants beside its name."""
    program, function = world.files / "score.py", world.files / "rewards.py"
    program.write_text("import json, sys\nfor line in sys.stdin:\n    print(len(json.loads(line)['response']))\n")
    function.write_text("def brevity(responses):\n    return [-len(text) for text in responses]\n")
    return {
        "code": [],
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


def words_for_programs(world, *words: str) -> list[str]:
    file = world.files / "programs.jsonl"
    rows = [{"prompt": f"def f(x):\n    # {i}\n", "entry_point": "f", "calls": [[i], [0]], "expected": [i, 0]} for i in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [word for word in world.ppo("rollout_scorer=[code]", *words) if "task." not in word] + [f"task.prompts={file}"]


def words_for_scorer(world, name: str) -> list[str]:
    if name == "code":
        return words_for_programs(world)
    return world.ppo(f"rollout_scorer=[{name}]", *scorer_settings(world)[name])


def words_for_metric(world, name: str) -> list[str]:
    if name == "reference":
        return world.ppo("evaluation_metric=[reference]", "evaluation_metric.reference.column=response")
    return ["stage=evaluate", "task=reviews", *world.trained, *world.sizes, f"evaluation_metric=[{name}]"]


WORDS: dict[str, Callable[[Any, str], list[str]]] = {
    "stage": lambda world, name: getattr(world, name)(),
    "task": words_for_task,
    "backbone": words_for_backbone,
    "evaluation_metric": words_for_metric,
    "feedback_annotator": lambda world, name: world.rounds(f"feedback_annotator={name}"),
    "feedback_format": words_for_format,
    "feedback_source": words_for_source,
    "feedback_filter": lambda world, name: words_for_filters(world, [name]),
    "reward_feature": words_for_feature,
    "rollout_scorer": words_for_scorer,
    "sandbox": lambda world, name: words_for_programs(world, f"sandbox={name}", *["sandbox.i_trust_this_code=true"] * (name == "none")),
    "reward_loss": lambda world, name: world.reward(f"reward_loss=[bradley_terry,plackett_luce,gaussian_rating,{name}]"),
}
"""By group: the tiny command in which an option is at work."""
STAGES = {
    "feedback": "reward",
    "reward": "reward",
    "preference": "preference",
    "rollout": "ppo",
    "advantage": "ppo",
    "policy": "ppo",
    "optimizer": "sft",
}
"""By the first word of the other groups: the stage in which an option is at work."""


def words_for(world, group: str, name: str) -> list[str]:
    """The tiny command in which an option is at work."""
    if group in WORDS:
        return WORDS[group](world, name)
    chosen = f"[{name}]" if registry.GROUPS[group].many else name
    return getattr(world, STAGES[group.partition("_")[0]])(f"{group}={chosen}")


PACKED = [
    "stage=ppo task=files backbone=causal rollout_scorer=reward_model rollout_sampler=native rollout_shaping=[missing_eos] advantage=gae"
    " policy_critic=shared policy_value_loss=clipped policy_loss=ppo_clip policy_reduction=token_mean policy_kl=reward"
    " policy_kl_control=fixed policy_tuning=full",
    "stage=ppo advantage=gae policy_critic=separate policy_value_loss=mse policy_loss=dual_clip policy_reduction=sequence_mean"
    " rollout_sampler=transformers policy_correction=truncated policy_kl=loss policy_kl_control=adaptive policy_tuning=lora",
    "stage=ppo advantage=gae policy_critic=reward_model policy_value_loss=clipped policy_loss=cispo policy_reduction=fixed_length"
    " rollout_sampler=continuous policy_correction=masked policy_kl=reward policy_kl_control=target_range"
    " rollout_shaping=[clip_score,normalise_score,missing_eos,whiten_rewards]",
    "stage=ppo advantage=grpo policy_loss=dual_clip policy_reduction=sequence_mean policy_kl=loss policy_kl_control=target_range"
    " ppo.entropy_coef=0.01 optimizer=muon schedule=constant callback=[lr_monitor,ema]",
    "stage=ppo advantage=rloo policy_loss=gspo policy_reduction=sequence_mean policy_kl=reward policy_kl_control=adaptive"
    " policy_tuning=lora optimizer=lion schedule=linear",
    "stage=ppo advantage=dr_grpo policy_loss=sapo policy_reduction=sequence_sum policy_kl=none rollout_shaping=[normalise_score]"
    " ppo.target_kl=0.01 ppo.epochs=3 optimizer=adafactor schedule=cosine schedule.warmup=1",
    "stage=ppo advantage=opo policy_loss=ppo_clip policy_reduction=fixed_length policy_correction=masked rollout_sampler=native"
    " optimizer=sgd schedule=polynomial",
    "stage=ppo advantage=reinforce policy_loss=reinforce policy_reduction=sequence_sum rollout_shaping=[] evaluation_metric=[]"
    " ppo.prompts_per_update=3 ppo.responses_per_prompt=1 ppo.num_minibatches=3",
    "stage=ppo advantage=reinforce_pp policy_loss=cispo policy_reduction=token_mean rollout_shaping=[whiten_rewards]"
    " rollout_sampler.temperature=0.7 rollout_sampler.top_p=0.9",
    "stage=ppo advantage=reinforce_pp_baseline policy_loss=sapo rollout_sampler=transformers policy_correction=truncated",
    "stage=ppo advantage=remax policy_loss=gspo policy_kl=loss rollout_shaping=[clip_score] +trainer.deterministic=true"
    " +trainer.max_time=00:01:00:00",
    "stage=ppo rollout_scorer=[format,function,language,length,lexicon,match,program,reference]",
    "stage=reward feedback_comment=vader reward_pooling=last reward_head=linear reward_tuning=full"
    " reward_loss=[bradley_terry,plackett_luce,gaussian_rating,davidson,rao_kupper,thumbs,ordinal]"
    " optimizer=adam schedule.warmup=0 callback=[early_stopping] callback.early_stopping.monitor=reward/loss",
    "stage=reward reward_pooling=mean reward_head=mlp reward_tuning=last_layers reward_tuning.layers=1 feedback_filter=[]",
    "stage=reward reward_pooling=attention reward_head=token reward_tuning=lora reward.max_length=8"
    " reward_loss=[bradley_terry,plackett_luce,gaussian_rating,spans]",
    "stage=reward backbone=encoder_decoder reward_pooling=response_mean reward_head=ensemble reward_tuning=frozen",
    "stage=reward backbone=encoder reward_pooling=cls reward_head=ordinal",
    "stage=reward backbone=tiny reward_head=gated reward_head.hidden=4 reward_pooling=mean",
    "stage=reward reward_head=attributes",
    "stage=reward reward_head=features reward_head.l2=1 reward_feature=[character_ngrams,embedding,length,lexicon,markup,ngrams,numbers,"
    "overlap,punctuation,readability,repetition,sentiment]",
    "stage=preference preference_loss=dpo optimizer=adamw schedule=anneal",
    "stage=preference preference_loss=kto preference_loss.from_pairs=true",
    "stage=evaluate evaluation_metric=[utility,length,distinct_2,copy_rate,compression] task=reviews",
    "stage=rounds feedback_annotator=simulated callback=[ema,lr_monitor]",
    "stage=inspect feedback_source=jsonl feedback_format=[pairwise] feedback_filter=[contradictions,cycles,duplicates,encoding,identical,"
    "language,leakage,length,near_duplicates,pii,script,toxicity,whitespace]",
]
"""Commands in each of which several groups have an option at work. An option that is in none of them gets a command of its own."""


def options_in(words: str) -> set[tuple[str, str]]:
    """Group and name of each option that a command chooses."""
    chosen = [word.split("=") for word in words.split() if word.split("=")[0] in registry.GROUPS]
    return {(group, name) for group, value in chosen for name in value.strip("[]").split(",") if name}


def words_for_packed(world, words: str) -> list[str]:
    """The command of a row of PACKED, with the files that its options want."""
    stage, *rest = words.split()
    options = options_in(words)
    if stage == "stage=inspect":
        return words_for_filters(
            world, next(word for word in rest if word.startswith("feedback_filter")).partition("=")[2][1:-1].split(",")
        )
    if stage == "stage=evaluate":
        return [stage, *world.trained, *world.sizes, *rest]
    readers = [word for name in READERS if ("backbone", name) in options for word in world.reader(READERS[name])]
    scorers = [word for word in rest if word.startswith("rollout_scorer=")]
    base = getattr(world, stage.partition("=")[2])(*readers, *scorers)
    if "backbone=tiny" in rest:
        base, rest = (
            [word for word in base if word not in world.trained],
            [*world.tiny, *(word for word in rest if word != "backbone=tiny")],
        )
    rest += [word for group, name in sorted(options) if group == "rollout_scorer" for word in scorer_settings(world)[name]]
    if ("reward_head", "attributes") in options:
        rest += world.aspects
    if ("reward_feature", "embedding") in options:
        rest += [f"reward_feature.lexicon.path={world.files / 'lexicon.tsv'}", f"reward_feature.embedding.path={world.policy}"]
    return [*base, *(word for word in rest if word not in readers)]


IN_PACKED = set.union(*map(options_in, PACKED))
OF_A_SERVER = {("stage", "collect"), ("feedback_source", "collected"), ("rollout_scorer", "judge")}
"""Options that wait for people or a server, or read their answers; their own tests run them."""
OWN_TESTS = {"collect_question", "feedback_selection", "feedback_annotator"}
"""Groups whose tests run every option."""
ALONE = [c for c in registry.components() if (c.group, c.name) not in IN_PACKED | OF_A_SERVER and c.group not in OWN_TESTS]


ANOTHER_MODEL, A_FILE, ANOTHER_JUDGEMENT = "reads another kind of model", "needs a file", "learns from another judgement"
ANOTHER_SHAPE, ANOTHER_INPUT = "scores in another shape", "needs more than the other options"
WITHOUT_CONTRACT = {
    "feedback_source=collected": "reads a database",
    "backbone=encoder": ANOTHER_MODEL, "backbone=encoder_decoder": ANOTHER_MODEL, "feedback_source=hub": "reads a folder",
    "feedback_filter=leakage": A_FILE, "feedback_filter=toxicity": A_FILE, "reward_head=attributes": ANOTHER_SHAPE,
    "reward_head=ensemble": ANOTHER_SHAPE, "reward_head=features": ANOTHER_SHAPE, "reward_head=token": ANOTHER_SHAPE,
    "reward_tuning=frozen": "trains the head alone", "reward_feature=embedding": A_FILE, "reward_feature=lexicon": A_FILE,
    "reward_loss=gaussian_rating": ANOTHER_JUDGEMENT, "reward_loss=ordinal": ANOTHER_JUDGEMENT,
    "reward_loss=plackett_luce": ANOTHER_JUDGEMENT, "reward_loss=spans": ANOTHER_JUDGEMENT, "reward_loss=thumbs": ANOTHER_JUDGEMENT,
    "preference_loss=kto": ANOTHER_JUDGEMENT, "rollout_sampler=vllm": "needs a GPU",
    "optimizer=adamw_8bit": "needs bitsandbytes", "callback=early_stopping": "needs a metric",
    "feedback_annotator=judge": "needs a model", "feedback_annotator=people": "needs people",
    "feedback_annotator=reward_model": "needs a model",
    "feedback_annotator=program": "needs a program", "rollout_scorer=judge": "needs a model",
    "rollout_scorer=function": A_FILE, "rollout_scorer=match": ANOTHER_INPUT,
    "rollout_scorer=reference": ANOTHER_INPUT, "rollout_scorer=program": "needs a program",
    "rollout_scorer=reward_model": ANOTHER_MODEL, "advantage=remax": ANOTHER_INPUT, "policy_critic=reward_model": ANOTHER_INPUT,
    "evaluation_metric=utility": ANOTHER_INPUT, "evaluation_metric=reference": ANOTHER_INPUT,
}  # fmt: skip
"""Options that the contract of their group doesn't fit, and why; their own tests and the run below cover them."""


SOURCES = {"csv": "prompt\na\nb\n", "json": '[{"prompt": "a"}, {"prompt": "b"}]', "xlsx": workbook([{"prompt": "a"}, {"prompt": "b"}])}
ANSWERS = {
    "rating": 4, "ranking": [2, 1], "pairwise": {"choice": "a"}, "thumbs": {"up": True},
    "spans": [{"start": 0, "end": 1, "label": "error"}],
}  # fmt: skip
CONTRACTS = [c for c in registry.components() if c.group != "stage" and f"{c.group}={c.name}" not in WITHOUT_CONTRACT]


@pytest.mark.parametrize("component", CONTRACTS, ids=[f"{c.group}={c.name}" for c in CONTRACTS])
def test_an_option_keeps_the_contract_of_its_group(component):
    row, settings = FORMATS.get(component.name, (None, {})) if component.group == "feedback_format" else (None, {})
    example = SOURCES.get(component.name) if component.group == "feedback_source" else row
    if component.group == "collect_question":
        example = ANSWERS.get(component.name)
    values = {name: yaml.safe_load(value) for name, value in settings.items()}
    if component.path.endswith("last_layers"):
        values = {"layers": 1}
    check_contract(component.group, component.name, example=example, **values)


def check_run(outcome, options: set[tuple[str, str]]) -> None:
    """The command ended well, and these options are in the configuration that ran."""
    assert outcome.code == 0, outcome.error
    assert math.isfinite(outcome.result()["objective"])
    config = (outcome.folder / "config.yaml").read_text()
    missing = [option for option in options if f"_target_: {registry.option(*option).path}\n" not in config]
    assert missing == []


@pytest.mark.parametrize("words", PACKED, ids=[f"{words.split()[0]}, row {i}" for i, words in enumerate(PACKED)])
def test_options_of_several_groups_run_two_steps_together(command, world, words):
    check_run(command(*words_for_packed(world, words)), options_in(words))


@pytest.mark.parametrize("component", ALONE, ids=[f"{c.group}={c.name}" for c in ALONE])
def test_an_option_runs_two_steps(command, world, component):
    package = {"vllm": "vllm", "adamw_8bit": "bitsandbytes"}.get(component.name)
    if package is not None:
        pytest.importorskip(package)
    check_run(command(*words_for(world, component.group, component.name)), {(component.group, component.name)})


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
    if config.reward_head._target_.endswith("FeaturesHead"):
        words += ["reward_head.l2=1"]
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
def test_every_value_of_a_search_space_composes(world, name):
    words, values = space(world, name)
    rows = itertools.zip_longest(*values.values())  # the second values together, and so on
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for row in rows:
            check(compose("config", [*words, *filter(None, row)]))


def test_a_search_space_runs_two_jobs(command, world):
    words, values = space(world, "sft_small")
    first, *others = values.values()
    two = [f"{first[0]},{first[1].partition('=')[2]}", *(several[0] for several in others)]
    outcome = command("-m", *words, "hparams=sft_small", *two)
    assert outcome.code == 0, outcome.error
    assert "2 jobs" in outcome.out
    assert {key for key in values if key in (outcome.folder / "sweep.csv").read_text().splitlines()[0].split(",")} == set(values)


def space(world, name: str) -> tuple[list[str], dict[str, list[str]]]:
    """The command of a search space without its settings, and the overrides of each setting."""
    params = OmegaConf.load(CONF / "hparams" / f"{name}.yaml").hydra.sweeper.params
    stage = {"ppo": world.ppo, "policy_kl_control": world.ppo, "reward": world.reward, "preference": world.preference}
    words = stage.get(next(iter(params)).split(".")[0], world.sft)()
    values = {key: values_of(OverridesParser.create().parse_override(f"{key}={value}")) for key, value in params.items()}
    return [word for word in words if word.split("=")[0] not in values], values
