"""Sentences on feedback quality: notable results only."""

from __future__ import annotations

from rlhf_lightning.feedback.quality.bias import Share
from rlhf_lightning.feedback.quality.record import DataSetQuality

ENOUGH_OVERLAP = 50
UNRELIABLE = 0.25
TOO_FAST = 0.1


def summary_lines(quality: DataSetQuality) -> list[str]:
    """Summarise agreement, annotators, wrong judgements, biases and haste, in this order."""
    return [*_agreement(quality), *_annotators(quality), *_noise(quality), *_biases(quality)]


def _agreement(quality: DataSetQuality) -> list[str]:
    lines = []
    for result in quality.agreement:
        if result.alpha is not None:
            units = f"{result.kind}s of {result.aspect}" if result.aspect else {"thumbs": "thumbs"}.get(result.kind, f"{result.kind}s")
            interval = f" (95 %: {result.low:.2f} to {result.high:.2f})" if result.low is not None else ""
            word = "good" if result.alpha >= 0.8 else "fair" if result.alpha >= 0.667 else "weak" if result.alpha >= 0.2 else "hardly any"
            alpha = f"Krippendorff's alpha {result.alpha:.2f}{interval}"
            lines.append(f"{word} agreement on {units}: {alpha}, {result.units:,} units judged by several")
    if not quality.agreement:
        lines.append("nothing was judged by two named annotators: neither agreement nor reliability can be measured")
    return lines


def _annotators(quality: DataSetQuality) -> list[str]:
    measured = [person for person in quality.annotators if person.combined is not None and person.overlap >= ENOUGH_OVERLAP]
    poor = [person for person in measured if person.combined is not None and person.combined < UNRELIABLE]
    lines = []
    if poor:
        names = ", ".join(f"{person.name} ({person.combined:.2f})" for person in sorted(poor, key=lambda p: p.combined or 0.0)[:5])
        more = f" and {len(poor) - 5} more" if len(poor) > 5 else ""
        lines.append(f"{len(poor)} of {len(measured)} annotators with enough overlap are hardly better than chance: {names}{more}")
    uncertain = sum(person.combined is not None for person in quality.annotators) - len(measured)
    if uncertain:
        lines.append(
            f"the reliability of {uncertain} annotators is uncertain: fewer than {ENOUGH_OVERLAP} of their judgements overlap with others'"
        )
    return lines


def _noise(quality: DataSetQuality) -> list[str]:
    count = sum(quality.noise.suspects.values())
    if not count:
        return []
    share = 100 * count / quality.noise.scored
    return [f"{count:,} judgements are probably wrong, {share:.1f} % of the {quality.noise.scored:,} that could be checked"]


def _biases(quality: DataSetQuality) -> list[str]:
    bias, pairs = quality.bias, quality.contradictions
    lines = _leaning("the response shown first", bias.first_wins) + _leaning("the longer response", bias.longer_wins)
    for rating in bias.length_ratings:
        if abs(rating.correlation) >= 0.3 and (rating.low > 0 or rating.high < 0):
            subject = f"ratings of {rating.aspect}" if rating.aspect else "ratings"
            lines.append(f"{subject} {'rise' if rating.correlation > 0 else 'fall'} with length (Spearman {rating.correlation:.2f})")
    if bias.time and bias.time.too_fast >= TOO_FAST:
        lines.append(f"{100 * bias.time.too_fast:.0f} % of the judgements were made faster than the texts can be read")
    if pairs.within:
        lines.append(f"{pairs.within:,} of {pairs.repeated:,} pairs that an annotator judged again were judged the other way")
    if pairs.between:
        lines.append(f"{pairs.between:,} of {pairs.shared:,} pairs that several annotators compared were judged both ways")
    return lines


def _leaning(subject: str, share: Share | None) -> list[str]:
    """Report a share whose interval excludes one half, if it differs by at least 0.03."""
    if share is None or share.low <= 0.5 <= share.high or abs(share.share - 0.5) < 0.03:
        return []
    verb = "wins" if share.share > 0.5 else "wins only"
    return [f"{subject} {verb} {100 * share.share:.0f} % of comparisons (95 %: {100 * share.low:.0f} to {100 * share.high:.0f} %)"]
