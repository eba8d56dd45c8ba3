"""The module: 0 at the start, the loss by brute force, what it learns, and the reference that it keeps."""

from __future__ import annotations

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.preference.examples import TextTable, compared_examples, preference_loader, thumbed_examples
from rlhf_lightning.preference.implicit_reward import ImplicitReward, fitting_judgements
from rlhf_lightning.preference.loss.dpo import DPO
from rlhf_lightning.preference.loss.ipo import IPO
from rlhf_lightning.preference.loss.kto import KTO
from rlhf_lightning.preference.loss.orpo import ORPO
from rlhf_lightning.preference.loss.simpo import SimPO
from rlhf_lightning.preference.module import PreferenceModule, text_log_probs
from rlhf_lightning.preference.settings import PreferenceSettings
from rlhf_lightning.schedule.anneal import anneal
from rlhf_lightning.training.optimizer import Optimization

LOSSES = [DPO(), DPO(variant="hinge"), IPO(), ORPO(), SimPO(), KTO(from_pairs=True)]


def fitted(language_model, feedback, loss, epochs=1, batch_size=99, **settings):
    """A module after some steps, with its table and examples."""
    table = TextTable(language_model.tokenizer, 64)
    judged = standardise(feedback)
    thumbs = isinstance(loss, KTO)
    examples = thumbed_examples(judged, table, loss.from_pairs) if thumbs else compared_examples(judged, table)
    chosen = PreferenceSettings(epochs=epochs, batch_size=batch_size, **settings)
    loader = preference_loader(examples, table, chosen.batch_size, 0, 0, 1)
    module = PreferenceModule(language_model, loss, chosen, epochs * len(loader), table, np.arange(len(table)))
    module.optimization = Optimization(schedule=partial(anneal, warmup=0))
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module, table, examples


def alone(language_model, text) -> float:
    """The log-probability of one response, token by token."""
    row = TextEncoder(language_model.tokenizer, InputFormat(), 64).encode(text)
    with torch.no_grad():
        said = language_model.model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    return sum(said[at - 1, row.ids[at]].item() for at in range(max(1, len(row.before)), len(row.ids)))


