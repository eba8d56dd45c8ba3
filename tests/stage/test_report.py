"""A policy's card and its upload, by one command: data, settings, metrics, versions; hostile texts are inert."""

from __future__ import annotations

import json

import pytest
import yaml

HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:b) | # c"


@pytest.fixture(scope="module")
def pushed(command, tmp_path_factory):
    """A run of stage=sft whose demonstrations have a hostile name, and what was uploaded of it."""
    folder, uploads = tmp_path_factory.mktemp("card"), []
    file = folder / f"{HOSTILE.replace('/', '')}.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Review {i}:", "response": " It is a quiet fan."}) + "\n" for i in range(8)))

    class Api:
        def __init__(self, **_): ...

        def create_repo(self, name, **_):
            return type("Url", (), {"repo_id": name})

        def repo_info(self, name):
            return type("Info", (), {"private": True})

        def upload_folder(self, repo_id, folder_path):
            uploads.append((repo_id, folder_path, (folder_path.parent / "result.json").is_file()))
            raise ConnectionError("no route to host")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi", Api)
        patch.setattr("huggingface_hub.get_token", lambda: "hf_token")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        outcome = command(
            "stage=sft", "task=files", f"task.prompts='{file}'", f"task.demonstrations='{file}'", "sft.epochs=1", "backbone.layers=1",
            "backbone.width=32", "backbone.vocabulary=300", "logger=none", "push=me/policy", folder=folder / "run",
        )  # fmt: skip
    return outcome, uploads


def test_the_upload_follows_the_complete_run_and_its_failure_leaves_it(pushed):
    outcome, uploads = pushed
    assert uploads == [("me/policy", outcome.folder / "policy", True)]
    assert outcome.code == 2
    assert "push=me/policy failed: no route to host" in outcome.error
    assert (outcome.folder / "policy" / "model.safetensors").is_file()
    assert outcome.result()["metrics"]["sft/loss"] > 0


def test_the_card_has_data_settings_metrics_and_versions(pushed):
    outcome, _ = pushed
    card = (outcome.folder / "policy" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "text-generation"
    loss = outcome.result()["metrics"]["sft/loss"]
    for line in (
        "# A policy",
        "stage sft, seed 0",
        "AutoModelForCausalLM",
        "| `sft.epochs` | 1 |",
        f"| sft/loss | {loss:.3f} |",
        "torch `",
    ):
        assert line in body, line
    assert str(outcome.folder.parent) not in card


def test_hostile_names_are_inert(pushed):
    card = (pushed[0].folder / "policy" / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if "onerror" in line]
    assert line.startswith("- task: files of `")
    outside = "".join(line.split("`")[::2])
    assert "<" not in outside
    assert "[" not in outside
