"""task=reviews against brute force over its grammar."""

import itertools
import random
import statistics

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.interfaces import Task
from rlhf_lightning.task._grammar import GRAMMAR, PRODUCTS, SITUATION_NAMES, TRUE
from rlhf_lightning.task.reviews import GOOD_KINDS, MAX_SENTENCES, SUBJECTS, WEIGHTS, Reviews, sentences_of

KETTLE = "Review of a kettle for a student:\n"
OPENER = "I bought this kettle last month."
ASPECT = "The switch is very soft."
EVIDENCE = "It is ready fast."
FIT = "It costs very little."
DRAWBACK = "The cord is a little short."
RECOMMENDATION = "I recommend it."
OPTIMUM = 2.8


@pytest.fixture(scope="module")
def task() -> Reviews:
    return Reviews()


@pytest.fixture(scope="module")
def demonstrations(task: Reviews) -> list[tuple[str, str]]:
    return [(row.prompt, row.response) for row in task.demonstrations()]


def terms(response: str, prompt: str = KETTLE) -> dict[str, float]:
    """The terms that are not 0."""
    return {term: value for term, value in Reviews().explain(prompt, response).items() if value}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", {"empty": -2.0}),
        (" \n", {"empty": -2.0}),
        (ASPECT, {"aspect": 0.7}),
        (f"{ASPECT} I like the thick steel.", {"aspect": 1.1}),
        (f"{ASPECT} I like the soft switch.", {"aspect": 0.7, "repeated": -0.4}),
        (f"{ASPECT} I like the simple switch.", {"aspect": 0.7, "repeated": -0.4}),
        (f"{ASPECT} I like the thick steel. I love how easy the cleaning is.", {"aspect": 1.3}),
        (f"{ASPECT} {ASPECT}", {"aspect": 0.7, "repeated": -0.4}),
        (EVIDENCE, {"evidence": 0.7}),
        (f"{EVIDENCE} Mine serves four people.", {"evidence": 0.9}),
        (f"{EVIDENCE} Mine serves four people. I found that it makes no mess.", {"evidence": 0.9}),
        (FIT, {"fit": 0.3}),
        (f"{FIT} It suits a small budget.", {"fit": 0.3}),
        ("The seller was honest.", {"wrong": -0.3}),
        (DRAWBACK, {}),
        (f"{EVIDENCE} {DRAWBACK}", {"evidence": 0.7, "drawback": 0.4}),
        (f"{EVIDENCE} {DRAWBACK} Still, the base is a bit slippery.", {"evidence": 0.7, "drawback": 0.2}),
        (RECOMMENDATION, {"recommendation": 0.6}),
        ("I recommend this kettle.", {"recommendation": 0.6}),
        ("I recommend this phone.", {"wrong": -0.3}),
        (f"{RECOMMENDATION} {ASPECT}", {"misplaced": -0.2, "aspect": 0.7}),
        (f"{OPENER} {ASPECT}", {"opener": 0.2, "aspect": 0.7}),
        (f"{ASPECT} {OPENER}", {"misplaced": -0.2, "aspect": 0.7}),
        ("I bought this phone last month.", {"wrong": -0.3}),
        ("It is nice. It is nice.", {"vague": -0.6, "repeated": -0.4}),
        ("Buy it now!!! WOW!!!", {"spam": -1.8}),
        ("What can I say? My cat is asleep.", {"vague": -0.3, "off_topic": -0.7}),
        ("It lasts two days.", {"wrong": -0.3}),
        ("The switch is very thick.", {"ungrammatical": -0.7}),
        (f"{ASPECT}  {EVIDENCE}", {"aspect": 0.7, "ungrammatical": -0.7}),
        (f"{ASPECT}\n{EVIDENCE}", {"ungrammatical": -0.7}),
        (f"{ASPECT} It is ready", {"aspect": 0.7, "cut_off": -0.5}),
        (
            " ".join(["It is nice.", "It is good.", "I like it.", "It is okay.", "It works fine.", ASPECT]),
            {"vague": -1.5, "aspect": 0.7, "too_long": -0.4},
        ),
        # What was said falsely is no fact: two wordings of it are two falsehoods, the same words are said again besides.
        ("I like the soft fabric. The fabric is very soft.", {"wrong": -0.6}),
        ("I like the soft fabric. I like the soft fabric.", {"wrong": -0.6, "repeated": -0.4}),
        ("I like the soft fabric. I like the soft switch.", {"wrong": -0.3, "aspect": 0.7}),
    ],
)
def test_terms_are_those_of_the_table(response: str, expected: dict[str, float]) -> None:
    assert terms(response) == pytest.approx(expected)
    assert Reviews().utility(KETTLE, response) == pytest.approx(sum(expected.values()))


def test_utility_depends_on_both_halves_of_the_prompt() -> None:
    response = f"{EVIDENCE} {FIT}"
    prompts = [f"Review of a {product} {situation}:\n" for product in ("kettle", "phone") for situation in ("for a student", "bought used")]
    assert [Reviews().utility(prompt, response) for prompt in prompts] == pytest.approx([1.0, 0.4, 0.0, -0.6])


def test_an_unknown_prompt_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'Review of a kettle for a student"):
        Reviews().utility("Review of a kettle for students:\n", ASPECT)


