"""Small generated programming problems with tests."""

from __future__ import annotations

import itertools
import random
from typing import Annotated, NoReturn

from pydantic import Field, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompt
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.registry import register

NUMBERED = {"add {}": "x + {}", "subtract {}": "x - {}", "multiply by {}": "x * {}", "cap at {}": "min(x, {})", "raise to {}": "max(x, {})"}
PLAIN = {"double": "x + x", "square": "x * x", "negate": "-x", "halve": "x // 2"}
STEPS = {text.format(n): code.format(n) for text, code in NUMBERED.items() for n in range(2, 8)} | PLAIN
"""Steps of a problem in words, and as Python expressions of x."""
ARGUMENTS = (-7, -2, 0, 1, 3, 5, 8, 12)
"""Arguments of the tests; every other one is held out of the reward."""
PROMPT = "def f(x):\n    # {}, then {}\n"


@register("task", "programs")
class Programs:
    """Functions of one number in two steps ("add 3, then square"), for rollout_scorer=code.

    All pairs of 34 steps make 1,156 problems, of which a part is held out; each step of a held-out pair occurs in training pairs. The
    columns of a prompt are `entry_point`, `calls` and `expected`, for eight arguments.

    Args:
        seed: random seed of the split and of the demonstrations.
        demonstrations: number.
        mistakes: chance that a step of a demonstration is another one than the problem's, so that there is something left to learn.
        test_fraction: fraction of held-out problems.
    """

    has_utility = False

    def __init__(
        self,
        *,
        seed: int = 0,
        demonstrations: PositiveInt = 4000,
        mistakes: Annotated[float, Field(ge=0, lt=1)] = 0.25,
        test_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1,
    ) -> None:
        self._seed, self._count, self._mistakes = seed, demonstrations, mistakes
        pairs = list(itertools.product(STEPS, STEPS))
        random.Random(f"{seed}: split").shuffle(pairs)
        held_out = round(test_fraction * len(pairs))
        self._test, self._train = pairs[:held_out], pairs[held_out:]

    def train_prompts(self) -> list[TaskPrompt]:
        """Return the training problems."""
        return list(map(_problem, self._train))

    def test_prompts(self) -> list[TaskPrompt]:
        """Return the held-out problems."""
        return list(map(_problem, self._test))

    def demonstrations(self) -> list[Demonstration]:
        """Return programs for training problems; some of their steps are wrong."""
        rng = random.Random(f"{self._seed}: demonstrations")
        steps = list(STEPS)
        demonstrations = []
        for pair in rng.choices(self._train, k=self._count):
            written = [rng.choice(steps) if rng.random() < self._mistakes else step for step in pair]
            demonstrations.append(Demonstration(PROMPT.format(*pair), _solution(*written)))
        return demonstrations

    def utility(self, prompt: Prompt, response: str) -> float:
        """Raise ConfigError: tests are the measure."""
        _unknown("utility")

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        """Raise ConfigError: there are no edits."""
        _unknown("edits")


def _unknown(kind: str) -> NoReturn:
    raise ConfigError(f"task=programs knows no {kind}: its measure is rollout_scorer=code")


def _solution(first: str, second: str) -> str:
    return f"    x = {STEPS[first]}\n    return {STEPS[second]}\n"


def _problem(pair: tuple[str, str]) -> TaskPrompt:
    """The prompt of a problem, with its tests as columns."""
    first, second = (eval(f"lambda x: {STEPS[step]}", {}) for step in pair)  # expressions of this file
    columns = {"entry_point": "f", "calls": [[x] for x in ARGUMENTS], "expected": [second(first(x)) for x in ARGUMENTS]}
    return TaskPrompt(PROMPT.format(*pair), columns)
