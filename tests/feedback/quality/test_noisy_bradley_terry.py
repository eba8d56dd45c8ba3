"""The noisy Bradley-Terry model against crowdkit's, and against what was simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import NoisyBradleyTerry as Reference
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import spearmanr

from rlhf_lightning.feedback.quality.noisy_bradley_terry import NoisyBradleyTerry, noisy_bradley_terry


def simulated(seed: int, responses: int = 30, annotators: int = 12, each: int = 150, bias: float = 0.8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = annotators * each
    score, skill = rng.normal(size=responses) * 2, rng.permutation(np.linspace(0.1, 0.95, annotators))
    first = rng.integers(responses, size=n)
    second = (first + rng.integers(1, responses, size=n)) % responses
    annotator = np.repeat(np.arange(annotators), each)
    p = skill[annotator] * expit(score[first] - score[second]) + (1 - skill[annotator]) * bias
    return {"first": first, "second": second, "annotator": annotator, "outcome": (rng.random(n) < p) * 1.0, "score": score, "skill": skill}


def fitted(data: dict[str, np.ndarray], **settings: object) -> NoisyBradleyTerry:
    return noisy_bradley_terry(data["first"], data["second"], data["annotator"], data["outcome"], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_scores_skills_and_the_bias_that_were_simulated(seed: int) -> None:
    data = simulated(seed)
    found = fitted(data)
    assert spearmanr(found.scores, data["score"]).statistic > 0.9
    assert spearmanr(found.skill, data["skill"]).statistic > 0.9
    careless = data["skill"] < 0.4
    assert (found.bias[careless] > 0.65).all()


def test_scores_agree_with_crowdkit_s_and_skills_are_more_probable() -> None:
    """Their optimiser is misled by its gradient of skills (see the docstring), so skills are held to the model's own likelihood."""
    data = simulated(0)
    names = {side: [f"r{i:02d}" for i in data[side]] for side in ("first", "second")}
    frame = pd.DataFrame({"worker": data["annotator"], "left": names["first"], "right": names["second"]})
    frame["label"] = np.where(data["outcome"] == 1, frame.left, frame.right)
    reference = Reference(n_iter=200).fit(frame)
    found = fitted(data)
    assert spearmanr(found.scores, reference.scores_.sort_index().to_numpy()).statistic > 0.9

    def likelihood(score: np.ndarray, skill: np.ndarray, bias: np.ndarray) -> float:
        by = data["annotator"]
        p = skill[by] * expit(score[data["first"]] - score[data["second"]]) + (1 - skill[by]) * bias[by]
        return float(np.log(np.where(data["outcome"] == 1, p, 1 - p)).sum())

    theirs = reference.scores_.sort_index().to_numpy()
    theirs = np.log(theirs / (1 - theirs))
    assert likelihood(found.scores, found.skill, found.bias) > likelihood(
        theirs, reference.skills_.sort_index().to_numpy(), reference.biases_.sort_index().to_numpy()
    )


def test_it_is_the_minimum_that_scipy_finds_for_the_written_objective() -> None:
    data = simulated(1, responses=6, annotators=3, each=40)
    first, second, by, won = (data[name] for name in ("first", "second", "annotator", "outcome"))

    def objective(x: np.ndarray) -> float:
        score, skill, bias = 2 * x[:6], expit(1 + x[12] + 1.5 * x[6:9]), expit(x[9:12])
        p = skill[by] * expit(score[first] - score[second]) + (1 - skill[by]) * bias[by]
        return float(-np.log(np.where(won == 1, p, 1 - p)).sum() + (x**2).sum() / 2)

    found = fitted(data)
    logit = [np.log(p / (1 - p)) for p in (found.skill, found.bias)]
    # The mean is whatever is best for these skills: deviations d = (logit - 1 - m) / 1.5 with m = sum(d) / 1.5.
    mean = (logit[0] - 1).sum() / (1.5**2 + 3)
    ours = np.concatenate([found.scores / 2, (logit[0] - 1 - mean) / 1.5, logit[1], [mean]])
    theirs = minimize(objective, ours + 0.05, method="BFGS")
    assert objective(ours) == pytest.approx(theirs.fun, abs=1e-5)


def test_equal_data_give_equal_values_and_swapped_sides_change_nothing() -> None:
    data = simulated(2)
    one, again = fitted(data), fitted(data)
    np.testing.assert_array_equal(one.skill, again.skill)
    display_order = -np.ones(len(data["first"]))
    swapped = noisy_bradley_terry(data["second"], data["first"], data["annotator"], 1 - data["outcome"], display_order=display_order)
    np.testing.assert_allclose(swapped.skill, one.skill, atol=1e-3)
    np.testing.assert_allclose(swapped.bias, one.bias, atol=1e-3)


def test_who_judged_little_is_near_the_mean_and_ties_are_half_a_win_each_way() -> None:
    data = simulated(3)
    newcomer = {name: np.append(data[name], data[name][:2]) for name in ("first", "second", "outcome")}
    newcomer["annotator"] = np.append(data["annotator"], [12, 12])
    skill = fitted(newcomer).skill
    assert skill.min() < 0.35
    assert 0.3 < skill[12] < 0.9
    tied = noisy_bradley_terry(np.array([0, 0]), np.array([1, 1]), np.array([0, 1]), np.array([0.5, 0.5]))
    assert tied.scores.tolist() == pytest.approx([0, 0], abs=1e-6)
