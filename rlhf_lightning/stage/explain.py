"""stage=explain: attribute a reward model's scores to words and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import load_feedback

if TYPE_CHECKING:
    from torch import Tensor

    from rlhf_lightning.feedback.judgements import PromptResponse
    from rlhf_lightning.flow import Feedback
    from rlhf_lightning.report.explanation import ExplainedCase
    from rlhf_lightning.reward.explain.cases import Case
    from rlhf_lightning.reward.explain.explanation import ExplainSettings
    from rlhf_lightning.reward.explain.score_regression import ScoreRegression
    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.regression.feature_score import FeatureScore

TITLE = "Why the reward model scores so"


@register("stage", "explain")
def explain(
    run: Run,
    *,
    model: ModelPath,
    limit: PositiveInt = 12,
    order: Literal["first", "disagreements"] = "first",
    texts: PositiveInt = 1000,
    baseline: Literal["neutral", "pad", "zero"] = "neutral",
    tolerance: PositiveFloat = 1e-3,
    max_steps: Annotated[int, Field(ge=16)] = 1024,
    occlusion: Literal["remove", "replace"] = "remove",
    max_occlusions: PositiveInt = 64,
    points: Annotated[int, Field(ge=2)] = 33,
) -> float:
    """Explain a reward model's scores by words, features and pairs; returns the number of texts.

    Writes explanation.html, explanation.json and the report.

    Args:
        model: the reward model's folder, from stage=reward, or any AutoModelForSequenceClassification with one label.
        limit: number of judgements to explain; a comparison has two texts, its best and its worst.
        order: the first judgements, or the sampled comparisons in which the model disagrees with people, the clearest first.
        texts: number of sampled texts for the regression of scores on the features of reward_feature.
        baseline: embedding that replaces each token in the baseline: of the mask or end-of-text token, of the padding, or zero.
        tolerance: maximum gap between the words' sum and the score.
        max_steps: maximum number of gradients to reach it.
        occlusion: remove words, or replace them by the mask or the end-of-text token.
        max_occlusions: maximum occlusions of a text; longer texts lose several words at a time.
        points: number of prefixes of a response that are scored.
    """
    from rlhf_lightning.reward.explain.cases import sample_records
    from rlhf_lightning.reward.explain.explanation import ExplainSettings
    from rlhf_lightning.reward.storage.folder import is_feature_score

    with run.time_stage("read"):
        intake = load_feedback(run, [] if is_feature_score(model) else [model])
        records = sample_records(intake.feedback, texts, run.seed)
    net = load_model(run, model)
    with run.time_stage("features"):
        regression, notes = _fit_regression(run, net, records, texts)
    cases = select_cases(net, intake.feedback, records, limit, order)
    settings = ExplainSettings(baseline, tolerance, max_steps, occlusion, max_occlusions, points)
    with run.time_stage("explain"):
        explained = [_explain_case(net, case, settings, regression) for case in cases]
    return _write_report(run, model, explained, regression, [*intake.notes, *notes])


def _explain_case(
    model: RewardModel | FeatureScore, case: Case, settings: ExplainSettings, regression: ScoreRegression | None
) -> ExplainedCase:
    from rlhf_lightning.report.explanation import ExplainedCase
    from rlhf_lightning.reward.explain.explanation import explain_pair, explain_text

    if len(case.texts) == 1:
        return ExplainedCase(case, explain_text(model, case.texts[0], settings))
    return ExplainedCase(case, explain_pair(model, case.texts[0], case.texts[1], settings, regression))


def _write_report(run: Run, model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None, notes: list[str]) -> float:
    """Write the explanations and the report; returns the number of texts."""
    from rlhf_lightning.report.explanation import (
        count_agreements,
        explanation_json,
        explanation_metrics,
        regression_tables,
        words_table,
        write_explanation,
    )
    from rlhf_lightning.stage._report import write_report

    sides = [side for case in cases for side in case.sides]
    incomplete = sum(side.is_complete is False for side in sides)
    agreements, pairs = count_agreements(cases)
    if incomplete:
        notes.append(f"the words of {incomplete} of {len(sides)} texts don't add up to the score well enough: raise stage.max_steps")
    if pairs:
        notes.append(f"the model prefers what people preferred in {agreements} of the {pairs} explained pairs")
    run.write_json("explanation.json", explanation_json(model, cases, regression))
    if run.is_rank_zero:
        write_explanation(run.folder / "explanation.html", TITLE, model, cases, regression)
    write_report(
        run,
        TITLE,
        metrics=explanation_metrics(cases, regression),
        tables=[words_table(cases), *(regression_tables(regression) if regression else [])],
        notes=notes,
        results={"explained": float(len(sides))} | ({} if regression is None else {"r2": regression.r2}),
    )
    run.log(f"coloured texts: {run.folder / 'explanation.html'}")
    return float(len(sides))


def load_model(run: Run, path: str) -> RewardModel | FeatureScore:
    """Load a frozen reward model or feature score, on the trainer's kind of device."""
    from rlhf_lightning.model.language_model import freeze
    from rlhf_lightning.reward.storage.folder import load_any_reward_model

    model = load_any_reward_model(path)
    freeze(model)
    return model.to(run.device_kind)


def select_cases(
    model: RewardModel | FeatureScore, feedback: Sequence[Feedback], sampled: Sequence[Feedback], limit: int, order: str
) -> list[Case]:
    """The first cases, or the clearest disagreements with people among the sampled ones."""
    from rlhf_lightning.reward.explain.cases import distinct_cases

    if order == "first":
        return distinct_cases(feedback, limit)
    pairs = [case for case in distinct_cases(sampled, len(sampled)) if len(case.responses) == 2]
    scores = [scores_of(model, [case.texts[side] for case in pairs]) for side in (0, 1)]
    margins = (scores[0] - scores[1]).tolist()
    disagreements = sorted((margin, index) for index, margin in enumerate(margins) if margin <= 0)
    return [pairs[index] for _, index in disagreements[:limit]]


def scores_of(model: RewardModel | FeatureScore, texts: Sequence[PromptResponse]) -> Tensor:
    """Normalised scores [U]; a feature score reads a chat as text."""
    from rlhf_lightning.flow import prompt_text
    from rlhf_lightning.reward.regression.feature_score import FeatureScore

    responses = [response for _, response in texts]
    if isinstance(model, FeatureScore):
        return model.score_texts([prompt_text(prompt) for prompt, _ in texts], responses)
    return model.score_texts([prompt for prompt, _ in texts], responses)


def _fit_regression(
    run: Run, model: RewardModel | FeatureScore, records: Sequence[Feedback], limit: int
) -> tuple[ScoreRegression | None, list[str]]:
    """Fit the regression on the command's features, or give the reason for having none."""
    from rlhf_lightning.errors import DataError
    from rlhf_lightning.flow import prompt_text
    from rlhf_lightning.reward.evaluation.score_checks import all_equal
    from rlhf_lightning.reward.explain.cases import distinct_texts
    from rlhf_lightning.reward.explain.score_regression import regress_scores

    texts = distinct_texts(records, limit)
    scores = scores_of(model, texts)
    if all_equal(scores):
        return None, [f"the model gives all {len(scores)} texts the same score: it tells nothing apart, and there is nothing to explain"]
    nodes = run.config.get("reward_feature") or {}
    features = {str(name): {key: value for key, value in node.items() if not key.startswith("_")} for name, node in nodes.items()}
    try:
        return regress_scores([(prompt_text(prompt), response) for prompt, response in texts], scores, features), []
    except DataError as reason:
        return None, [f"no regression on features: {reason}"]
