"""A language model compares and rates responses instead of people."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from pydantic import NonNegativeInt

from rlhf_lightning.config.schema import FilePath
from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.pairing import sample_pairs
from rlhf_lightning.flow import Feedback, Judgement, Prompt, Ranking, Rating
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.judge.judge import Judge
from rlhf_lightning.judge.settings import check_judge
from rlhf_lightning.registry import register
from rlhf_lightning.statistics.intervals import clustered_proportion_interval

MAX_PEOPLES_PAIRS = 200


@register("feedback_annotator", "judge", check=check_judge)
class JudgeAnnotator:
    """A language model of the section `judge`, on a server or here: pairs in both orders, and ratings.

    A pair whose two orders disagree is a tie (Zheng et al. 2023, "Judging LLM-as-a-judge", 3.4). A rating is the expected value over the
    probabilities of the digits (Liu et al. 2023, "G-Eval"). A judge that prefers a position ends the run.

    Args:
        comparisons: pairs of each prompt's responses, drawn at random.
        ratings: responses of each prompt that are rated, in their order.
        people: JSON Lines of people's judgements (feedback_format=record), on 200 comparisons of which the agreement is measured first.
        seed: random seed of the pairs.
    """

    kinds: ClassVar[tuple[AnnotationKind, ...]] = ("rating", "ranking")

    def __init__(
        self,
        context: AnnotatorContext,
        *,
        comparisons: NonNegativeInt = 2,
        ratings: NonNegativeInt = 0,
        people: FilePath | None = None,
        seed: int = 0,
    ) -> None:
        self.judge_model = Judge(context.settings("judge"), device=context.device, log=context.log)
        self._counts: dict[AnnotationKind, int] = {"rating": ratings, "ranking": comparisons}
        self._log, self._people, self._seed = context.log, people, seed

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Compare and rate; a question without an answer has no record."""
        if self._people is not None:
            self._measure_agreement(self._people)
            self._people = None
        least = 0 if tuple(kinds) == ANNOTATION_KINDS else 1
        feedback = []
        if "ranking" in kinds and (count := max(least, self._counts["ranking"])):
            feedback += self._compare(groups, count, number)
        if "rating" in kinds and (count := max(least, self._counts["rating"])):
            feedback += self._rate(groups, count)
        self._log(self.judge_model.describe())
        return feedback

    def _compare(self, groups: Sequence[tuple[Prompt, Sequence[str]]], count: int, number: int) -> list[Feedback]:
        pairs = [
            (prompt, responses[first], responses[second])
            for i, (prompt, responses) in enumerate(groups)
            for first, second in sample_pairs(responses, count, f"{self._seed}: round {number} group {i}")
        ]
        ranks = self.judge_model.compare(pairs)
        return [
            self._record(prompt, (first, second), Ranking(ranks=pair_ranks))
            for (prompt, first, second), pair_ranks in zip(pairs, ranks, strict=True)
            if pair_ranks is not None
        ]

    def _rate(self, groups: Sequence[tuple[Prompt, Sequence[str]]], count: int) -> list[Feedback]:
        texts = [(prompt, response) for prompt, responses in groups for response in responses[:count]]
        low, high = self.judge_model.settings.rating_scale
        return [
            self._record(prompt, (response,), Rating(value=min(max(value, low), high), scale=(float(low), float(high))))
            for (prompt, response), value in zip(texts, self.judge_model.rate(texts), strict=True)
            if value is not None
        ]

    def _record(self, prompt: Prompt, responses: tuple[str, ...], judgement: Judgement) -> Feedback:
        return Feedback(prompt=prompt, responses=responses, judgement=judgement, annotator=self.judge_model.name, origin="judge")

    def _measure_agreement(self, path: str) -> None:
        """Log how often the judge prefers the response that people prefer, over pairs that both decide."""
        pairs = read_comparisons(path)[:MAX_PEOPLES_PAIRS]
        ranks = self.judge_model.compare(pairs)
        decided = [(pair, rank) for pair, rank in zip(pairs, ranks, strict=True) if rank is not None and rank[0] != rank[1]]
        if not decided:
            self._log(f"{self.judge_model.name} decides none of {len(pairs)} comparisons of {path}")
            return
        prompts = {str(pair[0]): i for i, (pair, _) in enumerate(decided)}
        agreement = clustered_proportion_interval([rank == (1, 2) for _, rank in decided], [prompts[str(pair[0])] for pair, _ in decided])
        self._log(
            f"{self.judge_model.name} agrees with people on {agreement.mean:.0%} ({agreement.low:.0%} to {agreement.high:.0%}) of "
            f"{len(decided)} comparisons that both decide, of {len(pairs)} in {path}"
        )


def read_comparisons(path: str) -> list[tuple[Prompt, str, str]]:
    """Prompt, better and worse response of each pair that people decided.

    Raises:
        DataError: a line that is no record, or no pair at all.
    """
    pairs = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = Feedback.model_validate_json(line)
            except ValueError as cause:
                raise DataError(f"{path}:{number} is no record of feedback (`feedback_format=[record]`): {cause}") from cause
            if isinstance(record.judgement, Ranking):
                ranked = [(rank, text) for rank, text in zip(record.judgement.ranks, record.responses, strict=True) if rank is not None]
                pairs += [
                    (record.prompt, better, worse)
                    for (rank, better), (other, worse) in itertools.permutations(ranked, 2)
                    if rank < other and better != worse
                ]
    if not pairs:
        raise DataError(f"{path} has no comparison that people decided: give a file with rankings or pairs")
    return pairs
