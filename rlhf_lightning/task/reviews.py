"""Synthetic product reviews with an exact utility, hidden from the models."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Annotated

from pydantic import Field, PositiveInt

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Prompt
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.registry import register
from rlhf_lightning.task._grammar import GRAMMAR, PRODUCTS, SITUATION_NAMES, TRUE

# Utility of the first, second, ... sentence of a kind; the last number applies to all further ones.
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
MAX_SENTENCES = 5
ROUNDING = 1e-9
SUBJECTS = {f"Review of {product} {situation}:\n": (product, situation) for product in PRODUCTS for situation in SITUATION_NAMES}


def sentences_of(response: str) -> list[str]:
    """Split a response after each full stop, question or exclamation mark before a space."""
    text = response.strip()
    return re.split(r"(?<=[.!?]) ", text) if text else []


@register("task", "reviews")
class Reviews:
    """Short product reviews from a small grammar with an exact hidden utility: the default task.

    A prompt names one of 24 products and one of 4 situations ("Review of a kettle for a student:"); a fifth of
    the 96 combinations is held out, their products and situations occur in training prompts. `utility` scores a response's sentences:

        aspect          a true, specific opinion ("The switch is very soft."): 0.7 the first, then 0.4, 0.2, nothing
        evidence        what it did ("It is ready fast."): 0.7, then 0.2, nothing
        fit             a remark on the situation ("It costs very little." for a student): 0.3 once
        drawback        with an aspect or evidence: 0.4 once, -0.2 each further; otherwise nothing
        recommendation  as the last sentence: 0.6
        opener          as the first sentence: 0.2
        misplaced       an opener or recommendation elsewhere: -0.2 each
        vague           "It is nice.": -0.3 each
        off_topic       "It rained all weekend.": -0.7 each
        spam            "Buy it now!!!": -0.9 each
        wrong           a sentence that is true only of another product or situation: -0.3 each
        repeated        the same fact again: -0.4 each, without its own positive term
        too_long        each sentence beyond five: -0.4, besides its own term
        ungrammatical   a sentence that the grammar can't produce: -0.7 each
        cut_off         a last sentence that doesn't end: -0.5
        empty           no sentence at all: -2

    The optimum is 2.8, with two aspects, an evidence, a drawback and a recommendation; no single kind comes close. One unit is about
    one standard deviation of the demonstrations.

    Args:
        seed: random seed of the split and of the demonstrations.
        demonstrations: number; their writers differ in care, and about half of their sentences are poor.
        test_fraction: fraction of held-out prompts; each product keeps prompts in training.
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
        # Take the products' prompts in turn, so that the held-out head of the order spreads evenly over products.
        prompts_by_product = [[prompt for prompt, subject in SUBJECTS.items() if subject[0] == product] for product in PRODUCTS]
        for prompts in prompts_by_product:
            rng.shuffle(prompts)
        rng.shuffle(prompts_by_product)
        order = [prompt for row in zip(*prompts_by_product, strict=True) for prompt in row]
        held_out = round(test_fraction * len(order))
        self._test, self._train = order[:held_out], order[held_out:]

    def train_prompts(self) -> list[TaskPrompt]:
        """Return the training prompts."""
        return list(map(TaskPrompt, self._train))

    def test_prompts(self) -> list[TaskPrompt]:
        """Return the held-out combinations of product and situation."""
        return list(map(TaskPrompt, self._test))

    def demonstrations(self) -> list[Demonstration]:
        """Return reviews on training prompts, good and bad, all grammatical."""
        rng = random.Random(f"{self._seed}: demonstrations")
        return [Demonstration(prompt, _write_review(SUBJECTS[prompt], rng)) for prompt in rng.choices(self._train, k=self._count)]

    def utility(self, prompt: Prompt, response: str) -> float:
        """Sum the terms of `explain`. Raises DataError for an unknown prompt."""
        return sum(self.explain(prompt, response).values())

    def explain(self, prompt: Prompt, response: str) -> dict[str, float]:
        """Return the utility's terms by the names above, 0 for absent ones. Raises DataError like `utility`."""
        sentences = sentences_of(response)
        counts = Counter(term for terms in _terms(_subject(prompt), sentences) for term in terms)
        if not counts["aspect"] + counts["evidence"]:
            counts["drawback"] = 0
        counts["too_long"] = max(0, len(sentences) - MAX_SENTENCES)
        counts["empty"] = int(not sentences)
        return {term: sum((weights[min(i, len(weights) - 1)] for i in range(counts[term])), 0.0) for term, weights in WEIGHTS.items()}

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        """Apply the best single edit (drop, replace or add a sentence), if it raises the utility.

        New sentences are drawn by `rng`, one true sentence of each good kind. Raises DataError like `utility`.
        """
        subject, sentences = _subject(prompt), sentences_of(response)
        edits = [[*sentences[:i], *sentences[i + 1 :]] for i in range(len(sentences))]
        for new in (_true_sentence(kind, subject, rng) for kind in GOOD_KINDS):
            edits += [[*sentences[:i], new, *sentences[i + 1 :]] for i in range(len(sentences))]
            edits += [[*sentences[:i], new, *sentences[i:]] for i in range(len(sentences) + 1)]
        rng.shuffle(edits)
        best = max((" ".join(edit) for edit in edits), key=lambda text: self.utility(prompt, text))
        return best if self.utility(prompt, best) > self.utility(prompt, response) + ROUNDING else response


