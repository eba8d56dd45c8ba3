"""rlhf-lightning chat: answers piped lines, and stores a blind choice between two models as a feedback record."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch

from rlhf_lightning.cli.chat import append_feedback
from rlhf_lightning.config.display import visible
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.streaming import stream_response
from tests.fixtures.models import make_tiny, write_reader

TEMPLATE = "{% for m in messages %}{{ m['role'][0] + ':' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
ONE_GREEDY = ("--temperature", "0", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two policies without a chat template, and one with."""
    folder, names = tmp_path_factory.mktemp("policies"), []
    for name, family, seed, template in (("first", "llama", 0, None), ("second", "gpt2", 1, None), ("chat", "llama", 0, TEMPLATE)):
        language_model = make_tiny(family, seed)
        language_model.tokenizer.chat_template = template
        language_model.save(folder / name)
        names.append(str(folder / name))
    return names


@pytest.fixture
def talk(command, monkeypatch, tmp_path):
    """Runs the command on lines of stdin, in a folder of its own."""

    def run(lines, *words):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return command("chat", *words, workdir=tmp_path)

    return run


def greedy(language_model, prompt, tokens=4):
    return native(language_model, language_model.encode_prompts([prompt], tokens), max_new_tokens=tokens, temperature=0.0).responses[0]


def test_each_line_is_answered_by_the_policy(folders, talk):
    outcome = talk("Review\n\nIt is\n", folders[0], *ONE_GREEDY)
    policy = make_tiny("llama")
    assert outcome.code == 0
    assert outcome.out == "".join(f"{visible(greedy(policy, line))}\n" for line in ("Review", "It is"))


def test_a_chat_template_reads_the_conversation_so_far(folders, talk):
    outcome = talk("fan\nlamp\n/new\nfan\n", folders[2], "--system", "It", *ONE_GREEDY)
    policy, answers = make_tiny("llama"), []
    for prompt in ("s:It\nu:fan\na:", "s:It\nu:fan\na:{}\nu:lamp\na:", "s:It\nu:fan\na:"):
        answers.append(greedy(policy, prompt.format(*answers)))
    assert outcome.out == "".join(f"{visible(answer)}\n" for answer in answers)


def test_choices_are_feedback_records_that_name_the_models(folders, talk, tmp_path):
    lines = "Review\na\nIt is\nb\nfan\nmaybe\nt\nlamp\ns\nwater\n"  # the last one is not judged
    outcome = talk(lines, *folders[:2], "--temperature", "0", "--max-new-tokens", "6", "--annotator", "me")
    assert outcome.code == 0
    assert "write a, b, t or s" in outcome.error
    file = tmp_path / "chat_feedback.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    records = [RecordFormat()(Row(json.loads(line), f"{file}:{i}"))[0] for i, line in enumerate(file.read_text().splitlines(), 1)]
    assert [record.prompt for record in records] == ["Review", "It is", "fan"]
    assert [record.judgement.ranks for record in records] == [(0, 1), (1, 0), (0, 0)]
    policies = dict(zip(folders, (make_tiny("llama"), make_tiny("gpt2", 1)), strict=False))
    for record in records:
        assert record.annotator == "me"
        assert set(record.models) == set(folders[:2])
        assert list(record.responses) == [greedy(policies[model], record.prompt, 6) for model in record.models]
    head = outcome.out.split("feedback:")[0]
    assert head.count("A: ") == head.count("B: ") == 5
    assert f"{folders[0]}: " not in head.split("B: ")[4]


def test_it_streams_characters_complete_and_reads_a_t5(tmp_path):
    from rlhf_lightning.backbone.encoder_decoder import encoder_decoder

    for language_model in (make_tiny("gpt2"), encoder_decoder((), path=write_reader("t5", tmp_path / "t5"))):
        pieces = []
        torch.manual_seed(3)
        text = stream_response(language_model, "It is", pieces.append, max_new_tokens=12, temperature=1.0, top_p=0.9)
        assert "".join(pieces) == text
        assert len([piece for piece in pieces if piece]) > 1


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path):
    file = tmp_path / "new" / "feedback.jsonl"
    record = Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=(0, 1)))
    append_feedback(file, record)
    with file.open("a") as cut:
        cut.write('{"version":1,"pro')
    append_feedback(file, record)
    assert [Feedback.model_validate_json(line) for line in file.read_text().splitlines()[::2]] == [record, record]


@pytest.mark.parametrize(("words", "named"), [((), "FOLDER"), (("a", "b", "c"), "3 models"), (("a", "--top-p", "2"), "--top-p")])
def test_wrong_arguments_are_named(talk, words, named):
    outcome = talk("", *words)
    assert outcome.code == 2
    assert named in outcome.error
