"""What is logged of the responses, against counting by hand; and a planted hack, seen from the first update to the alarm."""

from __future__ import annotations

import csv
import itertools
import json
import math
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout, ScoredRollout
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.policy.experience import PPOComponents
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.metrics import MAX_ABS, check_value_ranges, held_out_metrics, response_metrics, value_ranges
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.module import PPOModule
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.rollout.prompts import prompt_loader
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.training.datamodule import ShardedData

BIG = 2**40
ROWS = st.lists(st.lists(st.sampled_from([1, 2, 3, BIG, BIG + 1]), min_size=1, max_size=7), min_size=1, max_size=5)


def share(grams: list[Any]) -> float:
    return len(set(grams)) / len(grams) if grams else 1.0


@settings(deadline=None)
@given(ROWS)
def test_ngrams_are_counted_within_responses_and_without_padding(rows):
    width = max(map(len, rows)) + 1
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    count = len(rows)
    scored = ScoredRollout(
        prompts=[""] * count, prompt_ids=mask, prompt_mask=mask, group=torch.arange(count), responses=[str(row) for row in rows],
        response_ids=ids, response_mask=mask, has_eos=torch.tensor([len(row) > 3 for row in rows]), sampled_log_probs=mask * 0.0,
        scores=torch.arange(float(count)), rewards=mask * 0.0, old_log_probs=mask * 0.0, ref_log_probs=mask * 0.0, entropy=mask * 0.0,
        values=None, kl_coef=0.0,
    )  # fmt: skip
    found = {name: value.item() for name, value in response_metrics(scored).items()}
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    triples = [(i, *row[k : k + 3]) for i, row in enumerate(rows) for k in range(len(row) - 2)]
    long = [len(row) for row in rows if len(row) > 3]
    assert found["val/distinct_1"] == pytest.approx(share([token for row in rows for token in row]))
    assert found["val/distinct_2"] == pytest.approx(share(pairs))
    assert found["val/repetition_3"] == pytest.approx(1 - share(triples), abs=1e-6)
    assert found["val/equal_responses"] == pytest.approx(sum(rows.count(row) > 1 for row in rows) / count)
    assert found["completions/mean_terminated_length"] == pytest.approx(sum(long) / len(long) if long else 0.0)
    assert found["val/eos_rate"] == pytest.approx(len(long) / count) == pytest.approx(1 - found["completions/clipped_ratio"])
    assert found["objective/scores_std"] == pytest.approx(scored.scores.std().item() if count > 1 else 0.0)


def length(rollout: Rollout, sign: float = 1.0) -> Tensor:
    return sign * rollout.response_mask.sum(1).float()


def test_held_out_scores_are_means_by_name(scored_of):
    scored, unscored = scored_of(torch.tensor([[1, 1, 0], [1, 1, 1]])), torch.full((2,), torch.nan)
    assert held_out_metrics({"a": length, "b": partial(length, sign=-2.0)}, scored, unscored) == {"a": 2.5, "b": -5.0}


def test_held_out_scores_are_correlated_with_the_trained_ones_within_prompts(scored_of):
    lengths, scores = torch.tensor([3.0, 1.0, 2.0, 6.0, 4.0, 5.0]), torch.tensor([9.0, 1.0, 4.0, 2.0, torch.nan, 3.0])
    scored = scored_of((torch.arange(6) < lengths[:, None]).long())
    scored.group = torch.tensor([0, 0, 0, 1, 1, 1])
    rows = torch.tensor([0, 1, 2, 3, 5])
    centred = [torch.cat([part - part.mean() for part in values[rows].split([3, 2])]) for values in (lengths, scores)]
    expected = float(torch.corrcoef(torch.stack(centred))[0, 1])
    assert float(held_out_metrics({"a": length}, scored, scores)["a_correlation"]) == pytest.approx(expected, abs=1e-6)


def test_held_out_scores_are_of_what_can_be_scored(scored_of):
    def none(rollout: Rollout) -> list[None]:
        return [None] * len(rollout)

    def longest(rollout: Rollout) -> list[float | None]:
        return [None if steps < 3 else float(steps) for steps in length(rollout).tolist()]

    assert held_out_metrics({"a": none, "b": longest}, scored_of(torch.tensor([[1, 1, 0], [1, 1, 1]])), torch.ones(2)) == {"b": 3.0}


PROMPTS = ["It", "Review of a lamp:\n", "The kettle", "a quiet fan, and"]
ROOM = 12


def train(said: list[str], held_out: Any, **given: Any) -> PPOModule:
    """PPO on a scorer that pays length, from a model that ends early."""
    chosen = PPOSettings(**{"updates": 24, "prompts_per_update": 8, "responses_per_prompt": 4, "learning_rate": 2e-2, **given})
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(tiny(PROMPTS, family="gpt2", layers=1, width=16, heads=2, vocabulary=260, positions=40))
        with torch.no_grad():  # it begins with an end in about every fourth token
            bias = torch.zeros(models[-1].model.config.vocab_size)
            bias[models[-1].eos_ids] = 4.5
        models[-1].model.get_output_embeddings().register_forward_hook(lambda m, i, o, bias=bias: o + bias)
    L.seed_everything(0, verbose=False)
    parts = PPOComponents(
        sampler=partial(native, max_new_tokens=ROOM), scorer=length, shapings=(), advantage=rloo, loss=ppo_clip, reduction=token_mean,
        value_loss=clipped_value_loss, kl_control=FixedKL(coef=0.0), held_out={"objective/held_out_scores": held_out}, log=said.append,
    )  # fmt: skip
    module = PPOModule(Policy(models[0]), Policy(models[1]), parts, chosen)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    updates, share_of = chosen.updates, chosen.prompts_per_update

    def loader(rank: int, world: int) -> Any:
        return prompt_loader(list(map(TaskPrompt, PROMPTS)), models[0], updates, share_of, ROOM, seed=0, rank=rank, world=world)

    trainer.fit(module, ShardedData(loader))
    return module


