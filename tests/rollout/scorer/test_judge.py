"""rollout_scorer=judge: ratings of a server and of a local model as scores."""

from __future__ import annotations

import pytest

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.judge.settings import JudgeSettings
from rlhf_lightning.registry import load_components
from rlhf_lightning.rollout.scorer.judge import JudgeScorer
from rlhf_lightning.rollout.scoring import checked_scores
from rlhf_lightning.testing.trial import scored_rollout
from tests.fixtures.chat_server import chat_server, completion, longer_wins, texts_of

load_components()


def test_scores_are_ratings_and_an_unreadable_answer_is_none(tmp_path):
    rollout = scored_rollout()
    skipped = rollout.responses[0]

    def script(body, number):
        return completion("no idea") if texts_of(body)["RESPONSE"] == skipped else longer_wins(body, number)

    with chat_server(script) as server:
        settings = JudgeSettings(url=server.url, model="m", cache=str(tmp_path / "judge.jsonl"))
        scores = checked_scores(JudgeScorer(settings), rollout)
        expected = [float("nan") if text == skipped else min(7, max(1, len(text))) for text in rollout.responses]
        assert scores.tolist() == pytest.approx(expected, nan_ok=True)
        asked = len(server.requests)
        checked_scores(JudgeScorer(settings), rollout)
        assert len(server.requests) == asked == len(set(zip(map(str, rollout.prompts), rollout.responses, strict=True)))


def test_ppo_against_a_local_judge(command, world, tmp_path):
    words = ["rollout_scorer=judge", f"judge.path={tmp_path / 'model'}", f"judge.cache={tmp_path / 'judge.jsonl'}"]
    tiny(["The lamp is good. Answer with one digit."] * 4, layers=1, width=16, heads=2, vocabulary=300, positions=1024).save(
        tmp_path / "model"
    )
    outcome = command(*world.ppo(*words))
    assert outcome.code == 0, outcome.error
    assert 1 <= outcome.result()["objective"] <= 7
