"""Embeddings against the model itself, one text at a time, in the layout of each family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.sentence_encoder import SentenceEncoder

TEXTS = ["a good day", "the bad cat sat there, why not", "cat", "", "the cat " * 9]


def encoder_of(folder: str, max_length: int | None = None) -> SentenceEncoder:
    return SentenceEncoder(folder, "setting", max_length)


def sentence_folder(source: str, target: Path, *, pooling: dict, modules: tuple[str, ...] = (), subfolder: str = "", **settings) -> str:
    """A copy of a folder with the files of sentence-transformers."""
    shutil.copytree(source, target / subfolder)
    rows = [("Transformer", subfolder), ("Pooling", "1_Pooling"), *((kind, f"{i}_{kind}") for i, kind in enumerate(modules, 2))]
    (target / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (kind, path) in enumerate(rows)
            ]
        )
    )
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (target / subfolder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return str(target)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "t5", "bart"])
def test_encoders_average_all_tokens_with_the_tokenizer_s_own(trunk_folder, family):
    from transformers import AutoModel, AutoTokenizer

    folder = trunk_folder(family)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    vectors = encoder_of(folder).encode(TEXTS, batch_size=2)
    for row, text in zip(vectors, TEXTS, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert set(ids) & {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id}
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(row, hidden.mean(0), atol=1e-5, rtol=1e-5)


def test_the_encoder_of_a_t5_saved_alone(trunk_folder, tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel

    T5EncoderModel.from_pretrained(trunk_folder("t5")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(trunk_folder("t5")).save_pretrained(tmp_path)
    torch.testing.assert_close(encoder_of(str(tmp_path)).encode(TEXTS), encoder_of(trunk_folder("t5")).encode(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_decoders_read_begin_of_text_first_and_leave_it_out_of_the_mean(trunk_folder, family):
    encoder = encoder_of(trunk_folder(family))
    encoder.tokenizer.bos_token = encoder.tokenizer.eos_token
    bos = encoder.tokenizer.bos_token_id
    vectors = encoder.encode(TEXTS, batch_size=3)
    for row, text in zip(vectors, TEXTS, strict=True):
        ids = [bos, *encoder.tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert encoder.token_ids(text) == ids
        with torch.no_grad():
            hidden = encoder.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(row, hidden[1:].mean(0) if len(ids) > 1 else hidden[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "gpt2", "llama"])
def test_a_vector_depends_on_its_text_alone(trunk_folder, family):
    encoder = encoder_of(trunk_folder(family))
    vectors = encoder.encode(TEXTS, batch_size=2)
    again = encoder.encode(TEXTS[::-1], batch_size=5).flip(0)
    torch.testing.assert_close(vectors, again, atol=1e-5, rtol=0)
    assert torch.equal(encoder.encode(TEXTS, batch_size=2), vectors)
    assert encoder.encode([]).shape == (0, encoder.width)


def test_special_tokens_typed_into_a_text_are_plain_text(trunk_folder):
    encoder = encoder_of(trunk_folder("bert"))
    separator = encoder.tokenizer.sep_token_id
    assert encoder.token_ids("cat [SEP] day").count(separator) == 1
    assert encoder.token_ids("cat [SEP] day")[-1] == separator


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_a_long_text_is_cut_to_the_model_s_positions_but_for_special_tokens(trunk_folder, family):
    encoder = encoder_of(trunk_folder(family), 500)
    text = "good " + "cat " * 900 + "day"
    first, last = encoder.token_ids(text), encoder.token_ids(text, cut_beginning=True)
    assert len(first) == len(last) == encoder.max_length
    assert encoder.encode([text]).isfinite().all()
    short = encoder_of(trunk_folder(family), 6)
    ids = short.tokenizer(text)["input_ids"]
    front, back = short.token_ids(text), short.token_ids(text, cut_beginning=True)
    assert len(front) == len(back) == 6
    assert front != back
    if family in ("bert", "roberta"):
        assert (front[0], front[-1], back[0], back[-1]) == (ids[0], ids[-1], ids[0], ids[-1])
        assert (front[1:4], back[2:5]) == (ids[1:4], ids[-4:-1])


def test_no_room_for_a_text_is_refused(trunk_folder):
    with pytest.raises(ConfigError, match="2 special tokens"):
        encoder_of(trunk_folder("bert"), 2)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda hidden: hidden[0]),
        ({"pooling_mode_mean_tokens": True}, lambda hidden: hidden.mean(0)),
        ({"pooling_mode_max_tokens": True}, lambda hidden: hidden.max(0).values),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda hidden: hidden.sum(0) / len(hidden) ** 0.5),
        (
            {"pooling_mode_weightedmean_tokens": True},
            lambda hidden: (hidden * torch.arange(1.0, len(hidden) + 1)[:, None]).sum(0) / (len(hidden) * (len(hidden) + 1) / 2),
        ),
        ({"pooling_mode_lasttoken": True}, lambda hidden: hidden[-1]),
        ({"pooling_mode": "lasttoken"}, lambda hidden: hidden[-1]),
        ({"pooling_mode": ["cls", "mean"]}, lambda hidden: torch.cat([hidden[0], hidden.mean(0)])),
    ],
)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_sentence_transformers_pooling_is_respected(trunk_folder, tmp_path, family, pooling, expected):
    encoder = encoder_of(sentence_folder(trunk_folder(family), tmp_path / "model", pooling=pooling))
    vectors = encoder.encode(TEXTS[:3], batch_size=3)
    assert vectors.shape[1] == encoder.width
    for row, text in zip(vectors, TEXTS[:3], strict=True):
        ids = encoder.tokenizer(text)["input_ids"]
        assert encoder.token_ids(text) == ids
        with torch.no_grad():
            hidden = encoder.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(row, expected(hidden), atol=1e-5, rtol=1e-5)


def test_dense_and_normalising_layers_subfolder_length_and_case(trunk_folder, tmp_path):
    folder = sentence_folder(
        trunk_folder("bert"), tmp_path / "model", pooling={"pooling_mode": "mean"}, modules=("Dense", "Normalize"),
        subfolder="0_Transformer", max_seq_length=9, do_lower_case=True,
    )  # fmt: skip
    (tmp_path / "model" / "2_Dense").mkdir()
    dense = {"in_features": 32, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
    (tmp_path / "model" / "2_Dense" / "config.json").write_text(json.dumps(dense))
    weights = {"linear.weight": torch.randn(5, 32), "linear.bias": torch.randn(5)}
    with pytest.raises(DataError, match=r"2_Dense/model\.safetensors"):
        encoder_of(folder)
    save_file(weights, tmp_path / "model" / "2_Dense" / "model.safetensors")
    encoder = encoder_of(folder)
    assert (encoder.max_length, encoder.width) == (9, 5)
    assert encoder.token_ids("A Good Day") == encoder.token_ids("a good day")
    texts = ["a good day", "cat"]
    plain = encoder_of(trunk_folder("bert")).encode(texts)
    expected = torch.tanh(plain @ weights["linear.weight"].T + weights["linear.bias"])
    torch.testing.assert_close(encoder.encode(texts), expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "modules", "message"),
    [({"pooling_mode": "attention"}, (), "attention"), ({}, (), "nothing"), ({"pooling_mode": "mean"}, ("LSTM",), "LSTM")],
)
def test_other_modules_are_refused(trunk_folder, tmp_path, pooling, modules, message):
    folder = sentence_folder(trunk_folder("bert"), tmp_path / "model", pooling=pooling, modules=modules)
    with pytest.raises(ConfigError, match=rf"setting: .*{message}"):
        encoder_of(folder)


def test_damaged_settings_are_named(trunk_folder, tmp_path):
    folder = sentence_folder(trunk_folder("bert"), tmp_path / "model", pooling={"pooling_mode": "mean"})
    (tmp_path / "model" / "modules.json").write_text("[{")
    with pytest.raises(DataError, match=r"modules\.json is not valid JSON"):
        encoder_of(folder)


def test_progress_counts_the_texts(trunk_folder):
    counts: list[int] = []
    encoder_of(trunk_folder("bert")).encode(TEXTS, batch_size=2, progress=counts.append)
    assert counts == [2, 4, 5]
