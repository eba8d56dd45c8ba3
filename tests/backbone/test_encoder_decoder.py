"""backbone=encoder_decoder by its function: the trunk of a folder, and of no other family."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.errors import ConfigError, DataError


def unread():
    raise AssertionError("a pretrained model brings its tokenizer")
    yield ""


def test_the_trunk_is_the_folders_in_float32(trunk_folder):
    trunk, tokenizer = encoder_decoder(unread(), path=trunk_folder("t5"))
    theirs = AutoModel.from_pretrained(trunk_folder("t5")).state_dict()
    ours = trunk.state_dict()
    assert ours.keys() == {name for name in theirs if not name.startswith("pooler.")}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {value.dtype for value in ours.values()} <= {torch.float32, torch.int64}
    assert tokenizer.pad_token_id is not None


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_another_family_is_refused(trunk_folder, family):
    with pytest.raises(ConfigError, match=r"backbone\.path=.* and backbone=encoder_decoder takes"):
        encoder_decoder([], path=trunk_folder(family))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        encoder_decoder([], path=str(tmp_path / "nowhere"))
