"""A reward model exported as a classifier: a pipeline of plain transformers gives its raw scores."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.pooling.mean import mean
from rlhf_lightning.reward.storage import export
from rlhf_lightning.reward.storage.export import export_reward_model
from rlhf_lightning.reward.storage.folder import save_reward_model

TEXTS = [("Review of a lamp:\n", "It is quiet, and it costs little."), ("", "fan"), ("a b c", " water boils")]


def saved(model, folder, **metadata):
    model.mean.fill_(0.3)
    model.deviation.fill_(2.0)
    save_reward_model(model, folder, {"head": "linear", "head_settings": {}, "pooling": "last", **metadata})
    return str(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_pipeline_gives_the_raw_scores(model_of, family, tmp_path):
    from transformers import pipeline

    model = model_of(family).eval()
    export_reward_model(saved(model, tmp_path / "rm"), tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["problem_type"] == "regression"
    assert not (tmp_path / "exported" / "reward_model.json").exists()
    score = pipeline("text-classification", model=str(tmp_path / "exported"), function_to_apply="none")
    scores = torch.tensor([row["score"] for row in score([prompt + response for prompt, response in TEXTS], batch_size=2)])
    with torch.no_grad():
        raw = model.raw_scores(model.tokenise(TEXTS)).scores
    assert torch.allclose(scores, raw, atol=1e-5)
    assert torch.allclose((scores - 0.3) / 2.0, model.score_texts(*zip(*TEXTS, strict=True)), atol=1e-5)
    assert "(score - 0.3) / 2" in (tmp_path / "exported" / "README.md").read_text()


@pytest.mark.parametrize(
    ("family", "metadata", "reason"),
    [
        ("llama", {"head": "mlp", "head_settings": {"hidden": 16}}, "reward_head=mlp"),
        ("llama", {"pooling": "mean"}, "reward_pooling=mean"),
        ("bert", {}, "backbone=causal"),
    ],
)
def test_other_heads_are_refused_with_the_reason(model_of, family, metadata, reason, tmp_path):
    settings = {"pooling": mean} if "pooling" in metadata else {"head": partial(MLPHead, hidden=16)} if "head" in metadata else {}
    path = saved(model_of(family, **settings), tmp_path / "rm", **metadata)
    with pytest.raises(ConfigError, match=rf"{path} can't be exported as AutoModelForSequenceClassification: .*{reason}"):
        export_reward_model(path, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_other_scores_are_never_written(model_of, tmp_path, monkeypatch):
    path = saved(model_of("llama"), tmp_path / "rm")
    monkeypatch.setattr(export, "_ending_tokenizer", lambda model: model.tokenizer)
    with pytest.raises(DataError, match=r"scores differ from the reward model's by"):
        export_reward_model(path, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
