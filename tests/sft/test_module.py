"""Supervised fine-tuning against the loss of transformers, and the loader's masks."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.schedule.constant import constant
from rlhf_lightning.sft.module import SFTModule, demonstration_loader
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.tokenization.boundary import plain_ids
from rlhf_lightning.training.optimizer import Optimization

DEMONSTRATIONS = [
    ("Review of a lamp:\n", "It is a quiet fan."),
    ("It", " costs"),
    ("The kettle", " boils water quickly. It is a quiet fan."),
    ("", "It costs little."),
    ("a quiet", " <|end|> fan"),
]


def loader_of(language_model: LanguageModel, demonstrations=DEMONSTRATIONS, rank=0, world=1, seed=0, **settings):
    rows = [Demonstration(*pair) for pair in demonstrations]
    return demonstration_loader(rows, language_model, SFTSettings(**{"batch_size": 5, **settings}), seed, rank, world)


def padded(batch: PackedTokens) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, L] right-padded ids and the mask of the tokens that are learned."""
    ids, mask = batch.to_padded()
    return ids, mask * (torch.arange(ids.shape[1]) >= batch.response_start[:, None])


def test_the_loss_is_the_cross_entropy_of_transformers_with_the_prompt_masked(either_tokenizer, language_model):
    for model in (either_tokenizer, language_model):
        loader, skipped = loader_of(model)
        (batch,) = list(loader)
        ids, is_response = padded(batch)
        assert skipped == 0
        attended = torch.zeros_like(ids)
        for row, inside in zip(attended, is_response, strict=True):
            row[: int(inside.nonzero().max()) + 1] = 1
        labels = ids.masked_fill(is_response == 0, -100)
        theirs = model.model(input_ids=ids, attention_mask=attended, labels=labels).loss
        module = SFTModule(model, SFTSettings(), steps=10)
        ours = module.training_step(batch, 0)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert module.history == [{"sft/loss": ours.item()}]
        found, expected = (torch.autograd.grad(loss, module.log_probs_of.model.get_input_embeddings().weight)[0] for loss in (ours, theirs))
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_mask_covers_the_response_and_its_end_alone(either_tokenizer):
    tokenizer, end = either_tokenizer.tokenizer, either_tokenizer.eos_ids[-1]
    begins = tokenizer.bos_token_id is not None
    ids, is_response = padded(*loader_of(either_tokenizer)[0])
    found = set()
    for row, inside in zip(ids, is_response, strict=True):
        learned = row[inside.bool()].tolist()
        places = inside.nonzero().flatten().tolist()
        assert places == list(range(places[0], places[-1] + 1))
        before = row[: places[0]].tolist()
        assert before[0] == tokenizer.bos_token_id or not begins
        assert end not in before
        assert learned[-1] == end
        assert learned.count(end) == 1
        found.add((tokenizer.decode(before[begins:]), tokenizer.decode(learned[:-1])))
    if begins:
        assert found == set(DEMONSTRATIONS)
    else:  # nothing predicts the first token of all
        first = plain_ids(tokenizer, "It costs little.")[0]
        start = tokenizer.decode([first])
        assert found == {*(set(DEMONSTRATIONS) - {DEMONSTRATIONS[3]}), (start, "It costs little.".removeprefix(start))}


def test_what_is_too_long_is_left_out_and_counted(either_tokenizer):
    lengths = [len(plain_ids(either_tokenizer.tokenizer, *pair)) + 1 for pair in DEMONSTRATIONS]
    for limit in sorted(lengths):
        loader, skipped = loader_of(either_tokenizer, max_length=limit)
        ids, _ = padded(*loader)
        assert skipped == sum(length > limit for length in lengths)
        assert ids.shape == (5 - skipped, limit)
    too_long = [("It", " costs" * 80)]
    assert loader_of(either_tokenizer, DEMONSTRATIONS + too_long)[1] == 1  # the model has 64 positions, whatever max_length says
    with pytest.raises(DataError, match=r"none of 1 demonstrations fits 64 tokens"):
        loader_of(either_tokenizer, too_long)


def test_processes_share_every_batch_evenly(tiny_of):
    language_model = tiny_of("llama")
    demonstrations = [(f"p{i}", f" r{i}") for i in range(13)]

    def texts(loader) -> list[list[str]]:
        return [language_model.decode(*batch.to_padded()) for batch in loader]

    shares = [texts(loader_of(language_model, demonstrations, rank, 3, batch_size=6)[0]) for rank in range(3)]
    assert sorted(tuple(map(len, share)) for share in shares) == [(2, 2, 1)] * 3, "who has no row of a batch gets one that counts nothing"
    whole = loader_of(language_model, demonstrations, batch_size=6)[0]
    first = texts(whole)
    for number, batch in enumerate(first[:-1]):
        assert sorted(text for share in shares for text in share[number]) == sorted(batch)
    whole.batch_sampler.set_epoch(1)
    second = texts(whole)
    for epoch in (first, second):
        assert sorted(text for batch in epoch for text in batch) == sorted(p + r for p, r in demonstrations)
    assert first != second
    assert texts(loader_of(language_model, demonstrations, batch_size=6)[0]) == first
    assert texts(loader_of(language_model, demonstrations, batch_size=6, seed=1)[0]) != first
    (_, _, last) = loader_of(language_model, demonstrations, 1, 3, batch_size=6)[0]
    assert (last.response_start == last.lengths).all()


def test_a_demonstration_is_learned(tiny_of):
    language_model = tiny_of("gpt2")
    module = SFTModule(language_model, SFTSettings(learning_rate=3e-3), steps=80)
    module.optimization = Optimization(schedule=partial(constant, warmup=0))
    (batch,) = list(loader_of(language_model, DEMONSTRATIONS[:3])[0])
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(80):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    assert module.history[-1]["sft/loss"] < 0.1 < 1.0 < module.history[0]["sft/loss"]
    prompts = language_model.encode_prompts(["It"], 5)
    written = language_model.model.generate(prompts.prompt_ids, attention_mask=prompts.prompt_mask, do_sample=False, max_new_tokens=12)
    assert language_model.tokenizer.decode(written[0], skip_special_tokens=True) == "It costs"
