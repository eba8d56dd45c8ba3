"""A T5 and a BART as policies: one log-probability whoever takes it, values from the decoder, and adapters beside both sides."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.policy.critic.separate import separate as separate_critic
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.model import Policy, reference_policy
from rlhf_lightning.policy.tuning.lora import lora
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers

PROMPTS = ["It", "Review of a lamp:", "The kettle boils water", "a quiet fan, and it costs"]


@pytest.fixture(params=["t5", "bart"])
def seq2seq(request, trunk_folder):
    language_model = encoder_decoder([], path=trunk_folder(request.param))
    language_model.model.eval()
    # An untrained model hardly ever ends: here a fifth of the vocabulary does.
    language_model.model.generation_config.eos_token_id = [language_model.tokenizer.eos_token_id, *range(20, 38)]
    return language_model


def rollout_of(language_model, sampler=native, **settings):
    torch.manual_seed(1)
    return sampler(language_model, language_model.encode_prompts(PROMPTS, 10).repeat(3), max_new_tokens=10, **settings)


def by_transformers(language_model, rollout, i):
    """Logits [T, V] that predict row i's response, unpadded, by the model's own forward."""
    prefix = language_model.decoder_prefix
    prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
    response = rollout.response_ids[i][rollout.response_mask[i].bool()]
    ids = torch.cat([torch.tensor(prefix), response])
    said = language_model.model(input_ids=prompt[None], decoder_input_ids=ids[None], output_hidden_states=True)
    return said.logits[0, len(prefix) - 1 : -1] / rollout.temperature, response, said.decoder_hidden_states[-1][0, len(prefix) - 1 : -1]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_sampler_policy_and_transformers_agree(seq2seq, temperature):
    rollout = rollout_of(seq2seq, temperature=temperature)
    assert len({int(n) for n in rollout.response_mask.sum(1)}) > 2, "rows must end at different steps"
    policy = Policy(seq2seq, shared_critic(seq2seq, None))
    torch.nn.init.normal_(policy.critic.head.weight)
    output = policy(rollout)
    assert (output.log_probs - rollout.sampled_log_probs).abs().max() < 1e-4
    for i in range(len(rollout)):
        logits, response, hidden = by_transformers(seq2seq, rollout, i)
        expected = torch.distributions.Categorical(logits=logits)
        assert torch.allclose(output.log_probs[i, : len(response)], expected.log_prob(response), atol=1e-4)
        assert torch.allclose(output.entropy[i, : len(response)], expected.entropy(), atol=1e-4)
        assert torch.allclose(output.values[i, : len(response)], policy.critic.head(hidden)[:, 0], atol=1e-3)


@torch.no_grad()
def test_greedy_is_the_greedy_of_generate(seq2seq):
    prompts = seq2seq.encode_prompts(PROMPTS, 10)
    ours = native(seq2seq, prompts, max_new_tokens=10, temperature=0)
    begin = torch.tensor(seq2seq.decoder_prefix).repeat(len(PROMPTS), 1)
    theirs = seq2seq.model.generate(
        input_ids=prompts.prompt_ids, attention_mask=prompts.prompt_mask, decoder_input_ids=begin, do_sample=False, num_beams=1,
        max_new_tokens=10, forced_eos_token_id=None, forced_bos_token_id=None,
    )[:, begin.shape[1] :]  # fmt: skip
    for row, other, mask in zip(ours.response_ids, theirs, ours.response_mask.bool(), strict=True):
        assert row[mask].tolist() == other[: int(mask.sum())].tolist()


@torch.no_grad()
def test_transformers_sampler_gives_the_policys_log_probs(seq2seq):
    rollout = rollout_of(seq2seq, transformers)
    assert (Policy(seq2seq)(rollout).log_probs - rollout.sampled_log_probs).abs().max() < 1e-4


@torch.no_grad()
def test_padding_and_its_side_change_nothing(seq2seq):
    rollout = rollout_of(seq2seq)
    pad = torch.nn.functional.pad
    moved = replace(rollout, prompt_ids=pad(rollout.prompt_ids, (3, 2), value=7), prompt_mask=pad(rollout.prompt_mask, (3, 2)))
    assert torch.equal(Policy(seq2seq)(moved).log_probs, Policy(seq2seq)(rollout).log_probs)
    torch.manual_seed(1)
    again = native(seq2seq, moved, max_new_tokens=10)
    assert torch.equal(again.response_ids, rollout.response_ids)


@pytest.mark.parametrize("separate", [False, True])
def test_a_separate_critic_has_a_model_of_its_own(seq2seq, separate):
    policy = Policy(seq2seq, (separate_critic if separate else shared_critic)(seq2seq, None))
    torch.nn.init.normal_(policy.critic.head.weight)
    policy(rollout_of(seq2seq)).values.sum().backward()
    assert any(p.grad is not None and (p.grad != 0).any() for p in seq2seq.model.parameters()) != separate


def test_adapters_off_are_the_start(seq2seq):
    pytest.importorskip("peft")
    start = Policy(copy.deepcopy(seq2seq))
    lora(seq2seq.model, rank=4)
    assert not seq2seq.model.get_output_embeddings().weight.requires_grad
    assert isinstance(seq2seq.model.get_output_embeddings(), torch.nn.Linear)
    rollout, policy, reference = rollout_of(seq2seq), Policy(seq2seq), reference_policy(seq2seq, seq2seq)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        policy(rollout).log_probs.sum().backward()
        optimizer.step()
    with torch.no_grad():
        assert (policy(rollout).log_probs - start(rollout).log_probs).abs().max() > 0.01
        assert (reference(rollout).log_probs - start(rollout).log_probs).abs().max() <= 1e-6
