"""A scorer in a user's program, in any language, in a separate process."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import finalize

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scorer._columns import row_columns
from rlhf_lightning.rollout.scorer._worker import PATIENCE, Worker


@register("rollout_scorer", "program")
class ProgramScorer:
    """A program that reads a JSON line per response and writes a score per line.

    It reads {"prompt": ..., "response": ..., "columns": {...}}, the last one if the prompt's row has other columns, and writes, flushed, a
    JSON number, true, false, or null for no score. A response on which it
    hangs or crashes has no score (ppo.max_unscorable), and the program is restarted. It runs until the end of its input, in a new session;
    when it hangs its process group is killed.

    Args:
        command: the program and its words, quoted as in a shell, but not run by one: "python score.py --strict".
        timeout: seconds for one response, including a restart.
        workers: programs in parallel; the scores don't depend on it if the program scores each response independently.

    Raises:
        ConfigError: no such program.
        UserError: it ended before its first answer, or its answer is no score; the message has its stderr.
    """

    def __init__(self, *, command: str, timeout: PositiveFloat = 60.0, workers: PositiveInt = 1) -> None:
        try:
            words = [os.path.expanduser(word) for word in shlex.split(command)]
        except ValueError as cause:
            raise ConfigError(f"rollout_scorer.program.command={command}: {cause}") from cause
        if not words or shutil.which(words[0]) is None:
            raise ConfigError(f"rollout_scorer.program.command={command}: no program {words[0] if words else ''!r} that can be run")
        self._workers = [Worker(words, timeout) for _ in range(workers)]
        self._end = finalize(self, _end, self._workers)

    def __call__(self, rollout: Rollout) -> list[float | None]:
        """Scores [B]; None for a response on which the program hangs or crashes, or answers null."""
        texts = list(zip(rollout.prompts, rollout.responses, row_columns(rollout), strict=True))
        active = self._workers[: len(texts)]
        with ThreadPoolExecutor(len(active) or 1) as threads:
            futures = [threads.submit(_score_texts, worker, texts[start :: len(active)]) for start, worker in enumerate(active)]
        scores = [future.result() for future in futures]
        return [scores[i % len(active)][i // len(active)] for i in range(len(texts))]

    def close(self) -> None:
        """End the programs; they restart on demand."""
        _end(self._workers)


def _score_texts(worker: Worker, texts: Sequence[tuple[Prompt, str, dict[str, Any]]]) -> list[float | None]:
    return [worker.score(prompt, response, columns) for prompt, response, columns in texts]


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.end(PATIENCE)