def test_the_first_loss_is_that_of_no_difference_and_metrics_have_trl_s_names(language_model, feedback):
    module, _, _ = fitted(language_model, feedback, DPO())
    first = module.history[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first.keys() == {"loss", "logps/chosen", "logps/rejected", "bad_updates"} | {
        f"rewards/{n}" for n in ("chosen", "rejected", "margins", "accuracies")
    }
    assert abs(first["rewards/margins"]) < 1e-4


def test_the_loss_is_the_weighted_mean_over_all_pairs(language_model, feedback):
    """By hand from the definition, one text at a time, after the policy has moved."""
    start = {}
    judged = standardise(feedback)
    for text in judged.texts():
        start[text] = alone(language_model, text)
    module, table, examples = fitted(language_model, feedback, DPO(beta=0.3), learning_rate=1e-3)
    total = weight = 0.0
    places = {table.row_of(text): text for text in judged.texts()}
    for better, worse, w in zip(examples.rows["chosen"], examples.rows["rejected"], examples.weight, strict=True):
        sides = [alone(language_model, places[p]) - start[places[p]] for p in (better, worse)]
        total += w * np.log1p(np.exp(-0.3 * (sides[0] - sides[1])))
        weight += w
    (batch,) = list(preference_loader(examples, table, 99, 0, 0, 1))
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(total / weight, rel=1e-4)
    assert abs(loss.item() - np.log(2)) > 1e-3


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{type(loss).__name__} {getattr(loss, 'variant', '')}")
def test_every_loss_learns_the_order_of_its_feedback(tiny_of, feedback, loss):
    """Ordered without contradictions: after some steps every pair has a margin, with weights that moved."""
    language_model = tiny_of("llama")
    consistent = [record for record in feedback if record.judgement.kind in ("ranking", "edit", "thumbs")][1:]
    module, _, _ = fitted(language_model, consistent, loss, epochs=25, learning_rate=3e-3)
    first, last = module.history[0], module.history[-1]
    assert last["loss"] < first["loss"]
    assert last["rewards/margins"] > max(0.0, first["rewards/margins"])
    assert last["rewards/accuracies"] > 0.8  # the middle one of a ranking is both better and worse: as a thumb it can't be right twice


def test_the_reference_is_the_start_and_stays_it(tiny_of, feedback):
    language_model = tiny_of("gpt2")
    judged = standardise(feedback)
    start = {text: alone(language_model, text) for text in judged.texts()}
    module, table, _ = fitted(language_model, feedback, DPO(), epochs=3, learning_rate=1e-2)
    known = [text for text in start if table.row_of(text) < len(module.reference)]
    assert known
    for text in known:
        assert module.reference[table.row_of(text)].item() == pytest.approx(start[text], rel=1e-4)
    checkpoint: dict = {}
    module.on_save_checkpoint(checkpoint)
    again = PreferenceModule(language_model, DPO(), PreferenceSettings(), 1, table, np.arange(len(table)))
    again.on_load_checkpoint(checkpoint)
    assert torch.equal(again.reference, module.reference)


def test_kto_s_reference_point_is_the_mean_log_ratio_of_mismatched_pairs(tiny_of, feedback):
    language_model = tiny_of("llama")
    module, table, examples = fitted(language_model, feedback, KTO(), epochs=5, learning_rate=3e-3)
    (batch,) = list(preference_loader(examples, table, 99, 0, 0, 1))
    module.training_step(batch, 0)
    now = text_log_probs(language_model, table, np.arange(len(table)))
    mismatched = examples.rows["mismatched"]
    mean = (now - module.reference)[mismatched].mean().item()
    assert module.history[-1]["kl"] == pytest.approx(max(0.0, mean), rel=1e-3, abs=1e-4)
    assert abs(mean) > 1e-3
    assert set(mismatched.tolist()).isdisjoint(examples.rows["judged"].tolist())


def test_a_loss_that_is_no_number_stops_with_its_remedy(tiny_of, feedback):
    language_model = tiny_of("llama")
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight.fill_(float("nan"))
    why = r"3 updates in a row .* step 3: the loss is nan.*weights themselves.*lower preference.learning_rate"
    with pytest.raises(UserError, match=why):
        fitted(language_model, feedback, DPO(), epochs=3)


def test_the_implicit_reward_scores_texts_by_the_loss_s_rewards(tiny_of, feedback):
    language_model = tiny_of("llama")
    judged = standardise(feedback)
    loss = DPO(beta=0.5)
    start = {text: alone(language_model, text) for text in judged.texts()}
    module, table, _ = fitted(language_model, feedback, loss, epochs=3, learning_rate=3e-3)
    kept, places = fitting_judgements(standardise([r for r in feedback if r.judgement.kind in ("ranking", "edit")]), table)
    implicit = ImplicitReward(language_model, loss, table, module.reference, places)
    texts = kept.texts()
    scores = implicit.score_texts([p for p, _ in texts], [r for _, r in texts])
    expected = [0.5 * (alone(language_model, text) - start[text]) for text in texts]
    assert scores.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    ratios = implicit.ratios(kept)
    assert ratios is not None
    by_text = dict(zip(texts, expected, strict=True))
    pairs = [("It", " costs", " boils"), ("It", " is a fan", " costs"), ("It", " is a fan", " boils"), ("It", " costs", " boils"),
             ("The", " quiet kettle", " kettle")]  # fmt: skip
    better = np.mean([by_text[p, b] / 0.5 for p, b, _ in pairs])
    worse = np.mean([by_text[p, w] / 0.5 for p, _, w in pairs])
    assert ratios.better.mean == pytest.approx(better, rel=1e-2, abs=1e-3)
    assert ratios.worse.mean == pytest.approx(worse, rel=1e-2, abs=1e-3)
    assert ratios.margin.mean == pytest.approx(0.5 * (better - worse), rel=1e-2, abs=1e-3)
    assert implicit.ratios(standardise([r for r in feedback if r.judgement.kind == "thumbs"])) is None
