"""The model card: what it says of a training, and that it says nothing that it doesn't know."""

from __future__ import annotations

import yaml

from rlhf_lightning.reward.storage.card import model_card

KNOWN = {
    "head": "linear", "pooling": "last", "tuning": "lora", "losses": ["bradley_terry"], "backbone": "gpt2", "exports": "classifier",
    "mean": 0.25, "deviation": 2.0, "max_length": 128, "judgements": {"pair": 40, "rating": 7}, "sources": {"a|b": 40, "c": 7},
    "metrics": {
        "accuracy/all": {"mean": 0.8, "low": 0.7, "high": 0.9, "n": 50}, "ece": 0.05, "length/spearman": {"mean": 0.4, "n": 30},
    },
}  # fmt: skip


def test_it_says_what_is_known():
    card = model_card(KNOWN, "decoder")
    for line in (
        "- trunk: decoder-only, from `gpt2`", "- head: linear", "- tuning: lora", "| pair | 40 |", "| a\\|b | 40 |",
        "| accuracy/all | 0.800 | 0.700 to 0.900 | 50 |", "| ece | 0.050 |  |  |", "(logit - 0.25) / 2", "more than 128 tokens",
        "length: 0.400", "Unknown: it depends",
    ):  # fmt: skip
        assert line in card, line


def test_its_front_matter_is_yaml_with_an_unknown_licence():
    _, front, rest = model_card(KNOWN, "encoder").split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    assert rest.lstrip().startswith("# A reward model")


def test_without_knowledge_it_says_so():
    card = model_card(
        {"mean": 0.0, "deviation": 1.0, "max_length": 64, "exports": "trunk", "head": "mlp", "pooling": "mean"}, "encoder_decoder"
    )
    for line in ("It isn't recorded.", "Nothing was measured.", "was not measured", "loads the trunk alone", "- trunk: encoder-decoder\n"):
        assert line in card, line
    assert "nan" not in card.lower()
    assert "None" not in card


def test_a_classifier_keeps_its_own_head():
    card = model_card({**KNOWN, "net": "classifier"}, "encoder")
    assert "that of the transformers classifier" in card
    assert "- head: linear" not in card
