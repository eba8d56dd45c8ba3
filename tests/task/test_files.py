"""task=files: what is read, what is held out, and what its errors say."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import FramedPrompt
from rlhf_lightning.interfaces import Demonstration, Task, TaskPrompt
from rlhf_lightning.task.files import Files

STORIES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "story_prompts" / "dev.jsonl.gz"


def written(folder: Path, rows: list[object], name: str = "prompts.jsonl") -> str:
    path = folder / name
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    return str(path)


def prompts_of(rows) -> list[str]:
    return [row.prompt for row in rows]


def prompts(count: int) -> list[object]:
    return [{"prompt": f"Say {i}."} for i in range(count)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_splits_by_the_prompt_itself(tmp_path: Path, name: str) -> None:
    task = Files(prompts=written(tmp_path, prompts(2000), name), test_fraction=0.2)
    train, test = prompts_of(task.train_prompts()), prompts_of(task.test_prompts())
    assert sorted(train + test) == sorted(f"Say {i}." for i in range(2000))
    assert 340 < len(test) < 460
    shuffled = [*prompts(2000), *({"prompt": f"New {i}."} for i in range(500))]
    random.Random(0).shuffle(shuffled)
    again = Files(prompts=written(tmp_path, shuffled, name), test_fraction=0.2)
    assert set(train) <= set(prompts_of(again.train_prompts()))
    assert set(test) <= set(prompts_of(again.test_prompts()))


def test_equal_prompts_count_once_whatever_their_unicode_form(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": "caf\u00e9"}, {"prompt": "tea"}, {"prompt": "cafe\u0301"}, {"prompt": "tea"}]
    assert Files(prompts=written(tmp_path, rows), test_fraction=0).train_prompts() == [*map(TaskPrompt, ["caf\u00e9", "tea"])]
    held_out = written(tmp_path, [{"prompt": "cafe\u0301"}], "test.jsonl")
    task = Files(prompts=written(tmp_path, rows), test_prompts=held_out)
    assert task.train_prompts() == [TaskPrompt("tea")]
    assert task.test_prompts() == [TaskPrompt("cafe\u0301")]


def test_no_demonstration_shows_a_held_out_prompt(tmp_path: Path) -> None:
    rows: list[object] = [{"q": f"Say {i}.", "a": f"{i} or {j}"} for i in range(300) for j in range(2)]
    path = written(tmp_path, rows)
    task = Files(prompts=path, prompt_field="q", demonstrations=path, response_field="a", prefix="Q: ", suffix="\nA:")
    train, test = prompts_of(task.train_prompts()), prompts_of(task.test_prompts())
    assert 0 < len(test) < 60
    assert len(train) + len(test) == 300
    assert all(prompt.startswith("Q: Say ") and prompt.endswith(".\nA:") for prompt in train + test)
    assert prompts_of(task.demonstrations()) == [prompt for prompt in train for _ in range(2)]
    assert {row.response for row in task.demonstrations()} == {
        f"{prompt.removeprefix('Q: Say ').split('.')[0]} or {j}" for prompt in train for j in range(2)
    }


def test_limit_keeps_the_first_of_each(tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": f"Say {i}.", "response": "ok"} for i in range(200)])
    every, some = Files(prompts=path, demonstrations=path), Files(prompts=path, demonstrations=path, limit=5)
    assert some.train_prompts() == every.train_prompts()[:5]
    assert some.test_prompts() == every.test_prompts()[:5]
    assert some.demonstrations() == every.demonstrations()[:5]


def test_line_separators_of_unicode_end_no_line_and_a_bom_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a\xe2\x80\xa8b"}\r\n\n   \n{"prompt": "c"}')
    assert Files(prompts=str(path), test_fraction=0).train_prompts() == [*map(TaskPrompt, ["a\u2028b", "c"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n\n{"promt": "b"}\n', r"a\.jsonl:3: no field 'prompt', did you mean 'promt'\?; it has: promt"),
        (b"{}", r"a\.jsonl:1: no field 'prompt'; it has: none"),
        (b'{"prompt": 3}', r"a\.jsonl:1: field 'prompt' must be text that isn't blank, not 3"),
        (b'{"prompt": " "}', r"a\.jsonl:1: field 'prompt' must be text that isn't blank"),
        (b'{"prompt": "\\ud800"}', r"a\.jsonl:1: field 'prompt' holds half of a surrogate pair"),
        (b'{"prompt": "a"}\n{"prompt": ', r"a\.jsonl:2: not JSON in UTF-8"),
        (b'{"prompt": "a"}\n{"prompt": "\xff"}', r"a\.jsonl:2: not JSON in UTF-8"),
        (b"[" * 100_000, r"a\.jsonl:1: not JSON in UTF-8"),
        (b'"prompt"', r"a\.jsonl:1: a JSON object is expected, not str"),
        (b"\n", r"a\.jsonl: no prompts in it"),
        (gzip.compress(b'{"prompt": "a"}', mtime=0)[:-9], r"a\.jsonl can't be read"),
        (b"\x1f\x8bnonsense", r"a\.jsonl can't be read"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Files(prompts=str(path))


def test_errors_of_other_files(tmp_path: Path) -> None:
    path = written(tmp_path, prompts(3))
    with pytest.raises(DataError, match=r"no\.jsonl can't be read: .*No such file"):
        Files(prompts=str(tmp_path / "no.jsonl"))
    with pytest.raises(DataError, match=r"prompts\.jsonl:1: no field 'response'"):
        Files(prompts=path, demonstrations=path)
    with pytest.raises(DataError, match=r"no prompts are left to train on, 3 were read"):
        Files(prompts=path, test_prompts=path)


def test_utility_and_edits_are_refused(tmp_path: Path) -> None:
    task: Task = Files(prompts=written(tmp_path, prompts(3)), test_fraction=0)
    assert not task.has_utility
    assert task.demonstrations() == []
    with pytest.raises(ConfigError, match="task=files knows no utility"):
        task.utility("Say 1.", "1")
    with pytest.raises(ConfigError, match="task=files knows no edits"):
        task.improve("Say 1.", "1", random.Random(0))


@pytest.mark.skipif(not STORIES.exists(), reason="no shared data beside the repository")
def test_real_stories() -> None:
    with gzip.open(STORIES, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    task = Files(prompts=str(STORIES), demonstrations=str(STORIES), response_field="sample")
    train, test = prompts_of(task.train_prompts()), prompts_of(task.test_prompts())
    assert len(train) + len(test) == len({row["prompt"] for row in rows}) == 1214
    assert 80 < len(test) < 170
    assert task.demonstrations() == [Demonstration(row["prompt"], row["sample"]) for row in rows if row["prompt"] in set(train)]


def test_an_archive_bomb_is_not_unpacked(tmp_path):
    bomb = tmp_path / "bomb.jsonl"
    bomb.write_bytes(b"".join([gzip.compress(b" " * (40 << 20), 9, mtime=0)] * 3))
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        Files(prompts=str(bomb))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "circle", "long", "zero byte"])
def test_what_is_no_file_is_named(tmp_path, kind):
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path)
    name = {"device": "/dev/zero", "long": str(tmp_path / ("x" * 300)), "zero byte": "a\0b"}.get(kind, str(path))
    with pytest.raises(DataError, match=r"is a folder|no regular file|can't be read"):
        Files(prompts=name)


def test_a_prefix_and_suffix_are_known_apart_from_the_prompt_and_their_line_breaks_are_read(tmp_path):
    path = written(tmp_path, [{"prompt": "a \\n b", "response": "c"}])
    task = Files(prompts=path, demonstrations=path, test_fraction=0.0, prefix="<|im_start|>user\\n", suffix="<|im_end|>\\n\\tA\\\\n:")
    (prompt,) = prompts_of(task.demonstrations())
    assert isinstance(prompt, FramedPrompt)
    assert (prompt.prefix, prompt.content, prompt.suffix) == ("<|im_start|>user\n", "a \\n b", "<|im_end|>\n\tA\\n:")
    assert prompts_of(task.train_prompts()) == [prompt] == ["<|im_start|>user\na \\n b<|im_end|>\n\tA\\n:"]
    assert not isinstance(Files(prompts=path, test_fraction=0.0).train_prompts()[0].prompt, FramedPrompt)


def test_a_chat_is_rejected_with_what_to_write_instead(tmp_path):
    path = written(tmp_path, [{"prompt": [{"role": "user", "content": "a"}]}])
    with pytest.raises(DataError, match=r"prompts.jsonl:1: field 'prompt' is a chat, and task=files takes texts: .* task.prefix"):
        Files(prompts=path)
