"""Contracts of stages, tasks, base models, feedback and metrics."""

from __future__ import annotations

import json
from typing import Any

import torch

from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.interfaces import AnnotatorContext, SelectionPool
from rlhf_lightning.judging.judge import Judge
from rlhf_lightning.judging.program import Call, Program
from rlhf_lightning.runtime.composition import check
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.task.reviews import Reviews
from rlhf_lightning.testing.trial import Trial, compose_command, scored_rollout, small_model


def stage(trial: Trial) -> None:
    """Run on three pairs and return a number."""
    file = trial.folder / "pairs.jsonl"
    rows = [{"prompt": f"The lamp {i}:", "chosen": "good", "rejected": "bad"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]"]
    run = Run(compose_command(f"stage={trial.component.name}", "logger=none", *source), trial.folder)
    check(run.config)
    assert isinstance(float(trial.make()(run)), float)


def task(trial: Trial) -> None:
    """Keep held-out prompts apart from training prompts."""
    settings: dict[str, Any] = {}
    if trial.has("prompts"):
        file = trial.folder / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": f"The lamp {i}:"}) + "\n" for i in range(30)))
        settings = {"prompts": str(file), "test_fraction": 0.3}
    made_task = trial.make(**settings)
    train, test = made_task.train_prompts(), made_task.test_prompts()
    assert train
    assert test
    assert not {row.prompt for row in train} & {row.prompt for row in test}, "a held-out prompt is a training prompt"


def backbone(trial: Trial) -> None:
    """Load a saved model with its width and its tokenizer, or make one."""
    if not trial.has("path"):
        assert trial.make()(["a good lamp"]).width > 0
        return
    model = small_model()
    model.save(trial.folder)
    loaded = trial.make(["a text"], path=str(trial.folder))()
    assert loaded.width == model.width
    assert loaded.tokenizer("a good lamp")["input_ids"] == model.tokenizer("a good lamp")["input_ids"]


def feedback_source(trial: Trial) -> None:
    """Read a file's rows, in order."""
    file = trial.folder / "rows"
    content = trial.example or '{"prompt": "a"}\n{"prompt": "b"}\n'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [row.data["prompt"] for row in trial.make(path=str(file))()] == ["a", "b"]


def feedback_format(trial: Trial) -> None:
    """Read the format's rows and leave others."""
    read = trial.make()
    feedback = list(read(Row(trial.example or {"prompt": "The lamp:", "response": "bad", "edit": "good"}, "here:1")))
    assert feedback
    assert all(record.prompt and record.responses for record in feedback)
    assert read(Row({"weather": "fine"}, "here:2")) is None


def feedback_filter(trial: Trial) -> None:
    """Count each judgement that is removed, and keep the order of the others."""
    texts = ["A good lamp.", "A lamp of brass, and it is quiet.", "A good lamp.", "nasty " * 30]
    records = [Feedback(prompt="The lamp:", responses=(text, "bad"), judgement=Ranking(ranks=(0, 1))) for text in texts]
    cleaning = Cleaning()
    remaining = list(trial.make()(records, cleaning))
    assert len(remaining) + sum(cleaning.removed.values()) == len(records), "a judgement is removed and not counted"


def feedback_comment(trial: Trial) -> None:
    """Score praise above blame, from -1 to 1."""
    score = trial.make()
    assert -1 <= score("I hate it.") < score("I love it.") <= 1


def feedback_annotator(trial: Trial) -> None:
    """Judge the responses to each prompt."""
    reviews = Reviews(demonstrations=20)
    prompt = reviews.train_prompts()[0].prompt
    context, groups = AnnotatorContext(reviews, trial.folder), [(prompt, ["a good lamp", "a bad lamp"])]
    judgements = trial.make(context).judge(groups, number=1)
    assert judgements
    assert trial.make(context).judge(groups, number=1) == judgements, "the same round is judged otherwise the second time"
    assert {feedback.prompt for feedback in judgements} == {prompt}


def feedback_selection(trial: Trial) -> None:
    """Choose as many different questions as the budget allows, and alike from equal seeds."""
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    members = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ features.T
    groups = [(f"The lamp {i}:", [f"good {i}", f"bad {i}", f"so so {i}"]) for i in range(4)]
    pool = SelectionPool(groups=groups, features=features, scores=members.mean(0), members=members)
    first, second = (trial.make()(pool, 3, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first == second, "equal seeds choose differently"
    assert len({(choice.group, choice.responses) for choice in first}) == 3
    assert all(set(choice.responses) <= {0, 1, 2} for choice in first)


def evaluation_metric(trial: Trial) -> None:
    """Return a finite number for each response."""
    numbers = trial.make()(Reviews(demonstrations=2), scored_rollout())
    assert numbers.shape == (4,)
    assert torch.isfinite(numbers).all()


def sandbox(trial: Trial) -> None:
    """Run a program, and tell a right one from a wrong one."""
    made_sandbox = trial.make(**({"i_trust_this_code": True} if trial.has("i_trust_this_code") else {}))
    judge = Judge(made_sandbox.isolation())
    try:
        programs = [Program(f"def f(x):\n    return x + {n}\n", "f", calls=[Call(["list", 1], 2)]) for n in (1, 2)]
        assert [verdict.has_passed for verdict in judge.judge(programs)] == [True, False]
    finally:
        judge.close()


GARBAGE: tuple[Any, ...] = ({"nothing": 1}, [[]], -1e30)


def collect_question(trial: Trial) -> None:
    """Refuse nonsense, store an answer as JSON, and make records of it."""
    question: Question = trial.make()
    assert question.script.is_file(), f"the page's module {question.script} is missing"
    json.dumps(question.describe())
    view = ItemView("The lamp:", ("good", "bad"), ("a", None), annotator="ada")
    for value in GARBAGE:
        try:
            question.parse(value, view, 0)
        except ValueError:
            continue
        raise AssertionError(f"{value!r} is taken as an answer")
    stored = question.parse("a good lamp" if trial.example is None else trial.example, view, 0)
    assert json.loads(json.dumps(stored)) == stored, "an answer must be JSON"
    assert question.parse(stored, view, 0) == stored, "a stored answer must parse to itself"
    records = question.feedback(stored, view, 0)
    assert records
    assert all(isinstance(record, Feedback) and record.annotator == "ada" for record in records)


CONTRACTS = {
    contract.__name__: contract
    for contract in (
        stage, task, backbone, feedback_source, feedback_format, feedback_filter, feedback_comment, feedback_annotator, feedback_selection,
        evaluation_metric, sandbox, collect_question,
    )
}  # fmt: skip
