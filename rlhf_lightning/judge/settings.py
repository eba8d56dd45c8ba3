"""The `judge` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.config.schema import FilePath, ModelPath
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import section


@section("judge")
@dataclass
class JudgeSettings:
    """A language model that judges texts, for feedback_annotator=judge and rollout_scorer=judge.

    Attributes:
        url: address of an OpenAI-compatible server: "http://127.0.0.1:8000/v1".
        model: the model's name on that server.
        path: instead of a server, the folder or Hub name of a model that is run here.
        key_variable: the environment variable with the server's key; without its value no key is sent.
        rubric: a text file with the criteria; null: useful, true, complete, clear and harmless.
        rating_scale: the lowest and the highest rating, digits from 0 to 9.
        cache: JSON Lines file of all answers; an equal question is asked once, in all commands that name the file.
        budget: the most calls of one command; cached answers are free, so that the same command continues.
        workers: calls at the same time.
        timeout: seconds for one call.
        retries: new tries of a call that the server refuses for now, waiting longer each time, or as long as it says (Retry-After).
        max_tokens: the most tokens of an answer; a model that thinks first needs thousands.
        request: further fields of each request, such as {temperature: 0}; null takes one out.
        max_position_bias: how far from half the first response may win before the run ends; 0.5 never ends it.
    """

    url: str | None = None
    model: str | None = None
    path: ModelPath | None = None
    key_variable: str = "OPENAI_API_KEY"
    rubric: FilePath | None = None
    rating_scale: tuple[int, int] = (1, 7)
    cache: str = "judge.jsonl"
    budget: PositiveInt | None = None
    workers: PositiveInt = 8
    timeout: PositiveFloat = 60.0
    retries: Annotated[int, Field(ge=0)] = 6
    max_tokens: PositiveInt = 16
    request: dict[str, Any] | None = None
    max_position_bias: Annotated[float, Field(gt=0, le=0.5)] = 0.25


def check_judge(choices: Any) -> None:
    """Check the combination of the section's settings. Raises ConfigError."""
    settings: JudgeSettings = choices.settings("judge")
    low, high = settings.rating_scale
    if (settings.url is None) == (settings.path is None):
        raise ConfigError("a judge is a model on a server, `judge.url=... judge.model=...`, or one that is run here, `judge.path=FOLDER`")
    if settings.url is not None and not settings.url.startswith(("http://", "https://")):
        raise ConfigError(f"judge.url={settings.url}: write http://HOST:PORT/v1 or https://...")
    if settings.url is not None and not settings.model:
        raise ConfigError("judge.model is missing: the model's name on the server of judge.url")
    if not 0 <= low < high <= 9:
        raise ConfigError(f"judge.rating_scale=[{low}, {high}]: the lowest and the highest rating are digits, like [1, 7]")
    read_rubric(settings.rubric)


DEFAULT_RUBRIC = (
    "Judge how well a response serves the person who wrote the prompt: it does what the prompt asks, it is true, complete, clear and well "
    "written, and it harms nobody. Length is no merit by itself."
)


def read_rubric(path: str | None) -> str:
    """The criteria of a judge. Raises ConfigError for a file that can't be read or is empty."""
    if path is None:
        return DEFAULT_RUBRIC
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"judge.rubric={path} can't be read as text: {cause}") from cause
    if not text:
        raise ConfigError(f"judge.rubric={path} is empty: write the criteria into it")
    return text
