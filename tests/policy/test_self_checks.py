"""The self-checks: all hold on what is right, and each fails when the thing it guards is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Experience, Prompts, Rollout, ScoredRollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy, PolicyOutput
from rlhf_lightning.policy.self_checks import COARSE, Check, FirstBatch, check_ends, check_numbers, other_texts, report_checks, within
from rlhf_lightning.rollout.sampler._cached import PaddedDecoder
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers
from rlhf_lightning.tensors import log_probs_of, score_on_last_token

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils", "a quiet fan, and it"]
ROOM = 6
SAMPLER = partial(native, max_new_tokens=ROOM)


def letters(rollout: Rollout) -> Tensor:
    return torch.tensor([float(sum(map(ord, text))) for text in rollout.responses])


@torch.no_grad()
def first_batch(policy: Policy, sampler: Any = SAMPLER, scorer: Any = letters, reference: Policy | None = None) -> Experience:
    """What the first iteration makes, with values."""
    torch.manual_seed(0)
    prompts = policy.language_model.encode_prompts(PROMPTS, ROOM).repeat(2)
    rollout = sampler(policy.language_model, prompts)
    own, scores = policy(rollout).log_probs, scorer(rollout)
    scored = ScoredRollout(
        **vars(rollout), scores=scores, rewards=score_on_last_token(scores, rollout.response_mask), values=torch.zeros_like(own),
        old_log_probs=own, ref_log_probs=own if reference is None else reference(rollout).log_probs,
        entropy=torch.zeros_like(own), kl_coef=0.1,
    )  # fmt: skip
    return rloo(scored)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.failure]


def checked(policy: Policy, sampler: Any = SAMPLER, scorer: Any = letters, reference: Policy | None = None, **given: Any) -> list[str]:
    """The names of the checks that fail."""
    return failed(FirstBatch(policy, sampler, scorer, **given).checks(first_batch(policy, sampler, scorer, reference)))


@pytest.mark.parametrize("sampler", [native, transformers])
def test_what_is_right_holds_and_no_random_number_is_drawn(language_model, sampler):
    policy = Policy(language_model)
    batch = first_batch(policy, partial(sampler, max_new_tokens=ROOM), reference=policy)
    before = torch.get_rng_state()

    def drawing(rollout: Rollout) -> Tensor:
        return letters(rollout) + torch.rand(len(rollout)) * 1e-3

    found = FirstBatch(policy, partial(sampler, max_new_tokens=ROOM), drawing).checks(batch)
    assert failed(found) == []
    assert [check.name for check in found] == ["ends", "sampler", "reference", "padding", "ratio", "reward", "numbers"]
    assert torch.equal(torch.get_rng_state(), before)


def test_it_holds_in_bfloat16_and_would_not_at_float32_s_tolerance(language_model):
    policy = Policy(language_model)
    with torch.autocast("cpu", torch.bfloat16):
        batch = first_batch(policy)
        found = FirstBatch(policy, SAMPLER, letters).checks(batch)
    assert failed(found) == []
    assert failed(FirstBatch(policy, SAMPLER, letters).checks(batch)) == ["padding", "ratio"]


def hotter(language_model: LanguageModel, prompts: Prompts) -> Rollout:
    """Draws at half the temperature that it says."""
    return replace(native(language_model, prompts, max_new_tokens=ROOM, temperature=0.5), temperature=1.0)


def test_a_sampler_at_another_temperature_is_found(language_model):
    policy = Policy(language_model)
    assert checked(policy, hotter) == ["sampler"]
    batch = first_batch(policy, partial(native, max_new_tokens=ROOM, temperature=0.5))
    assert failed(FirstBatch(policy, partial(native, max_new_tokens=ROOM, temperature=0.5), letters).checks(batch)) == []


class Shifted(PaddedDecoder):
    """Counts positions over the padding."""

    def __init__(self, language_model: LanguageModel, prompts: Prompts, room: int) -> None:
        super().__init__(language_model, prompts.prompt_ids, prompts.prompt_mask)
        self.positions = torch.arange(self.ids.shape[1]).expand_as(self.ids)


def test_positions_that_count_the_padding_are_found_in_the_sampler(tiny_of, monkeypatch):
    policy = Policy(tiny_of("gpt2"))
    monkeypatch.setattr("rlhf_lightning.rollout.sampler.native.decoder_of", Shifted)
    assert checked(policy) == ["sampler"]


class Unmasked(Policy):
    """Reads prompts left-padded, with positions that count the padding."""

    def forward(self, rollout: Rollout, entropy: bool = True) -> PolicyOutput:
        ids = torch.cat([rollout.prompt_ids, rollout.response_ids], 1)
        mask = torch.cat([rollout.prompt_mask, rollout.response_mask], 1)
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        logits = self.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        log_probs = log_probs_of(logits[:, rollout.prompt_ids.shape[1] - 1 : -1], rollout.response_ids) * rollout.response_mask
        return PolicyOutput(log_probs, None, None)


def test_positions_that_count_the_padding_are_found_in_the_policy(tiny_of):
    assert checked(Unmasked(tiny_of("gpt2"))) == ["sampler", "padding"]


class Neighbourly(Policy):
    """A response's log-probabilities depend on who is in the batch."""

    def forward(self, rollout: Rollout, entropy: bool = True) -> PolicyOutput:
        output = super().forward(rollout, entropy)
        centred = output.log_probs - output.log_probs.mean(0, keepdim=True) * 0.01
        return output._replace(log_probs=centred * rollout.response_mask)


