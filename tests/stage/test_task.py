"""Conversations of a task against the chat template, before any model loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.stage._task import check_chats
from tests.fixtures.chat_templates import SHAPES, chat, chat_tokenizer
from tests.sft.test_rows import FORGETFUL
from tests.tokenization.test_chat_template import CHATML

ALTERNATING = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ message['role'] + message['content'] }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("messages", "number", "role", "remedy"),
    [
        ((Message(role="system", content="Be kind."), *chat("A?")), 1, "system", "leave out task.system"),
        ((*chat("A?"), *chat("B?")), 2, "user", "let user and assistant take turns"),
        ((*chat("A?", "b"), Message(role="tool", content="c")), 3, "tool", "leave out conversations with tools"),
    ],
)
def test_a_rejected_role_is_named_with_its_line_and_remedy(messages, number, role, remedy):
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    tokenizer.chat_template = ALTERNATING
    assert check_chats(tokenizer, [("rows.jsonl:1", chat("A?", "b"))]) == ""
    with pytest.raises(DataError, match=rf"rows\.jsonl:7: message {number}, of the role {role}: .*{remedy}"):
        check_chats(tokenizer, [("rows.jsonl:1", chat("A?")), ("rows.jsonl:7", messages)])


def test_a_template_that_renders_earlier_answers_otherwise_is_reported_once():
    tokenizer = chat_tokenizer(SHAPES["ChatML"])
    chats = [("rows.jsonl:1", chat("A?", "b")), ("rows.jsonl:2", chat("A?", "t</think>b", "C?", "d")), ("rows.jsonl:3", chat("A?"))]
    for template, expected in ((CHATML, ""), (FORGETFUL, "rows.jsonl:2: the chat template of"), (None, "")):
        tokenizer.chat_template = template
        note = check_chats(tokenizer, chats)
        assert note.startswith(expected)
        assert bool(note) == bool(expected)
    tokenizer.chat_template = FORGETFUL
    assert "message 2 (assistant)" in check_chats(tokenizer, chats)


LONG = "The lamp and the fan and the kettle and the tent and the desk. " * 8


def with_long(world, folder: Path, *, which: str = "some") -> list[str]:
    """The world's task with overlong prompts among those to train on and those held out, or with these alone."""
    lines = [json.loads(line) for line in (world.files / "prompts.jsonl").read_text().splitlines()]
    train = [{"prompt": f"{LONG} {i}", "response": " a good lamp."} for i in range(3)]
    held_out = [{"prompt": f"{LONG} held out {i}"} for i in range(2)]
    files = {"train": [*lines[:6], *train, *lines[6:9]], "test": [*lines[9:], *held_out]}
    if which == "train" or which == "test":
        files[which] = train if which == "train" else held_out
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"task.prompts={folder / 'train.jsonl'}", f"task.test_prompts={folder / 'test.jsonl'}"]


@pytest.mark.parametrize("stage", ["ppo", "evaluate", "preference"])
def test_overlong_prompts_are_left_out_and_counted(command, world, tmp_path, stage):
    words = getattr(world, stage)(*with_long(world, tmp_path), "ppo.updates=3", "evaluation.responses=8")
    outcome = command(*words)
    assert outcome.code == 0, outcome.error
    notes = json.loads((outcome.folder / "report.json").read_text())["notes"]
    for expected in ("3 of 12 training prompts are too long and left out", "2 of 5 held-out prompts are too long and left out"):
        assert expected in outcome.out
        assert any(expected in note and "64 positions" in note for note in notes)


@pytest.mark.parametrize("stage", ["ppo", "evaluate", "preference"])
@pytest.mark.parametrize(
    ("which", "words"), [("train", "none of the 3 training prompts fits"), ("test", "none of the 2 held-out prompts fits")]
)
def test_prompts_that_are_all_too_long_are_an_error_before_training(command, world, tmp_path, stage, which, words):
    outcome = command(*getattr(world, stage)(*with_long(world, tmp_path, which=which)))
    assert outcome.code == 2
    assert words in outcome.error
    assert "64 positions" in outcome.error
    assert "Traceback" not in outcome.error
    assert not (outcome.folder / "policy").exists()


def test_an_encoder_decoder_leaves_out_what_its_encoder_can_t_read(command, world, tmp_path):
    words = with_long(world, tmp_path)
    scorer = ["rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={world.files / 'lexicon.tsv'}"]
    outcome = command("stage=ppo", *world.task, *world.reader("bart"), *scorer, *world.sizes, *words)
    assert outcome.code == 0, outcome.error
    assert "3 of 12 training prompts are too long and left out" in outcome.out
    assert "encoder's 64 positions" in outcome.out


def test_rounds_leave_them_out(command, world):
    """The prompts of task=reviews have 14 to 26 tokens in this vocabulary."""
    outcome = command(*world.rounds("backbone.positions=64", "rollout_sampler.max_new_tokens=41"))
    assert outcome.code == 0, outcome.error
    assert re.search(r"\d+ of 77 training prompts are too long and left out", outcome.out)
    assert any("training prompts" in note for note in json.loads((outcome.folder / "report.json").read_text())["notes"])


def test_the_reference_s_positions_bind_too(command, world):
    other = command(*world.sft("backbone.positions=24", "sft.epochs=1"))
    assert other.code == 0, other.error
    outcome = command(*world.evaluate(f"stage.reference={other.folder / 'policy'}", "rollout_sampler.max_new_tokens=20"))
    assert outcome.code == 2
    assert "24 positions" in outcome.error


def test_a_critic_of_fewer_positions_binds_too(command, world, tmp_path):
    """policy_critic=reward_model reads the policy's tokens with the reward model's trunk."""
    policy = command(*world.sft("backbone.positions=512", "sft.epochs=1"))
    assert policy.code == 0, policy.error
    backbone = ["backbone=causal", f"backbone.path={policy.folder / 'policy'}"]
    words = ["policy_critic=reward_model", *with_long(world, tmp_path), *backbone]
    outcome = command(*world.ppo(*words))
    assert outcome.code == 0, outcome.error
    assert "3 of 12 training prompts are too long and left out" in outcome.out
    assert "64 positions of the reward model" in outcome.out
