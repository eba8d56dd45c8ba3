"""Quality in sentences: only what a user should look at or can rely on."""

from __future__ import annotations

from rlhf_lightning.feedback.quality.bias import Share
from rlhf_lightning.feedback.quality.record import DataSetQuality

ENOUGH_OVERLAP = 50
UNRELIABLE = 0.25
TOO_FAST = 0.1


def findings(quality: DataSetQuality) -> list[str]:
    """Sentences about agreement, annotators, wrong judgements, biases and haste, in this order."""
    return [*_agreement(quality), *_annotators(quality), *_noise(quality), *_biases(quality)]


def _agreement(quality: DataSetQuality) -> list[str]:
    told = []
    for one in quality.agreement:
        if one.alpha is not None:
            of = f"{one.kind}s of {one.aspect}" if one.aspect else {"thumbs": "thumbs"}.get(one.kind, f"{one.kind}s")
            range_ = f" (95 %: {one.low:.2f} to {one.high:.2f})" if one.low is not None else ""
            word = "good" if one.alpha >= 0.8 else "fair" if one.alpha >= 0.667 else "weak" if one.alpha >= 0.2 else "hardly any"
            told.append(f"{word} agreement on {of}: Krippendorff's alpha {one.alpha:.2f}{range_}, {one.units:,} units judged by several")
    if not quality.agreement:
        told.append("nothing was judged by two named annotators: neither agreement nor reliability can be measured")
    return told


def _annotators(quality: DataSetQuality) -> list[str]:
    known = [person for person in quality.annotators if person.combined is not None and person.overlap >= ENOUGH_OVERLAP]
    poor = [person for person in known if person.combined is not None and person.combined < UNRELIABLE]
    told = []
    if poor:
        shown = ", ".join(f"{person.name} ({person.combined:.2f})" for person in sorted(poor, key=lambda p: p.combined or 0.0)[:5])
        more = f" and {len(poor) - 5} more" if len(poor) > 5 else ""
        told.append(f"{len(poor)} of {len(known)} annotators with enough overlap are hardly better than chance: {shown}{more}")
    few = sum(person.combined is not None for person in quality.annotators) - len(known)
    if few:
        told.append(
            f"the reliability of {few} annotators is uncertain: fewer than {ENOUGH_OVERLAP} of their judgements overlap with others'"
        )
    return told


def _noise(quality: DataSetQuality) -> list[str]:
    count = sum(quality.noise.suspects.values())
    if not count:
        return []
    share = 100 * count / quality.noise.scored
    return [f"{count:,} judgements are probably wrong, {share:.1f} % of the {quality.noise.scored:,} that could be checked"]


def _biases(quality: DataSetQuality) -> list[str]:
    bias, pairs = quality.bias, quality.contradictions
    told = _leaning("the response shown first", bias.first_wins) + _leaning("the longer response", bias.longer_wins)
    for one in bias.length_ratings:
        if abs(one.correlation) >= 0.3 and (one.low > 0 or one.high < 0):
            what = f"ratings of {one.aspect}" if one.aspect else "ratings"
            told.append(f"{what} {'rise' if one.correlation > 0 else 'fall'} with length (Spearman {one.correlation:.2f})")
    if bias.time and bias.time.too_fast >= TOO_FAST:
        told.append(f"{100 * bias.time.too_fast:.0f} % of the judgements were made faster than the texts can be read")
    if pairs.within:
        told.append(f"{pairs.within:,} of {pairs.repeated:,} pairs that an annotator judged again were judged the other way")
    if pairs.between:
        told.append(f"{pairs.between:,} of {pairs.shared:,} pairs that several annotators compared were judged both ways")
    return told


def _leaning(what: str, share: Share | None) -> list[str]:
    """Only where the interval excludes one half by a margin that matters."""
    if share is None or share.low <= 0.5 <= share.high or abs(share.share - 0.5) < 0.03:
        return []
    verb = "wins" if share.share > 0.5 else "wins only"
    return [f"{what} {verb} {100 * share.share:.0f} % of comparisons (95 %: {100 * share.low:.0f} to {100 * share.high:.0f} %)"]