def test_a_policy_that_looks_at_its_neighbours_is_found(language_model):
    assert "padding" in checked(Neighbourly(language_model))


def test_dropout_left_on_is_found(tiny_of):
    policy = Policy(tiny_of("gpt2")).train()
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    assert checked(policy, reference=policy) == ["sampler", "reference", "padding", "ratio"]


def test_another_reference_is_found_and_only_reported_where_it_is_meant(tiny_of):
    policy, other = Policy(tiny_of("llama")), Policy(tiny_of("llama", seed=1))
    assert checked(policy, reference=other) == ["reference"]
    assert checked(policy, reference=other, at_reference=False) == []
    check = FirstBatch(policy, SAMPLER, letters, at_reference=False).check_reference(first_batch(policy, reference=other))
    assert check.result.endswith("nats a response to the reference, from which the policy had moved before")


class Restless(Policy):
    """Its weights change from pass to pass, where gradients are on."""

    def forward(self, rollout: Rollout, entropy: bool = True) -> PolicyOutput:
        output = super().forward(rollout, entropy)
        return output._replace(log_probs=output.log_probs * 1.01) if torch.is_grad_enabled() else output


def test_a_pass_that_learns_from_other_numbers_is_found(language_model):
    assert checked(Restless(language_model)) == ["ratio"]


def constant(rollout: Rollout) -> Tensor:
    return torch.full((len(rollout),), 0.5)


def of_the_prompt(rollout: Rollout) -> Tensor:
    return torch.tensor([float(len(prompt)) for prompt in rollout.prompts])


def of_the_tokens(rollout: Rollout) -> Tensor:
    return (rollout.response_ids * rollout.response_mask).sum(1).float()


@pytest.mark.parametrize(("scorer", "fails"), [(of_the_prompt, ["reward"]), (of_the_tokens, []), (lambda r: -letters(r), [])])
def test_a_scorer_that_does_not_read_the_response_is_found(language_model, scorer, fails):
    assert checked(Policy(language_model), scorer=scorer) == fails


def test_scores_that_are_all_equal_are_reported_and_do_not_stop_a_task_that_pays_rarely(language_model):
    policy = Policy(language_model)
    check = FirstBatch(policy, SAMPLER, constant).check_reward(first_batch(policy, scorer=constant))
    assert check.failure == ""
    assert "WARNING: every response's score is 0.5" in str(check)


def test_a_scorer_that_fails_on_an_empty_response_is_named(language_model):
    def mean_letter(rollout: Rollout) -> list[float]:
        return [sum(map(ord, t)) / len(t) for t in rollout.responses]

    policy = Policy(language_model)
    check = FirstBatch(policy, SAMPLER, mean_letter).check_reward(first_batch(policy, scorer=letters))
    assert "mean_letter raised ZeroDivisionError" in check.failure