def test_improving_reaches_the_optimum_that_brute_force_finds(task: Reviews) -> None:
    """Only how often each good kind occurs matters in a clean review, with an opener first and a recommendation last."""

    def worth(kinds: tuple[str, ...]) -> float:
        capped = {kind: 1 for kind in ("opener", "recommendation")}
        counts = {kind: min(kinds.count(kind), capped.get(kind, MAX_SENTENCES)) for kind in set(kinds)}
        return sum(sum((*WEIGHTS[kind], *[WEIGHTS[kind][-1]] * MAX_SENTENCES)[:count]) for kind, count in counts.items())

    reviews = {kinds: worth(kinds) for n in range(1, MAX_SENTENCES + 1) for kinds in itertools.combinations_with_replacement(GOOD_KINDS, n)}
    optimum = max(reviews.values())
    assert optimum == pytest.approx(OPTIMUM)
    (best,) = [kinds for kinds, value in reviews.items() if value > optimum - 1e-9]
    assert sorted(best) == ["aspect", "aspect", "drawback", "evidence", "recommendation"]
    rng = random.Random(0)
    for prompt in (row.prompt for row in task.test_prompts()):
        response = ""
        for _ in range(8):
            response = task.improve(prompt, response, rng)
        assert task.utility(prompt, response) == pytest.approx(OPTIMUM)
        assert task.improve(prompt, response, rng) == response


def test_demonstrations_are_mediocre_with_room_above(task: Reviews, demonstrations: list[tuple[str, str]]) -> None:
    utilities = [task.utility(*pair) for pair in demonstrations]
    mean, sd = statistics.mean(utilities), statistics.stdev(utilities)
    assert abs(mean) < 0.15
    assert 0.95 < sd < 1.15
    assert (OPTIMUM - mean) / sd > 2.5
    assert sum(utility > 2.3 for utility in utilities) < 0.02 * len(utilities)


def test_demonstrations_are_grammatical_short_and_varied(task: Reviews, demonstrations: list[tuple[str, str]]) -> None:
    explained = [task.explain(*pair) for pair in demonstrations]
    assert not any(e["ungrammatical"] or e["cut_off"] or e["too_long"] or e["empty"] for e in explained)
    never = {"ungrammatical", "cut_off", "too_long", "empty"}
    assert all(any(e[term] for e in explained) for term in set(WEIGHTS) - never)
    said = [sentences_of(response) for _, response in demonstrations]
    assert {len(sentences) for sentences in said} == {2, 3, 4, 5}
    assert len({sentence for sentences in said for sentence in sentences}) > 0.95 * len(GRAMMAR)
    assert len({response for _, response in demonstrations}) > 0.98 * len(demonstrations)
    poor = sum(round(e[term] / WEIGHTS[term][0]) for e in explained for term in ("vague", "off_topic", "spam", "wrong", "repeated"))
    assert 0.45 < poor / sum(map(len, said)) < 0.6
    words = [response.split() for _, response in demonstrations]
    bigrams = [pair for w in words for pair in itertools.pairwise(w)]
    assert len(set(bigrams)) > 1900
    assert max(map(len, words)) < 45


def test_an_edit_raises_the_utility(task: Reviews, demonstrations: list[tuple[str, str]]) -> None:
    rng = random.Random(1)
    gains = [task.utility(p, task.improve(p, r, rng)) - task.utility(p, r) for p, r in demonstrations[:400]]
    assert min(gains) >= 0
    assert sum(gain > 0 for gain in gains) >= 0.95 * len(gains)


def test_an_edit_changes_one_sentence_and_mends_what_is_no_text(task: Reviews) -> None:
    rng = random.Random(2)
    response = f"{ASPECT} WOW!!! {EVIDENCE}"
    edited = sentences_of(task.improve(KETTLE, response, rng))
    assert ASPECT in edited
    assert EVIDENCE in edited
    assert "WOW!!!" not in edited
    for broken in ("", "qwer ty", "a. b. c. d. e. f. g.", "It is ready"):
        assert task.utility(KETTLE, task.improve(KETTLE, broken, rng)) > task.utility(KETTLE, broken)


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5])
def test_prompts_are_disjoint_and_their_halves_known(fraction: float) -> None:
    task = Reviews(test_fraction=fraction)
    train, test = ([row.prompt for row in rows] for rows in (task.train_prompts(), task.test_prompts()))
    assert len(test) == round(fraction * 96)
    assert len(set(train) | set(test)) == len(train) + len(test) == 96
    assert {SUBJECTS[prompt][0] for prompt in train} == set(PRODUCTS)
    assert {SUBJECTS[prompt][1] for prompt in train} == set(SITUATION_NAMES)
    assert {row.prompt for row in task.demonstrations()} <= set(train)


def test_the_seed_decides_everything() -> None:
    def all_of(seed: int) -> tuple[object, ...]:
        task = Reviews(seed=seed, demonstrations=50)
        return task.train_prompts(), task.test_prompts(), task.demonstrations(), task.improve(KETTLE, "WOW!!!", random.Random(3))

    assert all_of(4) == all_of(4)
    assert all(a != b for a, b in zip(all_of(4)[:3], all_of(5)[:3], strict=True))


def test_the_grammar_lost_no_sentence_to_another_kind() -> None:
    expected = {"opener": 4, "aspect": 3 * 2 * 3, "evidence": 3 * 3, "drawback": 2 * 3, "recommendation": 3}
    for product in PRODUCTS:
        assert {kind: len(TRUE[kind, product]) for kind in expected} == expected
    assert {len(TRUE["fit", situation]) for situation in SITUATION_NAMES} == {3}
    assert all(len(sentences_of(sentence)) == 1 for sentence in GRAMMAR)
    assert (len(PRODUCTS), len(SITUATION_NAMES), len(SUBJECTS)) == (24, 4, 96)


def test_it_is_an_explained_task(task: Reviews) -> None:
    as_task: Task = task
    assert as_task.has_utility