def _subject(prompt: Prompt) -> tuple[str, str]:
    if not isinstance(prompt, str) or prompt not in SUBJECTS:
        raise DataError(f"task=reviews knows no prompt {prompt!r}{did_you_mean(str(prompt), SUBJECTS)}; take prompts of train_prompts()")
    return SUBJECTS[prompt]


def _terms(subject: tuple[str, str], sentences: list[str]) -> list[list[str]]:
    """Return the terms of WEIGHTS for each sentence."""
    facts: set[str] = set()
    terms_by_sentence = []
    for index, sentence in enumerate(sentences):
        meaning = GRAMMAR.get(sentence)
        is_last = index == len(sentences) - 1
        if meaning is None:
            terms = ["cut_off" if is_last and not sentence.endswith((".", "!", "?")) else "ungrammatical"]
        elif meaning.subjects.isdisjoint(subject) and meaning.subjects:
            terms = ["wrong"]
        elif (meaning.kind == "opener" and index > 0) or (meaning.kind == "recommendation" and not is_last):
            terms = ["misplaced"]
        else:
            terms = [meaning.kind]
        fact = meaning.fact if meaning and terms != ["wrong"] else sentence
        if fact in facts:
            terms = [*(term for term in terms if term not in GOOD_KINDS), "repeated"]
        facts.add(fact)
        terms_by_sentence.append(terms)
    return terms_by_sentence


def _true_sentence(kind: str, subject: tuple[str, str], rng: random.Random) -> str:
    """Draw a sentence of this kind that is true of the subject."""
    return rng.choice([sentence for item in (*subject, "") for sentence in TRUE.get((kind, item), [])])


def _poor_sentence(subject: tuple[str, str], earlier: list[str], rng: random.Random) -> str:
    """Draw a sentence with negative utility; false ones are about another product or situation."""
    kind = rng.choices((*BAD_KINDS, "false", "again"), (40, 18, 18, 15, 9))[0]
    if kind == "again" and earlier:
        return rng.choice(earlier)
    if kind in BAD_KINDS:
        return rng.choice(TRUE[kind, ""])
    while True:
        sentence = _true_sentence(rng.choice(("aspect", "evidence", "fit", "drawback")), rng.choice(list(SUBJECTS.values())), rng)
        if GRAMMAR[sentence].subjects.isdisjoint(subject):
            return sentence


def _write_review(subject: tuple[str, str], rng: random.Random) -> str:
    """Draw a review; each sentence is good with the writer's probability."""
    care = rng.uniform(0.2, 0.8)
    length = rng.choices((2, 3, 4, 5), (30, 35, 25, 10))[0]
    good = ["aspect", "aspect", *GOOD_KINDS]
    rng.shuffle(good)
    kinds = [good.pop() if rng.random() < care else "" for _ in range(length)]
    sentences: list[str] = []
    for kind in kinds:
        sentences.append(_true_sentence(kind, subject, rng) if kind else _poor_sentence(subject, sentences, rng))
    if rng.random() < 0.85:
        sentences.sort(key=lambda sentence: {"opener": 0, "recommendation": 2}.get(GRAMMAR[sentence].kind, 1))
    return " ".join(sentences)