def test_a_text_that_a_scorer_can_not_score_has_been_read(language_model):
    def one_unless_empty(rollout: Rollout) -> Tensor:
        return torch.tensor([1.0 if text else float("nan") for text in rollout.responses])

    assert checked(Policy(language_model), scorer=one_unless_empty) == []


def test_other_texts_have_the_tokens_that_they_say(language_model):
    known = SAMPLER(language_model, language_model.encode_prompts(PROMPTS, ROOM))
    for other in other_texts(known, language_model):
        assert other.responses == language_model.decode(other.response_ids, other.response_mask)
        assert check_ends(other, language_model.eos_ids, language_model.pad_id, None).failure == "" or not other.has_eos.any()
        assert other.prompts == known.prompts


@pytest.mark.parametrize("setting", [{"top_p": 0.5}, {"temperature": 0.0}])
def test_a_sampler_that_draws_otherwise_by_design_is_reported_and_not_held(language_model, setting):
    policy, sampler = Policy(language_model), partial(native, max_new_tokens=ROOM, **setting)
    batch = first_batch(policy, sampler)
    batch.sampled_log_probs = batch.sampled_log_probs + 1.0  # of the tokens among which it draws
    check = FirstBatch(policy, sampler, letters).check_sampler(batch)
    assert check.failure == ""
    assert f"with {next(iter(setting))}={next(iter(setting.values())):g} the sampler draws from another distribution" in check.result


def test_a_correction_allows_a_sampler_of_lower_precision_and_no_more(language_model):
    policy = Policy(language_model)
    batch = first_batch(policy)
    near, far = (replace(batch, sampled_log_probs=batch.old_log_probs + by) for by in (COARSE[0] / 2, COARSE[0] * 2))
    plain, corrected = FirstBatch(policy, SAMPLER, letters), FirstBatch(policy, SAMPLER, letters, corrected=True)
    assert plain.check_sampler(near).failure
    assert not corrected.check_sampler(near).failure
    assert corrected.check_sampler(far).failure


def test_nan_is_no_agreement():
    assert not within((float("nan"), float("nan")), COARSE)


EOS, PAD = 9, 0


def responses(ids: list[list[int]], lengths: list[int], has_eos: list[bool], scored_of: Callable[..., ScoredRollout]) -> ScoredRollout:
    mask = (torch.arange(len(ids[0])) < torch.tensor(lengths)[:, None]).long()
    return scored_of(mask, response_ids=torch.tensor(ids), has_eos=torch.tensor(has_eos))


@pytest.mark.parametrize(
    ("ids", "lengths", "has_eos", "says"),
    [
        ([[1, 9, 0], [1, 2, 3]], [2, 3], [True, False], ""),
        ([[1, 9, 0], [1, 2, 9]], [2, 3], [True, True], ""),
        ([[1, 2, 0], [1, 2, 3]], [2, 3], [False, False], "1 of 2 responses end neither at an end-of-text token nor at the limit"),
        ([[1, 9, 4], [1, 2, 3]], [3, 3], [True, False], "1 of 2 responses continue after an end-of-text token"),
        ([[1, 2, 9], [1, 2, 3]], [3, 3], [False, False], "1 of 2 responses have a has_eos that contradicts their last token"),
        ([[1, 2, 9], [1, 2, 3]], [3, 3], [True, True], "1 of 2 responses have a has_eos that contradicts their last token"),
        ([[1, 2, 9], [0, 0, 0]], [3, 0], [True, False], "1 of 2 responses have no token"),
    ],
)
def test_every_response_ends_at_its_first_eos_or_at_the_limit(ids, lengths, has_eos, says, scored_of):
    failure = check_ends(responses(ids, lengths, has_eos, scored_of), [EOS], PAD, 3).failure
    assert failure.startswith(says)
    assert bool(failure) == bool(says)


