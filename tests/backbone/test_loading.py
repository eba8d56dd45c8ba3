"""Pretrained models that can't be loaded, and what the error says."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM

from rlhf_lightning.backbone.loading import load_pretrained, load_tokenizer
from rlhf_lightning.errors import DataError


@pytest.mark.parametrize("path", ["./nowhere/at/all", "/nowhere/at/all", "~/nowhere/at/all"])
def test_a_missing_folder_is_told_before_anything_is_asked_of_the_hub(path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        load_pretrained(AutoModelForCausalLM, path, "backbone.path")
    with pytest.raises(DataError, match="tokenizer: no folder"):
        load_tokenizer(path)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: .* can't be loaded"):
        load_pretrained(AutoModelForCausalLM, str(tmp_path), "backbone.path")


def test_code_in_a_folder_is_never_run(tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (tmp_path / "modeling.py").write_text(code)
    auto_map = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of", "auto_map": auto_map}))
    with pytest.raises(DataError, match="can't be loaded"):
        load_pretrained(AutoModelForCausalLM, str(tmp_path), "backbone.path")
    assert not (tmp_path / "ran").exists()
