"""`--check` exits with 0 for a command that would start, and makes nothing."""

from __future__ import annotations

import json

import pytest


def write_pairs(folder, *rows):
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"feedback_source.jsonl.path={file}"


PAIRS = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
REWARD = ["stage=reward", "feedback_source=jsonl", "feedback_format=[pairwise]"]


@pytest.mark.parametrize("stage", ["sft", "reward", "evaluate"])
def test_a_valid_command_makes_no_folder_and_loads_no_model(command, tmp_path, monkeypatch, stage):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    words = [*REWARD, write_pairs(tmp_path, *PAIRS)] if stage == "reward" else [f"stage={stage}"]
    outcome = command(*words, "--check", folder=tmp_path / "run")
    assert outcome.code == 0, outcome.error
    assert "the command is valid" in outcome.out
    assert not (tmp_path / "run").exists()


def test_rows_and_columns_are_read(command, tmp_path):
    wrong = write_pairs(tmp_path, *PAIRS[:3], {"prompt": "p", "chosen": "x"})
    outcome = command(*REWARD, wrong, "--check", folder=tmp_path / "run")
    assert outcome.code == 2
    assert "pairs.jsonl:4" in outcome.error
    assert not (tmp_path / "run").exists()


def test_the_folder_is_checked(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    outcome = command("--check", folder=tmp_path / "run")
    assert outcome.code == 2
    assert "thesis.tex" in outcome.error


def test_every_job_of_a_sweep_is_checked(command, tmp_path):
    """Each value is valid with the first ones of the others."""
    scorer = ["stage=ppo", "rollout_scorer=length"]
    outcome = command("-m", *scorer, "advantage=gae,rloo", "ppo.responses_per_prompt=4,1", "--check", folder=tmp_path / "sweep")
    assert outcome.code == 2
    for part in ("advantage=rloo ppo.responses_per_prompt=1", "at least 2"):
        assert part in outcome.error
    outcome = command("-m", "stage=sft", "sft.epochs=1,2", "--check", folder=tmp_path / "sweep")
    assert (outcome.code, outcome.out.strip()) == (0, "the sweep is valid: 2 jobs"), outcome.error
    assert not (tmp_path / "sweep").exists()


def test_cfg_names_what_it_does_not_check(command, tmp_path):
    outcome = command("stage=sft", "--cfg", "job", folder=tmp_path / "run")
    assert outcome.code == 0
    for part in ("files", "--check"):
        assert part in outcome.error
