"""Features of response and prompt: unit vectors, their product and the difference of lengths, each distinct text embedded once."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Message, Ranking
from rlhf_lightning.model.sentence_encoder import SentenceEncoder
from rlhf_lightning.reward.explain.score_regression import named_features
from rlhf_lightning.reward.feature import embedding
from rlhf_lightning.reward.feature.embedding import Embedding
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.fitting import fit_feature_score
from rlhf_lightning.reward.storage.feature_folder import CARD, load_feature_score, save_feature_score

TEXTS = [("why", "a good day"), ("", "cat"), ("the bad cat sat", "why not"), ("why", ""), ("why", "the cat"), ("the bad cat sat", "cat")]


@pytest.fixture(autouse=True)
def _fresh_cache():
    embedding._embedder.cache_clear()
    yield
    embedding._embedder.cache_clear()


@pytest.fixture(params=["bert", "gpt2", "t5"])
def folder(trunk_folder, request):
    return trunk_folder(request.param)


def rows_of(folder: str, texts=TEXTS, **settings) -> torch.Tensor:
    family = Embedding(path=folder, **settings)
    family.fit(texts)
    return torch.tensor([list(row) for row in family.rows(texts)])


def test_response_and_prompt_are_read_apart(folder):
    rows = rows_of(folder, batch_size=2)
    encoder = SentenceEncoder(folder, "setting")
    for row, (prompt, response) in zip(rows, TEXTS, strict=True):
        vectors = [
            torch.nn.functional.normalize(encoder.encode([text])[0], dim=0) if text else torch.zeros(encoder.width)
            for text in (response, prompt)
        ]
        expected = torch.cat([vectors[0], vectors[0] * vectors[1], torch.tensor([math.log1p(len(response)) - math.log1p(len(prompt))])])
        torch.testing.assert_close(row.float(), expected, atol=1e-5, rtol=0)


def test_features_are_named_and_scaled_together(folder):
    score = FeatureScore({"embedding": {"path": folder, "strength": 2.0}})
    score.prepare(TEXTS)
    width = SentenceEncoder(folder, "setting").width
    assert score.all_names == [
        *(f"embedding: {part} {i}" for part in ("response", "product") for i in range(width)),
        "embedding: length difference",
    ]
    phi = score.phi(TEXTS)
    torch.testing.assert_close(phi.mean(0), torch.zeros(len(score.names), dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(phi[:, :-1].var(0, correction=0).sum(), torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(phi[:, -1].var(correction=0), torch.tensor(1.0, dtype=torch.float64))


def test_neither_order_nor_company_matters(folder):
    rows = rows_of(folder, batch_size=2)
    embedding._embedder.cache_clear()
    torch.testing.assert_close(rows_of(folder, TEXTS[::-1], batch_size=32).flip(0), rows, atol=1e-5, rtol=0)
    embedding._embedder.cache_clear()
    assert torch.equal(rows_of(folder, batch_size=2), rows)


def test_each_distinct_text_is_embedded_once(folder, monkeypatch):
    embedded: list[tuple[str, bool]] = []
    encode = SentenceEncoder.encode

    def counting(self, texts, *, cut_beginning=False, **settings):
        embedded.extend((text, cut_beginning) for text in texts)
        return encode(self, texts, cut_beginning=cut_beginning, **settings)

    monkeypatch.setattr(SentenceEncoder, "encode", counting)
    score = FeatureScore({"embedding": {"path": folder}})
    score.prepare(TEXTS)
    score.score_texts(*zip(*TEXTS, strict=True), batch_size=2)
    FeatureScore({"embedding": {"path": folder}}).prepare(TEXTS * 2)
    assert sorted(embedded) == sorted(
        [*{(prompt, True) for prompt, _ in TEXTS if prompt}, *{(response, False) for _, response in TEXTS if response}]
    )


def test_what_was_remembered_longest_is_forgotten(folder, monkeypatch):
    monkeypatch.setattr(embedding, "CACHE_BYTES", 1)
    rows = rows_of(folder)
    assert len(embedding._embedder(folder, None, embedding._stamp(folder)).cache) == 1
    monkeypatch.undo()
    embedding._embedder.cache_clear()
    torch.testing.assert_close(rows_of(folder), rows, atol=1e-5, rtol=0)


def test_a_model_that_was_replaced_is_loaded_again(trunk_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trunk_folder("bert"), folder)
    before = rows_of(str(folder))
    shutil.rmtree(folder)
    shutil.copytree(trunk_folder("roberta"), folder)
    assert not torch.equal(rows_of(str(folder)), before)


def test_long_texts_keep_the_end_of_a_prompt_and_the_beginning_of_a_response(folder):
    long = "the bad cat sat " * 200
    settings = {"max_length": 8}
    same = rows_of(folder, [("a good day " + long, long + "a good day"), (long, long)], **settings)
    torch.testing.assert_close(same[0, :-1], same[1, :-1], atol=1e-5, rtol=0)
    other = rows_of(folder, [(long + "a good day", "a good day " + long), (long, long)], **settings)
    assert (other[0, :-1] - other[1, :-1]).abs().max() > 1e-3
    assert rows_of(folder, [(long, long)]).isfinite().all()


def test_chats_are_read_as_text(folder):
    score = FeatureScore({"embedding": {"path": folder}})
    score.prepare(TEXTS)
    score.weight = torch.ones_like(score.weight)
    chat = (Message(role="user", content="why"),)
    assert score.score_texts([chat], ["cat"]) == score.score_texts(["User: why\nAssistant:"], ["cat"])
    assert score.score_texts([""], ["\n"]).isfinite().all()


def test_a_saved_model_scores_and_explains_as_before(folder, tmp_path):
    score = FeatureScore({"length": {}, "embedding": {"path": folder}})
    score.prepare(TEXTS)
    score.weight = torch.linspace(-1, 1, len(score.weight), dtype=torch.float64)
    save_feature_score(score, tmp_path / "model", {})
    embedding._embedder.cache_clear()
    other = load_feature_score(tmp_path / "model")
    torch.testing.assert_close(other._scores(TEXTS), score._scores(TEXTS), atol=1e-5, rtol=0)
    assert other.names == score.names
    bias, reasons = other.explain(*TEXTS[0])
    assert bias + math.fsum(reason.contribution for reason in reasons) == pytest.approx(float(other._scores(TEXTS[:1])[0]), abs=1e-9)
    assert any(reason.name.startswith("embedding: product ") for reason in reasons)
    card = json.loads((tmp_path / "model" / CARD).read_text())
    card["features"]["embedding"]["state"]["canary"][0] += 0.01
    (tmp_path / "model" / CARD).write_text(json.dumps(card))
    with pytest.raises(DataError, match="another model than the reward model was trained on"):
        load_feature_score(tmp_path / "model")
    card["features"]["embedding"]["state"]["dimensions"] = 7
    (tmp_path / "model" / CARD).write_text(json.dumps(card))
    with pytest.raises(DataError, match="was trained on 7"):
        load_feature_score(tmp_path / "model")


def test_vectors_that_are_not_finite_are_refused(trunk_folder):
    family = Embedding(path=trunk_folder("bert"))
    family.fit(TEXTS)
    with torch.no_grad():
        family.embedder.encoder.trunk.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="isn't finite, for 'new text'"):
        family.prefetch([("", "new text")])


def test_texts_are_scored_in_batches_of_like_length(folder, monkeypatch):
    score = FeatureScore({"embedding": {"path": folder}})
    score.prepare(TEXTS)
    sizes: list[int] = []
    encode = SentenceEncoder.encode
    monkeypatch.setattr(
        SentenceEncoder, "encode", lambda self, texts, **settings: sizes.append(len(texts)) or encode(self, texts, **settings)
    )
    score.score_texts(["new"] * 9, [f"cat {i}" for i in range(9)], batch_size=2)
    assert max(sizes) == 9
    assert sum(sizes) == 10


def test_regression_tables_leave_it_out(folder):
    assert list(named_features({"embedding": {"path": folder}, "markup": {}})) == ["length", "markup"]


def pairs(better: str, worse: str, count: int) -> list[Feedback]:
    """Pairs whose better response has a word that says so, in one prompt each."""
    words = ["cat", "day", "the", "a", "why", "not", "sat", "there"]
    records = []
    for i in range(count):
        noise = " ".join(words[(i * k + k) % len(words)] for k in range(1, 4))
        records.append(Feedback(prompt=f"p{i}", responses=(f"{noise} {better}", f"{noise} {worse}"), judgement=Ranking(ranks=(0, 1))))
    return records


def test_the_block_gets_a_penalty_of_its_own_where_other_features_are(trunk_folder):
    folder = trunk_folder("bert")
    judged = standardise(pairs("good", "bad", 60))
    beside = fit_feature_score(FeatureScore({"length": {}, "embedding": {"path": folder}}), judged, [BradleyTerry()])
    assert list(beside.factors) == ["embedding"]
    assert "embedding" in str(beside)
    alone = fit_feature_score(FeatureScore({"embedding": {"path": folder}}), judged, [BradleyTerry()])
    assert alone.factors == {}
    given = fit_feature_score(FeatureScore({"length": {}, "embedding": {"path": folder}}), judged, [BradleyTerry()], l2=0.1)
    assert (given.l2, given.factors, given.tried) == (0.1, {}, {})


def test_long_jobs_report_their_progress(folder, monkeypatch):
    monkeypatch.setattr(embedding, "QUIET_SECONDS", 0.0)
    lines: list[str] = []
    score = FeatureScore({"embedding": {"path": folder, "batch_size": 1}})
    score.report_to(lines.append)
    score.prepare(TEXTS)
    total = len({p for p, _ in TEXTS if p}) + len({r for _, r in TEXTS if r})
    assert len(lines) == embedding.LINES
    assert lines[-1].startswith(f"embedding: {total} of {total} texts, ")
    assert all(" s left" in line for line in lines[:-1])
    embedding._embedder.cache_clear()
    monkeypatch.undo()
    score.prepare(TEXTS)
    assert len(lines) == embedding.LINES