def test_the_limit_is_the_sampler_s_and_the_longest_where_it_says_none(scored_of):
    batch = responses([[1, 2, 3]], [3], [False], scored_of)
    assert check_ends(batch, [EOS], PAD, None).failure == ""
    assert "nor at the limit" in check_ends(batch, [EOS], PAD, 4).failure


def test_a_mask_with_a_hole_is_found(scored_of):
    batch = scored_of(torch.tensor([[1, 0, 1]]), response_ids=torch.tensor([[1, 2, 9]]))
    assert "have a hole in their mask" in check_ends(batch, [EOS], PAD, 3).failure


@pytest.mark.parametrize(("pad", "says"), [(EOS, "are one token, distinguished by masks"), (PAD, "are two tokens")])
def test_eos_and_pad_may_be_one_token_and_it_is_reported(pad, says, scored_of):
    check = check_ends(responses([[1, 9, pad]], [2], [True], scored_of), [EOS], pad, 3)
    assert check.failure == ""
    assert says in check.result


@pytest.mark.parametrize("name", ["rewards", "values", "returns", "advantages"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_found_inside_the_mask_alone(name, bad, experience_of):
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    batch = experience_of(mask, mask.float(), mask.float(), values=torch.zeros(2, 3), rewards=torch.zeros(2, 3))
    assert check_numbers(batch).failure == ""
    broken = getattr(batch, name).clone()
    broken[0, 1] = bad
    check = check_numbers(replace(batch, **{name: broken}))
    assert check.result == f"1 of 5 {name} are not finite"
    assert check.failure


def test_advantages_have_the_mask_s_shape_and_nothing_outside(experience_of):
    mask = torch.tensor([[1, 1, 0]])
    assert "are not 0" in check_numbers(experience_of(mask, torch.ones(1, 3))).result
    assert check_numbers(experience_of(mask, torch.ones(1, 1))).failure.startswith("they must be [1, 3]")
    assert check_numbers(experience_of(mask, mask.float())).failure == ""


def test_each_check_is_a_line_and_a_failure_on_any_process_stops_all():
    said: list[str] = []
    good, bad = Check("a", "fine"), Check("b", "odd", "mend it")
    report_checks([good], said.append, lambda held: held)
    assert said == ["self-check a: fine"]
    with pytest.raises(UserError, match=r"self-check b: odd. FAILED: mend it\n\(ppo.self_checks=false"):
        report_checks([good, bad], said.append, lambda held: held)
    with pytest.raises(UserError, match="on another process"):
        report_checks([good], said.append, lambda held: False)


def test_the_command_says_each_check_and_warns_of_a_scorer_that_pays_nothing(command, world, tmp_path):
    fine = command(*world.ppo("ppo.learning_rate=1e-3"))
    assert fine.code == 0, fine.error
    assert fine.out.count("self-check ") == 7
    off = command(*world.ppo("ppo.learning_rate=1e-3", "ppo.self_checks=false"))
    assert "self-check" not in off.out
    assert off.result()["metrics"] == fine.result()["metrics"], "the checks changed the run"
    lexicon = tmp_path / "nothing.tsv"
    lexicon.write_text("zyzzyva\t2\n")
    words = world.ppo("rollout_scorer=lexicon", f"rollout_scorer.lexicon.path={lexicon}")
    unpaid = command(*words, "ppo.updates=5")
    assert unpaid.code == 0, unpaid.error
    assert "WARNING: every response's score is 0" in unpaid.out
    assert "alarm constant at update 5: in 5 updates running all responses of an update had the same score, the last 0" in unpaid.out


def test_a_scorer_that_pays_one_response_of_many_reads_it(language_model):
    """The best response is among those that other texts are tried for, wherever it stands."""
    policy = Policy(language_model)
    batch = first_batch(policy)
    many = batch.select(torch.arange(len(batch)).repeat(4))
    text = many.responses[3]

    def scorer(rollout: Rollout) -> Tensor:
        return torch.tensor([float(other == text) for other in rollout.responses])

    first = FirstBatch(policy, SAMPLER, scorer)
    assert text not in [many.responses[row] for row in first._rows(many).tolist()], "it is not seen by luck"
    assert first.check_reward(replace(many, scores=scorer(many))).failure == ""
