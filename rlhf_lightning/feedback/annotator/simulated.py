"""Simulated people: they feel the task's hidden utility, each with a bias of their own and with noise."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.annotation import KINDS, Kind
from rlhf_lightning.flow import Edit, Feedback, Judgement, Ranking, Rating
from rlhf_lightning.interfaces import Task
from rlhf_lightning.registry import register


@dataclass(frozen=True)
class Person:
    """A simulated annotator: a rating is gain * feeling + bias, in standard deviations of utility, unless it is given at random."""

    name: str
    bias: float
    gain: float
    at_random: bool = False


@register("feedback_annotator", "simulated")
class SimulatedAnnotators:
    """Simulated people who feel the task's hidden utility with noise; ratings carry each one's bias and gain besides.

    The feeling about a response is z + noise * N(0, 1), where z = (utility - mean) / sd over the task's demonstrations. So a pair
    whose z differ by d is ranked as the utility does with probability Phi(d / (noise * sqrt 2)) (L. L. Thurstone, "A law of
    comparative judgment", 1927, case V). A rating is the middle of the scale plus (gain * feeling + bias) / reach half-scales, cut
    to the scale and rounded to a whole step.
    Edits are the task's own and carry no noise. People who answer at random rate and rank without looking, every value and every order
    alike; their edits are as good as anybody's.

    Each judgement comes from one person drawn at random and depends on the settings and on `count`, the number of judgements given
    before it, alone: setting `count` resumes a sequence exactly.

    Args:
        task: what is judged; it must know its utility and have demonstrations.
        annotators: how many people there are.
        noise: standard deviation of the noise of each feeling, in standard deviations of utility.
        bias: standard deviation between people of what they add to all their ratings, in the same unit.
        scale_spread: standard deviation between people of the logarithm of their gain.
        random_share: share of the people who answer at random, rounded to whole people: the last ones.
        rating_scale: lowest and highest rating, both whole numbers.
        reach: how far from the mean, in the same unit, a feeling meets the ends of the scale.
        ratings, rankings, edits: how many judgements of each kind `judge` gives to each prompt.
        seed: of the people and of their judgements.

    Raises:
        ConfigError: the task has no known utility, too few demonstrations, or the scale is upside down.
    """

    def __init__(
        self,
        task: Task,
        *,
        annotators: PositiveInt = 5,
        noise: NonNegativeFloat = 0.7,
        bias: NonNegativeFloat = 0.5,
        scale_spread: NonNegativeFloat = 0.2,
        random_share: Annotated[float, Field(ge=0, le=1)] = 0.0,
        rating_scale: tuple[int, int] = (1, 7),
        reach: PositiveFloat = 3.0,
        ratings: NonNegativeInt = 2,
        rankings: NonNegativeInt = 1,
        edits: NonNegativeInt = 1,
        seed: int = 0,
    ) -> None:
        if not task.has_utility:
            raise ConfigError("feedback_annotator=simulated needs a task whose utility is known, like task=reviews")
        if rating_scale[0] >= rating_scale[1]:
            raise ConfigError(f"feedback_annotator.rating_scale={list(rating_scale)}: the lowest rating comes first, like [1, 7]")
        utilities = [task.utility(prompt, response) for prompt, response in task.demonstrations()]
        self._sd = statistics.stdev(utilities) if len(utilities) > 1 else 0.0
        if self._sd == 0:
            raise ConfigError("feedback_annotator=simulated needs demonstrations of differing utility: they set the unit of its ratings")
        self._mean = statistics.mean(utilities)
        self._task = task
        self._noise = noise
        self._scale = rating_scale
        self._reach = reach
        self._per_prompt: dict[Kind, int] = {"rating": ratings, "ranking": rankings, "edit": edits}
        self._seed = seed
        rng = random.Random(f"{seed}: people")
        looking = annotators - round(random_share * annotators)
        self.people = [
            Person(f"simulated-{i + 1}", rng.gauss(0, 1) * bias, math.exp(rng.gauss(0, 1) * scale_spread), i >= looking)
            for i in range(annotators)
        ]
        self.count = 0

    def rate(self, prompt: str, response: str) -> Feedback:
        """One person's rating on the scale."""
        person, rng = self._next()
        low, high = self._scale
        if person.at_random:
            value = float(rng.randint(low, high))
        else:
            felt = person.gain * self._feel(prompt, response, rng) + person.bias
            value = (low + high) / 2 + felt / self._reach * (high - low) / 2
        judgement = Rating(value=float(round(min(max(value, low), high))), scale=(float(low), float(high)))
        return _feedback(prompt, [response], judgement, person)

    def rank(self, prompt: str, responses: Sequence[str]) -> Feedback:
        """One person's order of the responses; only equal texts tie. Raises DataError where there are fewer than two."""
        if len(responses) < 2:
            raise DataError(f"a ranking needs at least two responses, not {len(responses)}, to the prompt {prompt!r:.80}")
        person, rng = self._next()
        texts = dict.fromkeys(responses)
        felt = {text: rng.random() if person.at_random else self._feel(prompt, text, rng) for text in texts}
        order = sorted(felt, key=lambda response: -felt[response])
        return _feedback(prompt, responses, Ranking(ranks=tuple(order.index(response) for response in responses)), person)

    def compare(self, prompt: str, a: str, b: str) -> Feedback:
        """A ranking of two."""
        return self.rank(prompt, [a, b])

    def edit(self, prompt: str, response: str) -> Feedback:
        """One person's edit of the response; equal texts where there was nothing to improve."""
        person, rng = self._next()
        return _feedback(prompt, [response, self._task.improve(prompt, response, rng)], Edit(), person)

    def judge(self, groups: Sequence[tuple[str, Sequence[str]]], kinds: Sequence[Kind] = KINDS) -> list[Feedback]:
        """The judgements of each prompt's responses, as many of each kind as the settings say.

        Ratings and edits go round a group's responses in random order, so that none is judged twice before all are judged once; a
        ranking takes them all, and is left out where there is one only. Raises DataError for a prompt without responses.
        """
        said = []
        for prompt, responses in groups:
            if not responses:
                raise DataError(f"nothing to judge: no responses to the prompt {prompt!r:.80}")
            order = random.Random(f"{self._seed}: order {self.count}").sample(list(responses), len(responses))
            for kind in kinds:
                for turn in range(self._per_prompt[kind]):
                    if kind == "rating":
                        said.append(self.rate(prompt, order[turn % len(order)]))
                    elif kind == "edit":
                        said.append(self.edit(prompt, order[turn % len(order)]))
                    elif len(responses) > 1:
                        said.append(self.rank(prompt, responses))
        return said

    def _next(self) -> tuple[Person, random.Random]:
        rng = random.Random(f"{self._seed}: judgement {self.count}")
        self.count += 1
        return rng.choice(self.people), rng

    def _feel(self, prompt: str, response: str, rng: random.Random) -> float:
        return (self._task.utility(prompt, response) - self._mean) / self._sd + rng.gauss(0, self._noise)


def _feedback(prompt: str, responses: Sequence[str], judgement: Judgement, person: Person) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(responses), judgement=judgement, annotator=person.name, origin="simulated")
