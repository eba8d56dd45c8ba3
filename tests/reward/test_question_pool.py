"""The pool of questions: the model's scores are linear in its features, and answered comparisons are differences of both."""

from __future__ import annotations

import torch

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.reward.question_pool import question_pool
from rlhf_lightning.reward.storage.folder import load_reward_model


def test_scores_are_the_head_on_the_features(world):
    model = load_reward_model(str(world.reward_model)).eval()
    weight = model.net.head.weight.weight[0].double()
    groups = [("The lamp:", (" a good lamp.", " bad")), ("The fan:", (" it is fan.", " a good fan.", " bad"))]
    answer = Feedback(prompt="The pen:", responses=(" a good pen.", " bad, bad pen"), judgement=Ranking(ranks=(0, 1)))
    pool = question_pool(model, groups, standardise([answer]))
    normalised = model.score_texts([p for p, texts in groups for _ in texts], [text for _, texts in groups for text in texts]).double()
    torch.testing.assert_close(pool.scores, normalised * model.deviation + model.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pool.features @ weight, pool.scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pool.past_differences @ weight, pool.past_scores, atol=1e-5, rtol=1e-5)
    assert pool.past_scores.shape == (1,)
