"""Simulated annotators: what was put in is recovered from many of their judgements."""

import math
import random
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.annotator.simulated import SimulatedAnnotators
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating
from rlhf_lightning.interfaces import Annotator, AnnotatorContext, Demonstration, TaskPrompt
from rlhf_lightning.task.reviews import Reviews


class Numbers:
    """A task whose responses are their own utility; its demonstrations have mean 10 and standard deviation 2."""

    has_utility = True

    def train_prompts(self) -> list[TaskPrompt]:
        return [TaskPrompt("p")]

    def test_prompts(self) -> list[TaskPrompt]:
        return [TaskPrompt("q")]

    def demonstrations(self) -> list[Demonstration]:
        return [Demonstration("p", f"{10 + d}") for d in (-2, 0, 2)]

    def utility(self, prompt: str, response: str) -> float:
        return float(response)

    def improve(self, prompt: str, response: str, rng: random.Random) -> str:
        return f"{float(response) + rng.choice((1, 2))}"


def people(**settings: Any) -> SimulatedAnnotators:
    return SimulatedAnnotators(AnnotatorContext(Numbers(), Path()), **settings)


def sentiment_rating(feedback: Feedback) -> float:
    assert isinstance(feedback.judgement, Rating)
    return feedback.judgement.value


def ranks_of(feedback: Feedback) -> tuple[int, ...]:
    assert isinstance(feedback.judgement, Ranking)
    return feedback.judgement.ranks


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("gap", [0.25, 1.0])
def test_agreement_falls_with_noise_as_thurstone_says(noise: float, gap: float) -> None:
    judges, count = people(noise=noise, bias=2.0), 2000
    agreement = sum(ranks_of(judges.compare("p", "10", f"{10 + 2 * gap}")) == (1, 0) for _ in range(count)) / count
    expected = (1 + math.erf(gap / (noise * math.sqrt(2)) / math.sqrt(2))) / 2
    assert agreement == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / count) + 1e-9)


def test_without_noise_judgements_are_the_utility_itself() -> None:
    judges = people(noise=0, bias=0, scale_spread=0)
    assert ranks_of(judges.rank("p", ["9", "12", "-3", "10"])) == (2, 0, 3, 1)
    # 7 steps over -3..3 standard deviations of 2: each of utility's units is half a step, cut at the ends.
    assert [sentiment_rating(judges.rate("p", r)) for r in ("4", "10", "12", "16", "100", "-100")] == [1, 4, 5, 7, 7, 1]
    assert judges.rate("p", "10").judgement == Rating(value=4.0, scale=(1.0, 7.0))
    wide = people(noise=0, bias=0, scale_spread=0, rating_scale=(0, 100), reach=1.0)
    assert [sentiment_rating(wide.rate("p", r)) for r in ("8", "10", "11", "12", "13")] == [0, 50, 75, 100, 100]


