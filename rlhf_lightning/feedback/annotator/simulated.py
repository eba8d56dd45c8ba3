"""Simulated annotators: noisy, biased observers of the task's hidden utility."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Edit, Feedback, Judgement, Prompt, Ranking, Rating
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import register


@dataclass(frozen=True)
class Person:
    """A simulated annotator who rates gain * feeling + bias (in sd of utility), or at random."""

    name: str
    bias: float
    gain: float
    at_random: bool = False


@register("feedback_annotator", "simulated")
class SimulatedAnnotators:
    """Simulated people who perceive the task's utility with noise and rate with a bias and a gain.

    The feeling about a response is z + noise * N(0, 1), where z = (utility - mean) / sd over the task's demonstrations. So a pair
    whose z differ by d is ranked as the utility does with probability Phi(d / (noise * sqrt 2)) (L. L. Thurstone, "A law of
    comparative judgment", 1927, case V). A rating is the middle of the scale plus (gain * feeling + bias) / reach half-scales, clipped
    to the scale and rounded to a whole step.
    Edits are the task's and have no noise. People who answer at random rate and rank uniformly; their edits are normal.

    Each judgement comes from one person drawn at random. It depends only on the settings and on `count`, its number in the sequence.
    The N judgements of a round have the numbers from (round - 1) * N on, so that a resumed round is the same.

    Args:
        context: its task must have a utility and demonstrations.
        annotators: number of people.
        noise: standard deviation of the noise of each feeling, in standard deviations of utility.
        bias: standard deviation between people of the offset of their ratings, in the same unit.
        scale_spread: standard deviation between people of the logarithm of their gain.
        random_fraction: fraction of the people who answer at random, rounded to whole people: the last ones.
        rating_scale: lowest and highest rating, both whole numbers.
        reach: distance from the mean, in the same unit, at which a feeling reaches the ends of the scale.
        ratings, rankings, edits: number of judgements of each kind that `judge` gives to each prompt; one at least where it is asked for
            that kind alone.
        seed: random seed of the people and of their judgements.

    Raises:
        ConfigError: the task has no known utility, too few demonstrations, or the scale is upside down.
    """

    kinds: ClassVar[tuple[AnnotationKind, ...]] = ANNOTATION_KINDS

    def __init__(
        self,
        context: AnnotatorContext,
        *,
        annotators: PositiveInt = 5,
        noise: NonNegativeFloat = 0.7,
        bias: NonNegativeFloat = 0.5,
        scale_spread: NonNegativeFloat = 0.2,
        random_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0,
        rating_scale: tuple[int, int] = (1, 7),
        reach: PositiveFloat = 3.0,
        ratings: NonNegativeInt = 2,
        rankings: NonNegativeInt = 1,
        edits: NonNegativeInt = 1,
        seed: int = 0,
    ) -> None:
        task = context.task
        if not task.has_utility:
            raise ConfigError("feedback_annotator=simulated needs a task with a utility, like task=reviews")
        if rating_scale[0] >= rating_scale[1]:
            raise ConfigError(f"feedback_annotator.simulated.rating_scale={list(rating_scale)}: the lowest rating comes first, like [1, 7]")
        utilities = [task.utility(row.prompt, str(row.response)) for row in task.demonstrations()]
        self._sd = statistics.stdev(utilities) if len(utilities) > 1 else 0.0
        if self._sd == 0:
            raise ConfigError("feedback_annotator=simulated needs demonstrations of differing utility: they set the unit of its ratings")
        self._mean = statistics.mean(utilities)
        self._task = task
        self._noise = noise
        self._scale = rating_scale
        self._reach = reach
        self._per_prompt: dict[AnnotationKind, int] = {"rating": ratings, "ranking": rankings, "edit": edits}
        self._seed = seed
        rng = random.Random(f"{seed}: people")
        attentive_count = annotators - round(random_fraction * annotators)
        self.people = [
            Person(f"simulated-{i + 1}", rng.gauss(0, 1) * bias, math.exp(rng.gauss(0, 1) * scale_spread), i >= attentive_count)
            for i in range(annotators)
        ]
        self.count = 0
        self._stream = ""

    def rate(self, prompt: Prompt, response: str) -> Feedback:
        """Return one person's rating on the scale."""
        person, rng = self._next()
        low, high = self._scale
        if person.at_random:
            value = float(rng.randint(low, high))
        else:
            feeling = person.gain * self._feel(prompt, response, rng) + person.bias
            value = (low + high) / 2 + feeling / self._reach * (high - low) / 2
        judgement = Rating(value=float(round(min(max(value, low), high))), scale=(float(low), float(high)))
        return _feedback(prompt, [response], judgement, person)

    def rank(self, prompt: Prompt, responses: Sequence[str]) -> Feedback:
        """Return one person's ranking; only equal texts tie. Raises DataError for fewer than two responses."""
        if len(responses) < 2:
            raise DataError(f"a ranking needs at least two responses, not {len(responses)}, to the prompt {prompt!r:.80}")
        person, rng = self._next()
        texts = dict.fromkeys(responses)
        score_of = {text: rng.random() if person.at_random else self._feel(prompt, text, rng) for text in texts}
        order = sorted(score_of, key=lambda response: -score_of[response])
        return _feedback(prompt, responses, Ranking(ranks=tuple(order.index(response) for response in responses)), person)

    def compare(self, prompt: Prompt, a: str, b: str) -> Feedback:
        """Rank two responses."""
        return self.rank(prompt, [a, b])

    def edit(self, prompt: Prompt, response: str) -> Feedback:
        """Return one person's edit of the response; equal texts if nothing can be improved."""
        person, rng = self._next()
        return _feedback(prompt, [response, self._task.improve(prompt, response, rng)], Edit(), person)

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Judge each prompt's responses, with as many judgements of each kind as the settings state.

        Ratings and edits cycle through a group's responses in random order; a ranking takes all of them, and is left out for a
        single response. Raises DataError for a prompt without responses.
        """
        # The number of judgements of each kind, and the first one's number in its sequence.
        by_settings = tuple(kinds) == ANNOTATION_KINDS
        counts = {kind: self._per_prompt[kind] if by_settings else max(1, self._per_prompt[kind]) for kind in kinds}
        total = sum(count for _, texts in groups for kind, count in counts.items() if kind != "ranking" or len(texts) > 1)
        self.count, self._stream = (number - 1) * total, "" if by_settings else f"{', '.join(kinds)} "

        # The judgements.
        feedback = []
        for prompt, responses in groups:
            if not responses:
                raise DataError(f"nothing to judge: no responses to the prompt {prompt!r:.80}")
            order = random.Random(f"{self._seed}: {self._stream}order {self.count}").sample(list(responses), len(responses))
            for kind, count in counts.items():
                for turn in range(count):
                    if kind == "rating":
                        feedback.append(self.rate(prompt, order[turn % len(order)]))
                    elif kind == "edit":
                        feedback.append(self.edit(prompt, order[turn % len(order)]))
                    elif len(responses) > 1:
                        feedback.append(self.rank(prompt, responses))
        return feedback

    def _next(self) -> tuple[Person, random.Random]:
        rng = random.Random(f"{self._seed}: {self._stream}judgement {self.count}")
        self.count += 1
        return rng.choice(self.people), rng

    def _feel(self, prompt: Prompt, response: str, rng: random.Random) -> float:
        return (self._task.utility(prompt, response) - self._mean) / self._sd + rng.gauss(0, self._noise)


def _feedback(prompt: Prompt, responses: Sequence[str], judgement: Judgement, person: Person) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(responses), judgement=judgement, annotator=person.name, origin="simulated")
