"""A rule in a program of the user's own, in any language: in its own process, so that nothing that it does costs the run."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import finalize

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer._worker import PATIENCE, Worker


@register("rollout_scorer", "program")
class ProgramScorer:
    """A program that reads {"prompt": ..., "response": ...} a line and writes a score a line; it may crash or hang, and is begun anew.

    One line in, one line out, flushed: a JSON number, true or false, or null where it can't tell. A response that it hangs or crashes on
    can't be scored (ppo.max_unscorable). A program stays from batch to batch, and ends at the end of its input. It runs in a session of
    its own; when it hangs it is killed with all that it started there.

    Args:
        command: the program and its words, as in a shell, but that none reads it: "python score.py --strict".
        timeout: seconds for one response, its start included where it was begun anew.
        workers: programs side by side; the scores don't depend on it where the program judges a response by itself.

    Raises:
        ConfigError: no such program.
        UserError: it ended before its first answer, or answered what is no score; with its last words on stderr.
    """

    def __init__(self, *, command: str, timeout: PositiveFloat = 60.0, workers: PositiveInt = 1) -> None:
        try:
            words = [os.path.expanduser(word) for word in shlex.split(command)]
        except ValueError as cause:
            raise ConfigError(f"rollout_scorer.command={command}: {cause}") from cause
        if not words or shutil.which(words[0]) is None:
            raise ConfigError(f"rollout_scorer.command={command}: there is no program {words[0] if words else ''!r} that can be run")
        self._workers = [Worker(words, timeout) for _ in range(workers)]
        self._end = finalize(self, _end, self._workers)

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]; None for a response that the program hung or crashed on, or gave null for."""
        texts = list(zip(rollout.prompts, rollout.responses, strict=True))
        several = self._workers[: len(texts)]
        with ThreadPoolExecutor(len(several) or 1) as threads:
            shares = [threads.submit(_scored, worker, texts[place :: len(several)]) for place, worker in enumerate(several)]
        found = [share.result() for share in shares]
        return [found[i % len(several)][i // len(several)] for i in range(len(texts))]

    def close(self) -> None:
        """End the programs; they are begun anew when they are needed."""
        _end(self._workers)


def _scored(worker: Worker, texts: Sequence[tuple[Prompt, str]]) -> list[float | None]:
    return [worker.score(prompt, response) for prompt, response in texts]


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.end(PATIENCE)
