"""A small world of product reviews, with a utility that is known exactly and hidden from everything that learns."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Annotated

from pydantic import Field, PositiveInt

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import DataError
from rlhf_lightning.registry import register
from rlhf_lightning.task._grammar import GRAMMAR, PRODUCTS, SITUATION_NAMES, TRUE

# What the first, second, ... sentence of a kind adds; the last number holds for all that follow. In units of utility.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "aspect": (0.7, 0.4, 0.2, 0.0),
    "evidence": (0.7, 0.2, 0.0),
    "fit": (0.3, 0.0),
    "drawback": (0.4, -0.2),
    "recommendation": (0.6,),
    "opener": (0.2,),
    "misplaced": (-0.2,),
    "vague": (-0.3,),
    "off_topic": (-0.7,),
    "spam": (-0.9,),
    "wrong": (-0.3,),
    "repeated": (-0.4,),
    "too_long": (-0.4,),
    "ungrammatical": (-0.7,),
    "cut_off": (-0.5,),
    "empty": (-2.0,),
}
GOOD_KINDS = ("opener", "aspect", "evidence", "fit", "drawback", "recommendation")
BAD_KINDS = ("vague", "spam", "off_topic")
LONGEST = 5
ROUNDING = 1e-9
SUBJECTS = {f"Review of {product} {situation}:\n": (product, situation) for product in PRODUCTS for situation in SITUATION_NAMES}


def sentences_of(response: str) -> list[str]:
    """The response cut after each full stop, question or exclamation mark that a space follows."""
    text = response.strip()
    return re.split(r"(?<=[.!?]) ", text) if text else []


@register("task", "reviews")
class Reviews:
    """Short product reviews from a small grammar, with an exactly known hidden utility: the world of the default run.

    A prompt names one of 24 products and one of 4 situations ("Review of a kettle for a student:"); a fifth of
    the 96 combinations is held out, both halves of each being known from other prompts. `utility` reads a response's sentences:

        aspect          a true, specific opinion ("The switch is very soft."): 0.7 the first, then 0.4, 0.2, nothing
        evidence        what it did ("It is ready fast."): 0.7, then 0.2, nothing
        fit             a remark that fits the situation ("It costs very little." for a student): 0.3 once
        drawback        beside an aspect or evidence: 0.4 once, -0.2 each further; alone: nothing
        recommendation  as the last sentence: 0.6
        opener          as the first sentence: 0.2
        misplaced       an opener or recommendation elsewhere: -0.2 each
        vague           "It is nice.": -0.3 each
        off_topic       "It rained all weekend.": -0.7 each
        spam            "Buy it now!!!": -0.9 each
        wrong           a sentence that is true of another product or situation only: -0.3 each
        repeated        the same fact again: -0.4 each, and what was good of it counts for nothing
        too_long        each sentence beyond five: -0.4, beside its own term
        ungrammatical   a sentence that the grammar can't produce: -0.7 each
        cut_off         a last sentence that doesn't end: -0.5
        empty           no sentence at all: -2

    The optimum is 2.8, with two aspects, an evidence, a drawback and a recommendation: no kind alone comes near. One unit is about
    one standard deviation of the demonstrations.

    Args:
        seed: of the split and of the demonstrations.
        demonstrations: how many; they come from writers who care more or less, so that about half of their sentences are poor.
        test_fraction: share of the prompts held out; each product keeps prompts in training.
    """

    has_utility = True

    def __init__(
        self,
        *,
        seed: int = 0,
        demonstrations: PositiveInt = 3000,
        test_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.2,
    ) -> None:
        self._seed = seed
        self._count = demonstrations
        rng = random.Random(f"{seed}: split")
        # Each product deals out its prompts one at a time, so that the held-out head of the deck spreads evenly over products.
        hands = [[prompt for prompt, subject in SUBJECTS.items() if subject[0] == product] for product in PRODUCTS]
        for hand in hands:
            rng.shuffle(hand)
        rng.shuffle(hands)
        deck = [prompt for turn in zip(*hands, strict=True) for prompt in turn]
        held_out = round(test_fraction * len(deck))
        self._test, self._train = deck[:held_out], deck[held_out:]

    def train_prompts(self) -> list[str]:
        """The prompts to learn on."""
        return list(self._train)

    def test_prompts(self) -> list[str]:
        """Combinations of product and situation that training never shows."""
        return list(self._test)

    def demonstrations(self) -> list[tuple[str, str]]:
        """(prompt, response) pairs on training prompts, good and bad mixed, all grammatical."""
        rng = random.Random(f"{self._seed}: demonstrations")
        return [(prompt, _written(SUBJECTS[prompt], rng)) for prompt in rng.choices(self._train, k=self._count)]

    def utility(self, prompt: str, response: str) -> float:
        """The sum of the terms of `explain`. Raises DataError for a prompt that is not of this world."""
        return sum(self.explain(prompt, response).values())

    def explain(self, prompt: str, response: str) -> dict[str, float]:
        """The utility's terms by the names above, 0 where one doesn't apply. Raises DataError as `utility` does."""
        sentences = sentences_of(response)
        counts = Counter(term for terms in _read(_subject(prompt), sentences) for term in terms)
        if not counts["aspect"] + counts["evidence"]:
            counts["drawback"] = 0
        counts["too_long"] = max(0, len(sentences) - LONGEST)
        counts["empty"] = int(not sentences)
        return {term: sum((weights[min(i, len(weights) - 1)] for i in range(counts[term])), 0.0) for term, weights in WEIGHTS.items()}

    def improve(self, prompt: str, response: str, rng: random.Random) -> str:
        """The response after the best single edit: a sentence dropped, replaced or added; the same where none raises the utility.

        What to say instead is drawn by `rng`, one true sentence of each good kind. Raises DataError as `utility` does.
        """
        subject, sentences = _subject(prompt), sentences_of(response)
        edits = [[*sentences[:i], *sentences[i + 1 :]] for i in range(len(sentences))]
        for new in (_true_sentence(kind, subject, rng) for kind in GOOD_KINDS):
            edits += [[*sentences[:i], new, *sentences[i + 1 :]] for i in range(len(sentences))]
            edits += [[*sentences[:i], new, *sentences[i:]] for i in range(len(sentences) + 1)]
        rng.shuffle(edits)
        best = max((" ".join(edit) for edit in edits), key=lambda text: self.utility(prompt, text))
        return best if self.utility(prompt, best) > self.utility(prompt, response) + ROUNDING else response


def _subject(prompt: str) -> tuple[str, str]:
    if prompt not in SUBJECTS:
        raise DataError(f"task=reviews knows no prompt {prompt!r}{did_you_mean(prompt, SUBJECTS)}; take prompts of train_prompts()")
    return SUBJECTS[prompt]


def _read(subject: tuple[str, str], sentences: list[str]) -> list[list[str]]:
    """The terms of WEIGHTS that each sentence counts for."""
    seen: set[str] = set()
    read = []
    for place, sentence in enumerate(sentences):
        meaning = GRAMMAR.get(sentence)
        is_last = place == len(sentences) - 1
        if meaning is None:
            terms = ["cut_off" if is_last and not sentence.endswith((".", "!", "?")) else "ungrammatical"]
        elif meaning.about.isdisjoint(subject) and meaning.about:
            terms = ["wrong"]
        elif (meaning.kind == "opener" and place > 0) or (meaning.kind == "recommendation" and not is_last):
            terms = ["misplaced"]
        else:
            terms = [meaning.kind]
        fact = meaning.fact if meaning and terms != ["wrong"] else sentence
        if fact in seen:
            terms = [*(term for term in terms if term not in GOOD_KINDS), "repeated"]
        seen.add(fact)
        read.append(terms)
    return read


def _true_sentence(kind: str, subject: tuple[str, str], rng: random.Random) -> str:
    """A sentence of this kind that is true of the subject."""
    return rng.choice([sentence for item in (*subject, "") for sentence in TRUE.get((kind, item), [])])


def _poor_sentence(subject: tuple[str, str], so_far: list[str], rng: random.Random) -> str:
    """A sentence that the utility punishes; false ones come from a random other product or situation."""
    kind = rng.choices((*BAD_KINDS, "false", "again"), (40, 18, 18, 15, 9))[0]
    if kind == "again" and so_far:
        return rng.choice(so_far)
    if kind in BAD_KINDS:
        return rng.choice(TRUE[kind, ""])
    while True:
        sentence = _true_sentence(rng.choice(("aspect", "evidence", "fit", "drawback")), rng.choice(list(SUBJECTS.values())), rng)
        if GRAMMAR[sentence].about.isdisjoint(subject):
            return sentence


def _written(subject: tuple[str, str], rng: random.Random) -> str:
    """A review by someone who cares more or less: each sentence is good with a chance of that writer's own."""
    care = rng.uniform(0.2, 0.8)
    length = rng.choices((2, 3, 4, 5), (30, 35, 25, 10))[0]
    good = ["aspect", "aspect", *GOOD_KINDS]
    rng.shuffle(good)
    chosen = [good.pop() if rng.random() < care else "" for _ in range(length)]
    sentences: list[str] = []
    for kind in chosen:
        sentences.append(_true_sentence(kind, subject, rng) if kind else _poor_sentence(subject, sentences, rng))
    if rng.random() < 0.85:
        sentences.sort(key=lambda sentence: {"opener": 0, "recommendation": 2}.get(GRAMMAR[sentence].kind, 1))
    return " ".join(sentences)
