"""task=files: what is read, what is held out, and what its errors say."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import FramedPrompt, Message
from rlhf_lightning.interfaces import Demonstration, Task, TaskPrompt
from rlhf_lightning.task.files import Files

STORIES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "story_prompts" / "dev.jsonl.gz"


def written(folder: Path, rows: list[object], name: str = "prompts.jsonl") -> str:
    path = folder / name
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    return str(path)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


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
        (b'{"prompt": "a"}\n\n{"promt": "b"}\n', r"a\.jsonl:3: no field 'prompt', did you mean 'promt'\?; .*the row has: promt"),
        (b"{}", r"a\.jsonl:1: no field 'prompt'; expected is a prompt, messages, .*the row has: none"),
        (b'{"prompt": 3}', r"a\.jsonl:1: prompt must be text, not a number"),
        (b'{"prompt": " "}', r"a\.jsonl:1: prompt is blank text"),
        (b'{"prompt": "\\ud800"}', r"a\.jsonl:1: 'prompt' holds a lone surrogate"),
        (b'{"prompt": "a"}\n{"prompt": ', r"a\.jsonl:2: not JSON"),
        (b'{"prompt": "a"}\n{"prompt": "\xff"}', r"a\.jsonl:2: not UTF-8"),
        (b'{"prompt": ' + b"[" * 100_000, r"a\.jsonl:1: not usable JSON: nested too deeply"),
        (b'"prompt"', r"a\.jsonl:1: a row must be a JSON object, not text"),
        (b"\n", r"a\.jsonl:2: no rows: the file is empty"),
        (gzip.compress(b'{"prompt": "a"}', mtime=0)[:-9], r"a\.jsonl:1: the gzip file is truncated"),
        (b"\x1f\x8bnonsense", r"a\.jsonl:1: the gzip file is damaged"),
        (b'{"text": "a"}', r"a\.jsonl:1: a row of text has no prompt: give it as task.demonstrations alone"),
        (
            b'{"messages": [{"role": "bot", "content": "a"}]}',
            r"a\.jsonl:1: messages\[0\]\.role must be one of system, user",
        ),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', r"a\.jsonl:1: messages begins with the assistant"),
        (b'{"prompt": [{"role": "user", "content": "a"}], "tools": ["f"]}', r"a\.jsonl:1: field 'tools' holds"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Files(prompts=str(path))


def test_errors_of_other_files(tmp_path: Path) -> None:
    path = written(tmp_path, prompts(3))
    with pytest.raises(DataError, match=r"task\.prompts=.*no\.jsonl': no such file"):
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
    with pytest.raises(DataError, match=r"the folder has no|not a regular file|can't be read|no such file"):
        Files(prompts=name)


def test_a_prefix_and_suffix_are_known_apart_from_the_prompt_and_their_line_breaks_are_read(tmp_path):
    path = written(tmp_path, [{"prompt": "a \\n b", "response": "c"}])
    task = Files(prompts=path, demonstrations=path, test_fraction=0.0, prefix="<|im_start|>user\\n", suffix="<|im_end|>\\n\\tA\\\\n:")
    (prompt,) = prompts_of(task.demonstrations())
    assert isinstance(prompt, FramedPrompt)
    assert (prompt.prefix, prompt.content, prompt.suffix) == ("<|im_start|>user\n", "a \\n b", "<|im_end|>\n\tA\\n:")
    assert prompts_of(task.train_prompts()) == [prompt] == ["<|im_start|>user\na \\n b<|im_end|>\n\tA\\n:"]
    assert not isinstance(Files(prompts=path, test_fraction=0.0).train_prompts()[0].prompt, FramedPrompt)


SHAPES: dict[str, tuple[dict[str, object], Demonstration]] = {
    "text": ({"text": "The lamp is good."}, Demonstration("", "The lamp is good.")),
    "prompt-completion": ({"prompt": "The lamp", "completion": " is good."}, Demonstration("The lamp", " is good.")),
    "conversational prompt-completion": (
        {"prompt": [turn("user", "A lamp?")], "completion": [turn("assistant", "Good.")]},
        Demonstration((Message(**turn("user", "A lamp?")),), "Good."),
    ),
    "messages": (
        {"messages": [turn("system", "Be brief."), turn("user", "A?"), turn("assistant", "b"), turn("user", "C?"), turn("assistant", "d")]},
        Demonstration(
            (Message(**turn("system", "Be brief.")), Message(**turn("user", "A?"))),
            (Message(**turn("assistant", "b")), Message(**turn("user", "C?")), Message(**turn("assistant", "d"))),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_demonstrations(tmp_path, shape):
    row, expected = SHAPES[shape]
    task = Files(demonstrations=written(tmp_path, [row]), test_fraction=0)
    assert task.demonstrations() == [expected]
    assert len(task.train_prompts()) == int(shape != "text")


def test_prompts_of_conversations_and_pairs(tmp_path):
    question = [turn("user", "A lamp?")]
    rows: list[object] = [
        {"prompt": question, "answer": "12"},
        {"messages": [*question, turn("assistant", "Good."), turn("user", "Why?")]},
        {"chosen": [turn("user", "B?"), turn("assistant", "c")], "rejected": [turn("user", "B?"), turn("assistant", "d")]},
    ]
    first, second, third = Files(prompts=written(tmp_path, rows), test_fraction=0).train_prompts()
    assert first == TaskPrompt((Message(**turn("user", "A lamp?")),), {"answer": "12"})
    assert [message.content for message in second.prompt] == ["A lamp?", "Good.", "Why?"]
    assert [message.content for message in third.prompt] == ["B?"]
    assert third.columns == {}
    assert third.origin.endswith("prompts.jsonl:3")


def test_a_system_message_comes_first_once_and_moves_no_prompt_to_the_other_side(tmp_path):
    rows: list[object] = [{"prompt": f"Say {i}."} for i in range(50)]
    rows += [{"prompt": [turn("system", "Mine."), turn("user", "A?")]}, {"prompt": [turn("user", "A?")]}]
    path = written(tmp_path, rows)
    plain, systematic, bare = Files(prompts=path), Files(prompts=path, system="Be kind."), Files(prompts=path, system="")
    roles = {tuple((m.role, m.content) for m in row.prompt if m.role == "system") for row in systematic.train_prompts()}
    assert roles <= {(("system", "Be kind."),), (("system", "Mine."),)}
    texts = [row.prompt for row in plain.test_prompts() if isinstance(row.prompt, str)]
    assert texts
    assert [row.prompt[-1].content for row in systematic.test_prompts()][: len(texts)] == texts
    assert next(row.prompt for row in bare.test_prompts()) == (Message(**turn("user", texts[0])),)
    with pytest.raises(ConfigError, match=r"task\.prefix and task\.suffix .* task\.system"):
        Files(prompts=path, system="a", prefix="b")
    with pytest.raises(DataError, match=r"prompts.jsonl:51: the prompt is a conversation.*leave out task\.prefix"):
        Files(prompts=path, prefix="b")


def test_rows_of_every_kind_of_file_are_the_same(tmp_path):
    datasets = pytest.importorskip("datasets")
    turns = [[turn("user", f"A {i}?"), turn("assistant", "Good.")] for i in range(5)]
    rows: list[object] = [{"messages": row, "answer": str(i)} for i, row in enumerate(turns)]
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(tmp_path / "stored")
    datasets.DatasetDict(train=made, test=made.select([0])).save_to_disk(tmp_path / "split")
    made.to_parquet(tmp_path / "rows.parquet")
    written(tmp_path, rows, "rows.jsonl")
    written(tmp_path, rows, "packed.gz")
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    lines = ["messages,answer"] + ['"' + json.dumps(row).replace('"', '""') + f'",{i}' for i, row in enumerate(turns)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    expected = Files(demonstrations=str(tmp_path / "rows.jsonl"), test_fraction=0)
    assert [row.columns for row in expected.train_prompts()] == [{"answer": str(i)} for i in range(5)]
    for name in ("packed.gz", "rows.json", "rows.csv", "rows.parquet", "stored", "split"):
        task = Files(demonstrations=str(tmp_path / name), test_fraction=0)
        assert task.demonstrations() == expected.demonstrations(), name
        assert task.train_prompts() == expected.train_prompts(), name
    held_out = Files(prompts=str(tmp_path / "split"), test_prompts=str(tmp_path / "split"))
    assert [row.columns["answer"] for row in held_out.train_prompts()] == ["1", "2", "3", "4"]
    assert [row.columns["answer"] for row in held_out.test_prompts()] == ["0"]
    with pytest.raises(DataError, match=r"task\.prompts='nobody/nothing', split 'train', can't be loaded"):
        Files(prompts="nobody/nothing")