def test_ratings_recover_each_persons_bias_gain_and_noise() -> None:
    judges = people(noise=0.3, bias=0.5, scale_spread=0.3, rating_scale=(0, 10_000), reach=20.0, seed=1)
    step = 20.0 / 5_000
    said: dict[str | None, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(6000):
        for response in ("8", "12"):
            feedback = judges.rate("p", response)
            said[feedback.annotator][response].append((sentiment_rating(feedback) - 5_000) * step)
    assert set(said) == {person.name for person in judges.people} == {f"simulated-{i}" for i in range(1, 6)}
    for person in judges.people:
        low, high = said[person.name]["8"], said[person.name]["12"]
        tolerance = 5 * 0.3 * person.gain / math.sqrt(len(low))
        assert (statistics.mean(low) + statistics.mean(high)) / 2 == pytest.approx(person.bias, abs=tolerance)
        assert (statistics.mean(high) - statistics.mean(low)) / 2 == pytest.approx(person.gain, abs=tolerance)
        assert statistics.stdev(high) == pytest.approx(0.3 * person.gain, rel=0.1)


def test_the_order_of_mean_ratings_is_the_order_of_biases() -> None:
    judges = people(noise=0.3, bias=1.0, scale_spread=0.0, seed=2)
    said: dict[str | None, list[float]] = defaultdict(list)
    for _ in range(5000):
        feedback = judges.rate("p", "10")
        said[feedback.annotator].append(sentiment_rating(feedback))
    assert [*sorted(said, key=lambda name: statistics.mean(said[name]))] == [p.name for p in sorted(judges.people, key=lambda p: p.bias)]


def test_people_differ_as_the_settings_say() -> None:
    crowd = people(annotators=4000, bias=0.5, scale_spread=0.2).people
    assert statistics.mean(person.bias for person in crowd) == pytest.approx(0, abs=0.04)
    assert statistics.stdev(person.bias for person in crowd) == pytest.approx(0.5, rel=0.05)
    assert statistics.stdev(math.log(person.gain) for person in crowd) == pytest.approx(0.2, rel=0.05)
    assert {(person.bias, person.gain) for person in people(bias=0, scale_spread=0).people} == {(0.0, 1.0)}


def test_a_share_of_people_answers_at_random() -> None:
    judges = people(annotators=10, random_fraction=0.3, noise=0, bias=0, scale_spread=0)
    assert [person.at_random for person in judges.people] == [False] * 7 + [True] * 3
    careless = {person.name for person in judges.people if person.at_random}
    rated: dict[bool, list[float]] = {True: [], False: []}
    first: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(6000):
        rating, ranking = judges.rate("p", "10"), judges.compare("p", "10", "12")
        rated[rating.annotator in careless].append(sentiment_rating(rating))
        first[ranking.annotator in careless].append(ranks_of(ranking) == (0, 1))
    assert set(rated[False]) == {4.0}
    assert not any(first[False])
    shares = Counter(rated[True])
    assert all(shares[float(level)] / len(rated[True]) == pytest.approx(1 / 7, abs=0.04) for level in range(1, 8))
    assert sum(first[True]) / len(first[True]) == pytest.approx(0.5, abs=0.06)
    assert {edit.responses[1] for edit in (judges.edit("p", "10") for _ in range(50))} == {"11.0", "12.0"}


def test_nobody_at_random_leaves_every_judgement_as_it_was() -> None:
    """A setting that is off draws no random number."""
    groups = [("p", ["8", "9", "10"])] * 10
    assert people(random_fraction=0.0).judge(groups, number=1) == people().judge(groups, number=1)
    some, all_looking = people(annotators=4, random_fraction=0.5), people(annotators=4)
    told = list(zip(some.judge(groups, number=1), all_looking.judge(groups, number=1), strict=True))
    looking = {person.name for person in some.people if not person.at_random}
    assert all(a == b for a, b in told if a.annotator in looking)
    assert any(a != b for a, b in told)


def test_equal_texts_tie_and_no_others() -> None:
    judges = people(noise=2.0)
    for _ in range(200):
        ranks = ranks_of(judges.rank("p", ["10", "11", "10", "10.0"]))
        assert ranks[0] == ranks[2]
        assert sorted({ranks[0], ranks[1], ranks[3]}) == [0, 1, 2]


def test_ties_in_utility_fall_either_way() -> None:
    judges = people(noise=0.3)
    first = sum(ranks_of(judges.compare("p", "10", "10.0")) == (0, 1) for _ in range(1000))
    assert 430 < first < 570


def test_edits_are_the_tasks_and_vary() -> None:
    judges = people()
    edits = [judges.edit("p", "10") for _ in range(50)]
    assert {edit.responses for edit in edits} == {("10", "11.0"), ("10", "12.0")}
    assert all(edit.judgement == Edit() for edit in edits)


def test_judge_gives_each_prompt_every_kind() -> None:
    judges = people(ratings=3, rankings=2, edits=1)
    found = judges.judge([("p", ["8", "9", "10"]), ("q", ["11"])], number=1)
    counts = Counter((feedback.prompt, feedback.judgement.kind) for feedback in found)
    assert counts == {("p", "rating"): 3, ("p", "ranking"): 2, ("p", "edit"): 1, ("q", "rating"): 3, ("q", "edit"): 1}
    assert {f.responses[0] for f in found if f.prompt == "p" and f.judgement.kind == "rating"} == {"8", "9", "10"}
    assert all(f.responses == ("8", "9", "10") for f in found if f.judgement.kind == "ranking")
    assert {f.judgement.kind for f in judges.judge([("p", ["8", "9"])], number=1, kinds=("ranking",))} == {"ranking"}


def test_a_round_is_decided_by_its_seed_and_its_number() -> None:
    groups = [("p", ["8", "9", "10"])] * 20

    def fresh(seed: int = 3) -> SimulatedAnnotators:
        return people(seed=seed, ratings=2)

    whole = fresh().judge(groups, number=1)
    assert whole == fresh().judge(groups, number=1)
    assert whole != fresh(4).judge(groups, number=1)
    assert len({f.annotator for f in whole}) == 5
    assert len({f.responses for f in whole if f.judgement.kind == "rating"}) == 3
    second = fresh().judge(groups, number=2)
    crowd = fresh()
    assert [crowd.judge(groups, number=number) for number in (1, 2, 1)] == [whole, second, whole]
    assert second != whole


def test_a_kind_that_is_asked_for_alone_is_given_and_changes_no_other_judgement() -> None:
    groups = [("p", ["8", "9"])] * 20
    crowd = people(rankings=0, noise=3.0)
    before = crowd.judge(groups, number=1)
    comparisons = crowd.judge(groups, number=1, kinds=("ranking",))
    assert len({feedback.judgement for feedback in comparisons}) == 2
    assert len(comparisons) == 20
    assert crowd.judge(groups, number=1) == before


def test_on_reviews_they_agree_with_the_utility_as_often_as_their_noise_lets_them() -> None:
    task = Reviews(demonstrations=400)
    sd = statistics.stdev(task.utility(row.prompt, row.response) for row in task.demonstrations())
    judges: Annotator = SimulatedAnnotators(AnnotatorContext(task, Path()), rankings=10)
    by_prompt: dict[str, list[str]] = defaultdict(list)
    for row in task.demonstrations():
        by_prompt[row.prompt].append(row.response)
    found = judges.judge([(prompt, responses) for prompt, responses in by_prompt.items() if len(set(responses)) > 1], number=1)
    agree, expected = [], []
    for feedback in found:
        utilities = [task.utility(feedback.prompt, response) for response in feedback.responses]
        if isinstance(feedback.judgement, Ranking) and utilities[0] != utilities[1]:
            agree.append((feedback.judgement.ranks[0] < feedback.judgement.ranks[1]) == (utilities[0] > utilities[1]))
            expected.append(statistics.NormalDist().cdf(abs(utilities[0] - utilities[1]) / sd / (0.7 * math.sqrt(2))))
        elif isinstance(feedback.judgement, Edit):
            assert utilities[1] >= utilities[0]
    by_chance = math.sqrt(sum(p * (1 - p) for p in expected)) / len(expected)
    assert statistics.mean(agree) == pytest.approx(statistics.mean(expected), abs=3 * by_chance)
    assert 0.7 < statistics.mean(expected) < 0.9


class Silent(Numbers):
    has_utility = False


class Flat(Numbers):
    def demonstrations(self) -> list[Demonstration]:
        return [Demonstration("p", "1"), Demonstration("p", "1.0")]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="needs a task with a utility"):
        SimulatedAnnotators(AnnotatorContext(Silent(), Path()))
    with pytest.raises(ConfigError, match="demonstrations of differing utility"):
        SimulatedAnnotators(AnnotatorContext(Flat(), Path()))
    with pytest.raises(ConfigError, match=r"rating_scale=\[7, 1\]"):
        people(rating_scale=(7, 1))
    with pytest.raises(DataError, match="at least two responses, not 1"):
        people().rank("p", ["1"])
    with pytest.raises(DataError, match="no responses to the prompt 'p'"):
        people().judge([("p", [])], number=1)