def test_a_planted_hack_sounds_the_alarm_and_an_honest_score_does_not():
    """The scorer pays length; length spoils the one held-out score and is the other."""
    hacked: list[str] = []
    module = train(hacked, partial(length, sign=-1.0))
    assert module.history[-1]["objective/scores"] > module.history[0]["objective/scores"] + 2
    assert module.history[-1]["alarm/overoptimised"] == 1.0
    assert module.history[0]["alarm/overoptimised"] == 0.0
    assert sum("alarm overoptimised" in line for line in hacked) == 1, "said when it begins, not again at every update"
    honest: list[str] = []
    assert not any(step["alarm/overoptimised"] for step in train(honest, length).history)
    assert not any("alarm overoptimised" in line for line in honest)


def test_the_first_alarm_ends_the_training_if_it_is_set_to():
    module = train([], partial(length, sign=-1.0), stop_on_alarm=True)
    assert len(module.history) < 24
    assert module.history[-1]["alarm/peak"] == 1.0
    assert not any(any(value for name, value in step.items() if name.startswith("alarm/")) for step in module.history[:-1])


def test_a_second_reward_model_is_scored_at_every_so_manyth_update(command, world):
    words = ["logger=csv", "ppo.updates=4", "ppo.held_out_every=3", f"ppo.held_out_scorer={world.reward_model}"]
    outcome = command(*world.ppo(*words))
    assert outcome.code == 0, outcome.error
    with (outcome.folder / "logs" / "ppo" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The same reward model twice: the held-out scores are the scores.
    assert [row["objective/held_out_scores"] for row in rows] == [rows[0]["objective/scores"], "", "", rows[3]["objective/scores"]]
    report = json.loads((outcome.folder / "report.json").read_text())
    (curve,) = [curve for curve in report["curves"] if curve["name"] == "Held-out score"]
    assert curve["series"][0]["xs"] == [1.0, 4.0]
    refused = command(*world.ppo("ppo.held_out_scorer=/no/such/folder"))
    assert refused.code == 2
    assert "/no/such/folder" in refused.error


MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize("wild", [1e30, -1e30, math.inf, -math.inf, math.nan])
def test_a_wild_reward_is_refused_with_the_response_and_its_score(scored_of, wild):
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, wild]])
    with pytest.raises(UserError, match=r"update 7: rewards of 1 tokens .* in the response 'response 1' with the score 3 .*clip_score"):
        check_value_ranges(scored_of(MASK, rewards=rewards, scores=torch.tensor([1.0, 3.0])), 7)


def test_what_stands_outside_the_mask_is_nobody_s(scored_of):
    rewards = torch.tensor([[0.0, 1.0, math.nan], [0.0, 0.0, 2.0]])
    record = scored_of(MASK, rewards=rewards)
    check_value_ranges(record, 1)
    assert value_ranges(record)["rewards"] == [0.0, 2.0]


@pytest.mark.parametrize("advantage", [gae, grpo, rloo])
def test_the_largest_number_that_is_let_through_can_be_computed_with(scored_of, advantage):
    """Advantages are finite and not a silent 0, and so is the loss."""
    scores = torch.tensor([MAX_ABS, -MAX_ABS / 2, 0.0, MAX_ABS])
    record = scored_of(torch.ones(4, 8, dtype=torch.long), scores=scores, values=torch.zeros(4, 8))
    check_value_ranges(record, 1)
    experience = advantage(record)
    assert experience.advantages.isfinite().all()
    assert experience.advantages.abs().max() > 0.5
    losses, _ = ppo_clip(experience, torch.full((4, 8), 0.1))
    assert losses.square().sum().isfinite()
    with pytest.raises(UserError):
        check_value_ranges(scored_of(torch.ones(4, 8, dtype=torch.long), scores=2 * scores), 1)


def test_extremes_by_hand(experience_of):
    old = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, -1.0, -4.0]])
    record = experience_of(MASK, torch.tensor([[1.0, -1.0, 50.0], [0.0, 2.0, 3.0]]), scores=torch.tensor([5.0, 7.0]), old_log_probs=old)
    found = value_ranges(record, old + torch.tensor([[100.0, 0.0, 500.0], [0.0, -100.0, 0.0]]))
    assert found["log_ratio_to_old"] == [-100.0, 100.0]
    assert found["log_ratio_to_reference"] == [-4.0, -1.0]
    assert found["advantages"] == [-1.0, 3.0]
    assert found["scores"] == [5.0, 7.0]
    assert "values" not in found


@pytest.mark.parametrize("log_ratio", [100.0, -100.0, -math.inf])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_an_extreme_log_ratio_gives_a_finite_loss_and_gradient(experience_of, log_ratio, advantage):
    """The new policy's log-probability is that far from the old one's (-inf: it rules the token out)."""
    old = torch.full((1, 3), -100.0)
    new = (old + torch.tensor([[log_ratio, 0.1, 0.0]])).requires_grad_()
    experience = experience_of(torch.ones(1, 3, dtype=torch.long), torch.full((1, 3), advantage), old_log_probs=old)
    losses, metrics = ppo_clip(experience, new)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert new.grad.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())
