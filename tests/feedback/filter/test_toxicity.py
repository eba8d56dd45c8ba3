"""Toxic by a word list, and by a classifier."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.toxicity import toxicity
from rlhf_lightning.flow import Edit, Feedback, Thumbs


def one(*texts: str, prompt: str = "p") -> Feedback:
    return Feedback(prompt=prompt, responses=texts, judgement=Edit() if len(texts) == 2 else Thumbs(up=True))


@pytest.fixture
def words(tmp_path: Path) -> str:
    (tmp_path / "words.tsv").write_text("Idiot\t1\nsilly\t0.5\nshut up\t1\nnot\t-0.5\n")
    return str(tmp_path / "words.tsv")


def test_words_add_up(words: str, cleaned) -> None:
    toxic = [one("You IDIOT!"), one("silly, silly"), one("Shut  up."), one("fine", "idiot")]
    fine = [one("silly"), one("idiotic"), one("shut it up"), one("not an idiot"), one("..."), one("ok", prompt="idiot")]
    kept, cleaning = cleaned(partial(toxicity, words=words, batch_size=3), toxic + fine)
    assert (kept, cleaning.removed) == (fine, {"toxic": 4})
    kept, cleaning = cleaned(partial(toxicity, words=words, threshold=0.5, prompts=True, action="note"), [*fine, *toxic])
    assert (kept, cleaning.flagged) == ([*fine, *toxic], {"toxic": 7})


def test_what_is_missing_or_wrong_is_reported(tmp_path: Path, words: str) -> None:
    for settings in ({}, {"words": words, "model": "m"}):
        with pytest.raises(ConfigError, match=r"needs one of two: feedback_filter.toxicity.words=FILE"):
            list(toxicity([], Cleaning(), **settings))
    with pytest.raises(DataError, match=r"feedback_filter.toxicity.words: no lexicon file"):
        list(toxicity([], Cleaning(), words=str(tmp_path / "nowhere")))
    (tmp_path / "marks.tsv").write_text("fine\t1\n:(\t1\n")
    with pytest.raises(DataError, match=r"':\(' has no letters"):
        list(toxicity([], Cleaning(), words=str(tmp_path / "marks.tsv")))
    (tmp_path / "no_model").mkdir()
    with pytest.raises(ConfigError, match=r"feedback_filter.toxicity.model=.*no_model can't be loaded"):
        list(toxicity([], Cleaning(), model=str(tmp_path / "no_model")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT by whose weights a text is toxic where its first word is "bad"."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "bad": 3, "good": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [CLS]", special_tokens=[("[CLS]", 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16).save_pretrained(folder)
    config = BertConfig(
        vocab_size=5, hidden_size=8, num_hidden_layers=0, num_attention_heads=1, intermediate_size=8, max_position_embeddings=16,
        id2label={0: "fine", 1: "toxic"}, label2id={"fine": 0, "toxic": 1}, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.bert.embeddings.word_embeddings.weight[3, 0] = 1
        model.bert.pooler.dense.weight.copy_(torch.eye(8))
        model.classifier.weight[1, 0] = 8
        model.classifier.bias[0] = 2
    model.save_pretrained(folder)
    return str(folder)


def test_a_classifier(classifier: str, cleaned) -> None:
    toxic, fine = [one("bad"), one("bad, " + "good " * 40), one("good", "bad bad")], [one("good bad"), one("good")]
    kept, cleaning = cleaned(partial(toxicity, model=classifier, batch_size=2), toxic + fine)
    assert (kept, cleaning.removed) == (fine, {"toxic": 3})
    assert cleaned(partial(toxicity, model=classifier, label="fine"), toxic + fine)[0] == toxic[:2]
    assert cleaned(partial(toxicity, model=classifier, threshold=0.999999), toxic + fine)[0] == toxic + fine


def test_a_label_that_the_model_lacks_is_reported(classifier: str) -> None:
    with pytest.raises(ConfigError, match=r"toxicity.label=toxik: the model has fine, toxic, did you mean 'toxic'"):
        list(toxicity([], Cleaning(), model=classifier, label="toxik"))
