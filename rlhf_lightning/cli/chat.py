"""`rlhf-lightning chat FOLDER [FOLDER]`: talk to a policy, or judge two blindly."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rlhf_lightning.config.display import safe_message, visible
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Feedback, Message, Prompt, Ranking
from rlhf_lightning.model.language_model import LanguageModel

MAX_NEW_TOKENS = 256
NAMES = "AB"
CHOICES = {"a": (0, 1), "b": (1, 0), "t": (0, 0), "s": None}
"""Ranks of A and B by the first letter of a choice; None stores nothing."""
NEW = "/new"
HINT = f"{NEW} begins a new conversation; Ctrl-D ends."


class Parser(argparse.ArgumentParser):
    """argparse with the program's own errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"chat: {message}; write `rlhf-lightning chat FOLDER [FOLDER]`, and --help for the options")


def chat(args: Sequence[str]) -> None:
    """Answer the lines of stdin until its end.

    With two models both answer in random order, and the choice between them is appended to a file as a feedback record.

    Raises:
        UserError: wrong arguments, or a folder without a policy.
    """
    options = parse_chat(args)
    from rlhf_lightning.model.checkpoint_tensors import quiet_transformers
    from rlhf_lightning.runtime.policy import load_policy
    from rlhf_lightning.training.trainer import device_kind

    policies = []
    for folder in options.models:
        with quiet_transformers():
            policy = load_policy(folder)
        policy.model.eval().to(device_kind("auto"))
        policies.append(policy)
    session = Conversation(options, policies)
    while (line := session.read("> ")) is not None:
        if line.strip() == NEW:
            session.reset()
        elif line.strip():
            try:
                session.answer(line)
            except UserError as error:
                print(safe_message(str(error)), file=sys.stderr)
    session.summarize()


def parse_chat(args: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `chat`. Raises ConfigError."""
    parser = Parser(prog="rlhf-lightning chat", description="Talk to a policy, or judge two policies blindly.")
    parser.add_argument("models", nargs="+", metavar="FOLDER", help="a policy's folder or Hub name; two are compared")
    parser.add_argument("--system", default="", help="system prompt, for a model with a chat template")
    parser.add_argument("--max-new-tokens", type=int, help=f"of an answer; {MAX_NEW_TOKENS}, or half of the model's positions")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the softmax; 0 takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample from the smallest set of tokens with this probability")
    parser.add_argument("--feedback", type=Path, default=Path("chat_feedback.jsonl"), help="the file of choices between two models")
    parser.add_argument("--annotator", default=None, help="your name in the file of choices")
    options = parser.parse_args(list(args))
    if len(options.models) > 2:
        parser.error(f"{len(options.models)} models: give one, or two to compare")
    if options.temperature < 0 or not 0 < options.top_p <= 1 or (options.max_new_tokens or 1) < 1:
        parser.error("--temperature is at least 0, --top-p above 0 and at most 1, --max-new-tokens at least 1")
    return options


class Conversation:
    """The messages so far, and the models that answer.

    A model with a chat template reads all messages; without one each line is a prompt by itself.
    """

    def __init__(self, options: argparse.Namespace, policies: Sequence[LanguageModel]) -> None:
        self.options, self.policies = options, policies
        self.has_template = any(getattr(policy.tokenizer, "chat_template", None) for policy in policies)
        self.is_terminal = sys.stdin.isatty()
        self.choices: Counter[str] = Counter()
        self.reset()
        if self.is_terminal:
            print(HINT if self.has_template else f"No chat template: each line is a prompt by itself. {HINT}")

    def reset(self) -> None:
        """Begin a new conversation."""
        system = [Message(role="system", content=self.options.system)] if self.options.system and self.has_template else []
        self.messages: list[Message] = system

    def read(self, prompt: str) -> str | None:
        """The next line of stdin; None at its end."""
        if self.is_terminal:
            print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if not line and self.is_terminal:
            print()
        return line.rstrip("\r\n") if line else None

    def answer(self, line: str) -> None:
        """Answer a line, and let the user judge two answers."""
        prompt: Prompt = line
        if self.has_template:
            prompt = (*self.messages, Message(role="user", content=line))
        order = list(range(len(self.policies)))
        random.SystemRandom().shuffle(order)
        texts = [self._stream(self.policies[model], prompt, f"{NAMES[i]}: " if len(order) > 1 else "") for i, model in enumerate(order)]
        position = self._judge(prompt, texts, order) if len(order) > 1 else 0
        if isinstance(prompt, tuple):
            self.messages = [*prompt, Message(role="assistant", content=texts[position])]

    def _stream(self, policy: LanguageModel, prompt: Prompt, name: str) -> str:
        from rlhf_lightning.rollout.streaming import stream_response

        print(name, end="", flush=True)
        text = stream_response(
            policy,
            prompt,
            lambda piece: print(visible(piece), end="", flush=True),
            max_new_tokens=self.options.max_new_tokens or min(MAX_NEW_TOKENS, policy.max_generated_length // 2),
            temperature=self.options.temperature,
            top_p=self.options.top_p,
        )
        print(flush=True)
        return text

    def _judge(self, prompt: Prompt, texts: list[str], order: list[int]) -> int:
        """Ask which answer is better, and store the choice.

        Returns the answer with which the conversation continues.
        """
        start = time.monotonic()
        while True:
            choice = self.read("better: a, b, t (tie) or s (skip)? ")
            if choice is None:
                return 0
            letter = choice.strip().lower()[:1]
            if letter in CHOICES:
                break
            print("write a, b, t or s", file=sys.stderr)
        ranks = CHOICES[letter]
        if ranks is None:
            return 0
        if not all(text.strip() for text in texts):
            print("an answer is empty: the choice is not stored", file=sys.stderr)
            return int(ranks[0] > ranks[1])
        models = [str(self.options.models[model]) for model in order]
        append_feedback(
            self.options.feedback,
            Feedback(
                prompt=prompt,
                responses=tuple(texts),
                judgement=Ranking(ranks=ranks),
                models=tuple(models),
                positions=tuple(range(len(order))),
                annotator=self.options.annotator,
                time=datetime.now(UTC),
                seconds=round(time.monotonic() - start, 1),
                source="chat",
            ),
        )
        self.choices["tie" if letter == "t" else models[ranks[0]]] += 1
        return int(ranks[0] > ranks[1])

    def summarize(self) -> None:
        """Print how often each model was chosen; before the end that would tell which is which."""
        for name, count in self.choices.most_common():
            print(safe_message(f"{name}: {count} of {self.choices.total()}"))
        if self.choices:
            print(safe_message(f"feedback: {self.options.feedback}"))


def append_feedback(file: Path, record: Feedback) -> None:
    """Append a record as one line of JSON and flush it to the disk.

    The file is readable by its owner only.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        # A line that a crash cut short stays by itself.
        ends = size == 0 or os.pread(handle, 1, size - 1) == b"\n"
        os.write(handle, ("" if ends else "\n").encode() + record.model_dump_json().encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
