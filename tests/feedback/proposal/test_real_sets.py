"""Proposals for real data sets, where they are beside the repository: the format, and every row read that the documentation reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_lightning.feedback.proposal.propose import propose

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
FORMATS = {
    "hh_harmless": ["pairwise"], "pandalm_human": ["verdict"], "wmt_mqm_pairs": ["pairwise"], "gsm8k_pairs": ["pairwise"],
    "oasst_rankings": ["ranking"], "oasst_tree_sample": ["oasst"], "wmt_mqm_ranking": ["ranking"],
    "rankme_nlg_ranking": ["attributes", "ranking"], "squality_human_eval": ["ranking"], "scitldr_human_ranking": ["ranking"],
    "usr_topicalchat_ratings": ["attributes"], "mlqe_pe_edit_rating": ["edit", "rating"], "vader_sentiment_ratings": ["rating"],
    "topical_chat_turn_ratings": ["rating"], "gsm8k_model_solutions": ["ranking", "thumbs"], "humaneval_codegen_samples": ["thumbs"],
    "surge_toxicity": ["thumbs"],
}  # fmt: skip
"""Documented formats (docs/data_sets.md): read together, or the first two proposals."""
WITHOUT = (
    "advbench_prompts",
    "gsm8k_tasks",
    "humaneval",
    "mbpp_sanitized",
    "scitldr",
    "story_prompts",
    "tinystories_sample",
    "xstest_prompts",
)


def file_of(name: str) -> str:
    file = DATA / name / "dev.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"the set {name} is not beside the repository")
    return str(file)


@pytest.mark.parametrize("name", FORMATS)
def test_the_documented_format_is_proposed(name: str):
    first, *rest = propose(file_of(name))[1]
    formats = [candidate.format for candidate in first.candidates]
    if len(formats) == 1:
        formats += [proposal.candidates[0].format for proposal in rest[:1]]
    assert set(FORMATS[name]) <= set(formats)
    assert formats[0] in FORMATS[name]
    assert first.share > 0.9


@pytest.mark.parametrize("name", WITHOUT)
def test_a_set_without_judgements_has_no_sure_proposal(name: str):
    assert not any(proposal.is_sure for proposal in propose(file_of(name))[1])
