"""A language model behind an OpenAI-compatible server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import urllib3

from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import UserError
from rlhf_lightning.judge.questions import Question, read_answer
from rlhf_lightning.judge.settings import JudgeSettings

LATER = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses of a request that the server may accept later."""
TOP_LOGPROBS = (20, 5, 0)
"""Numbers of alternatives to ask for, until the server accepts one; with 0 the text alone counts."""
MALFORMED_TRIES = 3
MAX_REASON = 300


class Endpoint:
    """Asks a server's `/chat/completions`, several questions at a time.

    Args:
        log: for what is said once: that the server gives no probabilities.

    Attributes:
        identity: what an answer depends on beside the question.
    """

    def __init__(self, settings: JudgeSettings, log: Callable[[str], None]) -> None:
        assert settings.url is not None
        self.name, self._settings, self._log = str(settings.model), settings, log
        self.url = settings.url.rstrip("/") + "/chat/completions"
        body = {"temperature": 0, "max_tokens": settings.max_tokens, **(settings.request or {})}
        self._body = {"model": settings.model, **{name: value for name, value in body.items() if value is not None}}
        self.identity = json.dumps([self.url, self._body], sort_keys=True)
        self._key = os.environ.get(settings.key_variable, "")
        self._top, self._lock = TOP_LOGPROBS[0], threading.Lock()
        retries = urllib3.Retry(
            total=settings.retries, status_forcelist=LATER, allowed_methods=None, backoff_factor=0.5, backoff_jitter=0.2,
            raise_on_status=False, redirect=0,
        )  # fmt: skip
        self._pool = urllib3.PoolManager(maxsize=settings.workers, retries=retries, timeout=urllib3.Timeout(total=settings.timeout))

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, dict[str, float] | None]]:
        """Yield the index and the answer of each question as they arrive.

        Raises:
            UserError: the server can't be reached, refuses the request, or sends what is no answer; the message has its reason.
        """
        threads = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="judge")
        try:
            futures = {threads.submit(self._ask, question): i for i, question in enumerate(questions)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Question) -> dict[str, float] | None:
        """One call, with the most alternatives that the server accepts."""
        while True:
            top = self._top
            try:
                return self._call(question, top)
            except Refusal as cause:
                if cause.status not in (400, 422) or top == 0:
                    raise UserError(
                        f"{self}: {cause}; check judge.url, judge.model, judge.request and ${self._settings.key_variable}"
                    ) from cause
                self._top = min(self._top, TOP_LOGPROBS[TOP_LOGPROBS.index(top) + 1])

    def _call(self, question: Question, top: int) -> dict[str, float] | None:
        body = {**self._body, "messages": [message.model_dump() for message in question.messages]}
        if top:
            body |= {"logprobs": True, "top_logprobs": top}
        reason = ""
        for _ in range(MALFORMED_TRIES):
            text = self._post(json.dumps(body).encode())
            try:
                choice = json.loads(text)["choices"][0]
                answer, tokens = choice["message"]["content"] or "", (choice.get("logprobs") or {}).get("content") or []
                probabilities = read_answer(answer, tokens, question.choices)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as cause:
                reason = f"{type(cause).__name__} in {self._safe(text)!r}"
                continue
            if top and not tokens:
                self._do_without_logprobs()
            return probabilities
        raise UserError(f"{self} answers in another form than a chat completion, {MALFORMED_TRIES} times in a row: {reason}")

    def _do_without_logprobs(self) -> None:
        with self._lock:
            if self._top:
                self._top = 0
                self._log(f"{self} gives no probabilities of tokens: its words count instead")

    def _post(self, body: bytes) -> str:
        """The body of the response. Raises Refusal for a status that isn't 200."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        try:
            response = self._pool.request("POST", self.url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as cause:
            reason = getattr(cause, "reason", None) or cause
            raise UserError(
                f"{self} can't be reached: {self._safe(str(reason))}; start it, or check judge.url. Answers so far are in the cache: the "
                "same command continues"
            ) from None
        text = response.data.decode(errors="replace")
        if response.status != 200:
            raise Refusal(response.status, f"status {response.status}: {self._safe(text)}")
        return text

    def _safe(self, text: str) -> str:
        """A part of a server's text for a message, without the key."""
        excerpt = safe_message(text.replace(self._key, "***") if self._key else text)
        return excerpt if len(excerpt) <= MAX_REASON else f"{excerpt[:MAX_REASON]}..."

    def __str__(self) -> str:
        return safe_message(f"judge {self.name} at {self._settings.url}")


class Refusal(Exception):
    """A request that the server doesn't accept."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
