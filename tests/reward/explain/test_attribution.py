"""Integrated gradients: exact where the score is known, complete on every family, and captum's on the same path."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.explain.attribution import integrated_gradients
from rlhf_lightning.reward.explain.view import TokenView
from rlhf_lightning.reward.model import RewardModel

TEXT = ("The lamp:", " a good lamp, it isn't bad — 良い.")


@pytest.mark.parametrize("baseline", ["neutral", "pad", "zero"])
def test_a_sum_over_tokens_is_attributed_exactly(table_model, baseline):
    model = table_model()
    model.mean.fill_(0.3)
    model.deviation.fill_(2.0)
    view = TokenView(model, TEXT)
    found = integrated_gradients(model, view.tokens, view.fixed, baseline)
    table = model.net.table.weight.detach()[:, 0]
    empty = {"neutral": table[model.tokenizer.eos_token_id], "pad": table[model.tokenizer.pad_token_id], "zero": 0.0}[baseline]
    expected = torch.where(view.fixed, 0.0, (table[view.tokens.ids] - empty) / 2.0)
    assert (found.tokens - expected).abs().max() < 1e-5
    assert found.score == pytest.approx(float(model(view.tokens).detach()), abs=1e-5)
    assert found.gap < 1e-4
    assert found.steps == 16


def test_a_square_is_shared_in_proportion(table_model):
    """f = (sum of t)²: the path integral of 2 alpha S t from zero is S t, plus what the fixed end adds: t (S + e)."""
    model = table_model(2)
    view = TokenView(model, TEXT)
    found = integrated_gradients(model, view.tokens, view.fixed, "zero")
    table = model.net.table.weight.detach()[view.tokens.ids, 0]
    end, rest = float(table[view.fixed].sum()), float(table[~view.fixed].sum())
    expected = torch.where(view.fixed, 0.0, table * (rest + 2 * end))
    assert (found.tokens - expected).abs().max() < 1e-4 * expected.abs().max()
    assert found.baseline_score == pytest.approx(end**2, abs=1e-5)


@pytest.mark.parametrize("baseline", ["neutral", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
def test_it_is_complete_on_every_family(family_model, family, baseline):
    model = family_model(family)
    view = TokenView(model, TEXT)
    found = integrated_gradients(model, view.tokens, view.fixed, baseline, max_steps=4096)
    assert abs(float(found.tokens.sum()) - (found.score - found.baseline_score)) <= 1e-3
    assert found.is_complete
    assert found.gap <= found.bound <= 1e-2
    assert found.score == pytest.approx(float(model.score_texts([TEXT[0]], [TEXT[1]])), abs=1e-5)
    assert abs(found.score - found.baseline_score) > 1e-2, "nothing was attributed"
    assert (found.tokens[view.fixed] == 0).all()
    assert (found.tokens[~view.fixed] != 0).all()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_it_is_captum_s_on_the_same_path(family_model, family, monkeypatch):
    # captum wants a row of the batch for each step.
    monkeypatch.setattr("rlhf_lightning.model.text_vectors.supports_packing", lambda trunk: False)
    attr = pytest.importorskip("captum.attr")
    model = family_model(family)
    view = TokenView(model, TEXT)
    ids = view.tokens.ids[None]
    empty = torch.where(view.fixed, ids, model.tokenizer.pad_token_id)

    def score(rows: torch.Tensor) -> torch.Tensor:
        types = None if view.tokens.types is None else view.tokens.types.repeat(len(rows))
        return model(PackedTokens(rows.flatten(), torch.full((len(rows),), rows.shape[1]), types=types))

    layer = model.net.trunk.get_input_embeddings()
    score(ids)
    theirs, gap = attr.LayerIntegratedGradients(score, layer).attribute(
        ids, empty, n_steps=400, method="gausslegendre", internal_batch_size=100, return_convergence_delta=True
    )
    ours = integrated_gradients(model, view.tokens, view.fixed, "pad", tolerance=1e-4, max_steps=4096)
    theirs = theirs.reshape(len(view.fixed), -1).sum(-1)
    assert gap.abs().max() < 1e-3
    assert (ours.tokens - theirs).abs().max() < 2e-3
    assert ours.tokens.abs().max() > 1e-2


def test_steps_rise_until_it_holds_and_the_cap_leaves_a_gap_that_is_reported(family_model):
    model = family_model("llama")
    view = TokenView(model, TEXT)
    few = integrated_gradients(model, view.tokens, view.fixed, "zero", max_steps=16)
    enough = integrated_gradients(model, view.tokens, view.fixed, "zero", max_steps=4096)
    assert few.steps == 16
    assert few.gap > 1e-3 >= enough.gap
    assert 16 < enough.steps <= 4096
    assert (few.is_complete, enough.is_complete) == (False, True)
    loose = integrated_gradients(model, view.tokens, view.fixed, "zero", tolerance=few.bound * 1.01)
    assert (loose.steps, loose.is_complete) == (16, True)


def test_the_model_is_left_as_it_was(family_model):
    model = family_model("gpt2")
    before = model.score_texts([TEXT[0]], [TEXT[1]])
    view = TokenView(model, TEXT)
    integrated_gradients(model, view.tokens, view.fixed)
    assert torch.equal(model.score_texts([TEXT[0]], [TEXT[1]]), before)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_net_without_embeddings_is_refused(table_model):
    class Length(torch.nn.Module):
        def forward(self, tokens):
            return tokens.lengths.float()

    model = RewardModel(Length(), table_model().tokenizer)
    view = TokenView(model, TEXT)
    with pytest.raises(ConfigError, match="names no input embeddings"):
        integrated_gradients(model, view.tokens, view.fixed)

    class Aside(Length):
        def get_input_embeddings(self):
            return torch.nn.Embedding(3, 1)

    with pytest.raises(ConfigError, match="bypass its input embeddings"):
        integrated_gradients(RewardModel(Aside(), model.tokenizer), view.tokens, view.fixed)
