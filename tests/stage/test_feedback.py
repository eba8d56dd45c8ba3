"""A chat that a model's template rejects is a bad line: named, before any weights load, and quarantined where the command says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def with_template(source: Path, target: Path) -> Path:
    """A copy of a model's folder whose chat template rejects system turns."""
    shutil.copytree(source, target)
    config = target / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": TEMPLATE}))
    (target / "chat_template.jinja").unlink(missing_ok=True)
    return target


@pytest.fixture
def no_weights(monkeypatch) -> None:
    """Weights that must not be loaded."""

    def fail(*args: object, **options: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", fail)


@pytest.fixture
def chats(tmp_path) -> list[str]:
    rows = []
    for i in range(20):
        system = [{"role": "system", "content": "Be kind."}] if i == 13 else []
        prompt = [*system, {"role": "user", "content": f"The lamp {i}:"}]
        rows.append({"prompt": prompt, "chosen": " a good lamp.", "rejected": " bad, bad lamp"})
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]"]


QUARANTINE = ["feedback.on_bad=quarantine", "feedback.max_bad_fraction=0.1"]


def words_of(stage: str, world, model: Path) -> list[str]:
    """The stage's command with the model as its reader of chats."""
    model_words = {
        "evaluate_reward": [f"stage.models=[{model}]"],
        "explain": [f"stage.model={model}"],
    }.get(stage, [f"backbone.path={model}"])
    return [*getattr(world, stage)(), *model_words]


@pytest.mark.parametrize("stage", ["reward", "preference", "evaluate_reward", "explain"])
def test_a_rejected_chat_is_named_before_the_weights_load(command, world, chats, tmp_path, no_weights, stage):
    source = world.policy if stage in ("reward", "preference") else world.reward_model
    outcome = command(*words_of(stage, world, with_template(source, tmp_path / "model")), *chats)
    assert outcome.code == 2
    assert "chats.jsonl:14: the chat template" in outcome.error
    assert "System role not supported" in outcome.error
    assert "1 of 20 lines" in outcome.error
    assert "feedback.on_bad=quarantine" in outcome.error


@pytest.mark.parametrize("stage", ["reward", "preference", "evaluate_reward", "explain"])
def test_a_rejected_chat_can_be_quarantined(command, world, chats, tmp_path, stage):
    source = world.policy if stage in ("reward", "preference") else world.reward_model
    outcome = command(*words_of(stage, world, with_template(source, tmp_path / "model")), *chats, *QUARANTINE)
    assert outcome.code == 0, outcome.error
    (entry,) = map(json.loads, (outcome.folder / "quarantine.jsonl").read_text().splitlines())
    assert entry["origin"].endswith("chats.jsonl:14")
    assert "System role not supported" in entry["reason"]
    assert len((outcome.folder / "feedback.jsonl").read_text().splitlines()) == 19


def test_a_model_that_reads_texts_takes_every_chat(command, world, chats):
    assert command(*world.reward("reward_head=features"), *chats).code == 0


def test_each_of_several_models_is_checked(command, world, chats, tmp_path):
    strict = with_template(world.reward_model, tmp_path / "strict")
    outcome = command(*world.evaluate_reward(f"stage.models=[{world.reward_model},{strict}]"), *chats)
    assert outcome.code == 2
    assert "chats.jsonl:14: the chat template" in outcome.error
