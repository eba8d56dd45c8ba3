"""push=NAME: private, refused before the training where it can't work, and the local model stays when the upload fails."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.model.card import check_push, push_folder


class Hub:
    """HfApi at its boundary: what was asked of it."""

    def __init__(self, private=True, error=None):
        self.calls, self.private, self.error = [], private, error

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))
        if self.error:
            raise self.error
        return type("Url", (), {"repo_id": f"me/{name}"})

    def repo_info(self, name):
        return type("Info", (), {"private": self.private})

    def upload_folder(self, repo_id, folder_path):
        self.calls.append(("upload", repo_id, sorted(file.name for file in folder_path.iterdir())))
        return f"https://hub.test/{repo_id}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("weights")
    return tmp_path


def test_the_repository_is_private(folder, monkeypatch):
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    assert push_folder(folder, "policy") == "https://hub.test/me/policy"
    assert ("create", "policy", {"private": True, "exist_ok": True}) in hub.calls
    assert hub.calls[-1] == ("upload", "me/policy", ["model.safetensors"])


def test_nothing_goes_to_a_public_repository(folder, monkeypatch):
    hub = Hub(private=False)
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    with pytest.raises(UserError, match=r"push=me/policy: .*public"):
        push_folder(folder, "policy")
    assert hub.calls[-1][0] == "create"
    push_folder(folder, "policy", private=False)
    assert hub.calls[-1][0] == "upload"


def test_without_a_network_the_folder_and_the_remedy_are_named(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub(error=ConnectionError("no route to host")))
    with pytest.raises(UserError, match=rf"push=me/policy failed: no route to host; .*{folder}.*hf upload me/policy"):
        push_folder(folder, "me/policy")
    assert (folder / "model.safetensors").read_text() == "weights"


def test_it_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match=r"push=me/policy needs the Hub.*HF_HUB_OFFLINE"):
        check_push("me/policy")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ConfigError, match=r"push=me/policy needs a token.*hf auth login"):
        check_push("me/policy")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    check_push("me/policy")
    for name in ("a/b/c", "--x", 3):
        with pytest.raises(ConfigError, match=f"push={name}"):
            check_push(name)
