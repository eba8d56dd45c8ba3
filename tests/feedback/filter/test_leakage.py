"""A test's prompts are kept out of the training."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.leakage import leakage
from rlhf_lightning.flow import Feedback, Message, Prompt, Thumbs


def one(prompt: Prompt) -> Feedback:
    return Feedback(prompt=prompt, responses=("Is this É a question?",), judgement=Thumbs(up=True))


def written(file: Path, *rows: object) -> str:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode(), mtime=0) if file.suffix == ".gz" else text.encode())
    return str(file)


def test_prompts_are_the_same_without_form_case_and_blanks(tmp_path: Path, cleaned) -> None:
    against = written(tmp_path / "test.jsonl", {"prompt": "Is this\u00a0É  a question?"}, {"prompt": "another"})
    leaked = [one("is this e\u0301 A question?\n"), one("ANOTHER"), one((Message(role="user", content="another"),))]
    good = [one("Is this É a question!"), one(""), one("an other")]
    kept, cleaning = cleaned(partial(leakage, against=against), leaked + good)
    assert kept == good
    assert cleaning.removed == {"its prompt is in the test": 3}


def test_chats_several_files_and_another_field(tmp_path: Path, cleaned) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "so?"}]
    files = (written(tmp_path / "a.jsonl.gz", {"q": talk}), written(tmp_path / "b.jsonl", {"q": "text", "prompt": "free"}))
    chat = tuple(Message(**message) for message in talk)
    kept, _ = cleaned(partial(leakage, against=files, field="q"), [one(chat), one(chat[:1]), one("text"), one("free")])
    assert kept == [one(chat[:1]), one("free")]


def test_runs_of_words(tmp_path: Path, cleaned) -> None:
    against = written(tmp_path / "test.jsonl", {"prompt": "one two, three four five"}, {"prompt": "Short one"})
    leaked = [one("So: TWO three four?"), one("short: one!"), one((Message(role="user", content="x three four five"),))]
    good = [one("two three, and four five"), one("three four"), one("a short one"), one(""), one("?!")]
    kept, cleaning = cleaned(partial(leakage, against=against, ngram=3), leaked + good)
    assert kept == good
    assert cleaning.removed == {"its prompt shares 3 words in a row with the test": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": 3}\n', r"test.jsonl:2: prompt must be text"),
        ('{"promt": "a"}\n', r"test.jsonl:1: field 'prompt' is missing.*leakage.field=prompt"),
        ('{"prompt": " "}\n', r"test.jsonl:1: prompt is blank"),
        ('{"prompt": [{"role": "user"}]}\n', r"test.jsonl:1: .*content"),
        ("nonsense\n", r"test.jsonl:1: "),
        ("", r"test.jsonl.*no rows"),
    ],
)
def test_what_can_t_be_read_is_reported_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"feedback_filter.leakage.against: .*" + message):
        list(leakage([one("a")], Cleaning(), against=str(tmp_path / "test.jsonl")))
