"""Reward modelling: the loss by hand, the loader's shares, and the held-out metrics by brute force."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import collate
from rlhf_lightning.feedback.grouping import PromptGroups
from rlhf_lightning.feedback.judgements import Judged, Judgements, standardise
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Edit, Feedback, Message, Ranking, Rating, SpanLabel, Spans, Thumbs
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.head.ensemble import EnsembleHead
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating
from rlhf_lightning.reward.loss.plackett_luce import PlackettLuce
from rlhf_lightning.reward.loss.thumbs import LogisticThumbs
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.module import (
    RewardModule,
    bootstrap_batches,
    center_ensemble_members,
    check_kinds,
    check_pooling,
    feedback_loader,
    learned_kinds,
    poisson_counts,
    text_keys,
)
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.cls import cls
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.settings import RewardSettings
from rlhf_lightning.reward.tuning.frozen import frozen
from rlhf_lightning.schedule.anneal import anneal
from rlhf_lightning.training.optimizer import Optimization

TOKENIZER = byte_level_bpe([], 270)


class BagScore(nn.Module):
    """The sum of a number for each token: a reward model at no cost."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(len(TOKENIZER), generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens: PackedTokens) -> Tensor:
        ids, mask = tokens.to_padded()
        return (self.table[ids] * mask).sum(1)


def bag() -> RewardModel:
    return RewardModel(BagScore(), TOKENIZER)


def score(model: RewardModel, text: str) -> float:
    return float(model.net.table.detach()[TOKENIZER(text)["input_ids"]].sum() + model.net.table.detach()[TOKENIZER.eos_token_id])


def ranked(prompt: str, texts: Sequence[str], ranks: Sequence[int], **fields) -> Feedback:
    margin = fields.pop("margin", None)
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(ranks), margin=margin), **fields)


def edited(prompt: str, before: str, after: str, **fields) -> Feedback:
    return Feedback(prompt=prompt, responses=(before, after), judgement=Edit(), **fields)


def rated(prompt: str, text: str, value: float, **fields) -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Rating(value=value, scale=(0, 10)), **fields)


def module_of(model: RewardModel, losses: Sequence[nn.Module], **settings) -> RewardModule:
    return RewardModule(model, losses, RewardSettings(**settings), steps=10)


def loss_of(model: RewardModel, losses: Sequence[nn.Module], records: Sequence[Feedback]) -> Tensor:
    return module_of(model, losses).training_step(collate(standardise(records), model), 0)


def test_the_loss_is_the_weighted_sum_over_all_kinds_by_hand():
    model, gaussian = bag(), GaussianRating()
    with torch.no_grad():
        gaussian.log_slope.fill_(math.log(0.3))
        gaussian.offset.fill_(0.1)
        gaussian.log_spread.fill_(math.log(1.7))
        model.net.table.mul_(0.2)
        model.mean.fill_(0.4)
        model.deviation.fill_(2.0)
    records = [
        ranked("p", ["ab", "c"], [1, 0], margin=0.8, weight=2.0),
        edited("p", "ab", "d", weight=0.5),
        ranked("p", ["c", "d", "e", "ab"], [0, 1, 1, 3], weight=1.5),
        rated("p", "ab", 2.0, weight=3.0),
        rated("q", "c", 6.0),
        edited("q", "f", "f", weight=9.0),  # an approval, and what is tied throughout: nothing to learn
        ranked("q", ["f", "g", "h"], [1, 1, 1], weight=9.0),
    ]

    def s(prompt: str, text: str) -> float:
        return score(model, prompt + text)  # before it is normalised

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    pair = -math.log(sigmoid(s("p", "c") - s("p", "ab") - 0.5 * 0.8)) + 0.02 * (s("p", "c") + s("p", "ab")) ** 2
    edit = -math.log(sigmoid(s("p", "d") - s("p", "ab"))) + 0.02 * (s("p", "d") + s("p", "ab")) ** 2
    e = {text: math.exp(s("p", text)) for text in ("c", "d", "e", "ab")}
    below = e["d"] + e["e"] + e["ab"]
    ranking = -math.log(e["c"] / sum(e.values())) - math.log(e["d"] / below) - math.log(e["e"] / below)
    ratings = [
        0.5 * ((z - 0.3 * s(*text) - 0.1) / 1.7) ** 2 + math.log(1.7 * math.sqrt(2 * math.pi))
        for z, text in ((-1.0, ("p", "ab")), (1.0, ("q", "c")))
    ]
    expected = (2 * pair + 0.5 * edit + 1.5 * ranking + 3 * ratings[0] + ratings[1]) / (2 + 0.5 + 1.5 + 3 + 1)
    found = loss_of(model, [BradleyTerry(margin_coef=0.5, centering=0.02), PlackettLuce(), gaussian], records)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in (*gaussian.parameters(), model.net.table))


def test_a_weight_is_a_count():
    records = [ranked("p", ["a", "b"], [0, 1], weight=3.0), edited("p", "b", "c"), rated("p", "a", 3, weight=2.0), rated("p", "b", 5)]
    counted = [ranked("p", ["a", "b"], [0, 1])] * 3 + [edited("p", "b", "c")] + [rated("p", "a", 3)] * 2 + [rated("p", "b", 5)]
    # z-scores don't know weights; these are the same for both.
    same = dict(zip(("a", "b"), (-1.0, 1.0), strict=True))
    losses, model = [BradleyTerry(), PlackettLuce(), GaussianRating()], bag()
    found = [
        module_of(model, losses).training_step(
            collate(
                [Judged(group, i, same[r.responses[0]] if isinstance(r.judgement, Rating) else None) for i, r in enumerate(group)], model
            ),
            0,
        )
        for group in (records, counted)
    ]
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-6)


def test_a_batch_that_says_nothing_costs_nothing_and_has_a_gradient_of_zero():
    model = bag()
    loss = loss_of(model, [BradleyTerry(), PlackettLuce(), GaussianRating()], [edited("p", "a", "a"), ranked("p", ["a", "b"], [1, 1])])
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(model.net.table.grad, torch.zeros_like(model.net.table))


def test_sides_may_be_swapped_and_a_swapped_verdict_flips_the_loss():
    model = bag()
    pair = ranked("p", ["ab", "c"], [0, 1])
    swapped, flipped = ranked("p", ["c", "ab"], [1, 0]), ranked("p", ["ab", "c"], [1, 0])
    losses = [BradleyTerry()]
    difference = score(model, "pab") - score(model, "pc")
    assert loss_of(model, losses, [swapped]).item() == loss_of(model, losses, [pair]).item()
    assert (loss_of(model, losses, [pair]) - loss_of(model, losses, [flipped])).item() == pytest.approx(-difference, rel=1e-5)
    assert loss_of(model, losses, [edited("p", "c", "ab")]).item() == loss_of(model, losses, [pair]).item()


def test_the_history_has_the_loss_and_the_spread_of_the_scores():
    model = bag()
    module = module_of(model, [BradleyTerry()])
    batch = collate(standardise([ranked("p", ["a", "b"], [0, 1]), edited("p", "b", "c")]), model)
    loss = module.training_step(batch, 0)
    scores = torch.tensor([score(model, f"p{text}") for text in "abc"])
    assert module.history == [
        {"reward/loss": pytest.approx(loss.item()), "reward/scores_std": pytest.approx(scores.std(correction=0).item(), rel=1e-5)}
    ]


def test_a_frozen_backbone_stays_and_the_head_learns(tiny_of, tmp_path):
    tiny_of("llama").save(tmp_path / "policy")
    trunk, tokenizer = load_trunk(str(tmp_path / "policy"))
    model = RewardModel(ComposedScore(trunk, last, LinearHead(trunk.config.hidden_size)), tokenizer, 64)
    frozen(trunk)
    module = module_of(model, [BradleyTerry()], learning_rate=0.05)
    module.optimization = Optimization(schedule=partial(anneal, warmup=0))
    batch = collate(standardise([ranked("It", [" costs", " boils"], [0, 1])]), model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(5):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"net.head.weight.weight"}
    assert module.history[-1]["reward/loss"] < module.history[0]["reward/loss"]


@pytest.fixture
def composed(tiny_of, tmp_path):
    """A reward model of the tiny Llama with the given head and pooling."""
    tiny_of("llama").save(tmp_path / "policy")

    def make(head: nn.Module, pooling=last) -> RewardModel:
        trunk, tokenizer = load_trunk(str(tmp_path / "policy"))
        return RewardModel(ComposedScore(trunk, pooling, head), tokenizer, 64).eval()

    return make


@pytest.mark.parametrize("bootstrap", [False, True])
def test_each_member_of_an_ensemble_learns_by_itself(composed, bootstrap):
    """The loss is the mean over members of what each would have alone on its judgements, and so is each member's gradient."""
    torch.manual_seed(0)
    head = EnsembleHead(32, members=3, bootstrap=bootstrap, seed=2)
    model, losses = composed(head), [BradleyTerry(), GaussianRating()]
    records = [ranked(f"It {i}", [" costs", " boils"], [i % 2, 1 - i % 2], weight=1.0 + i) for i in range(6)]
    records += [rated("A fan", " costs", 3), rated("It", " boils", 7)]
    batch = collate(standardise(records), model)
    loss = module_of(model, losses).training_step(batch, 0)
    loss.backward()
    parts = list(bootstrap_batches(batch, 3, seed=2)) if bootstrap else [batch] * 3
    weight = sum((part.pairs.weight.sum() + part.ratings.weight.sum()).item() for part in parts)
    assert (weight != 3 * 23) == bootstrap
    total = 0.0
    for member, part in zip(head.members, parts, strict=True):
        alone = composed(member)
        gradient, member.weight.weight.grad = member.weight.weight.grad, None
        own = (part.pairs.weight.sum() + part.ratings.weight.sum()).item()
        found = module_of(alone, losses).training_step(part, 0)
        found.backward()
        assert torch.allclose(gradient, member.weight.weight.grad * own / weight, atol=1e-6)
        total += found.item() * own
    assert loss.item() == pytest.approx(total / weight, rel=1e-5)


@torch.no_grad()
def test_members_are_levelled_on_the_training_texts(composed):
    head = EnsembleHead(32, members=3)
    model = composed(head)
    texts = [("It", " costs"), ("It", " boils water quickly."), ("A fan", ""), ("The kettle", " is quiet")]
    for _ in range(2):
        center_ensemble_members(model, texts, batch_size=3)
        members = model.raw_scores(model.tokenise(texts)).members
        assert members.mean(1).abs().max() < 1e-5
        assert (members.std(1) > 1e-3).all()
    assert head.level.abs().min() > 1e-4
    center_ensemble_members(bag(), texts)  # nothing to do


def test_the_first_token_of_a_decoder_is_refused(composed):
    model = composed(LinearHead(32), cls)
    training = {module: module.training for module in model.modules()}
    with pytest.raises(ConfigError, match=r"reward_pooling=cls reads the first token, .*choose reward_pooling=last"):
        check_pooling(model)
    assert {module: module.training for module in model.modules()} == training
    check_pooling(composed(LinearHead(32), last))
    check_pooling(bag())


@torch.no_grad()
def test_the_first_token_of_an_encoder_is_taken(composed):
    from transformers import BertConfig, BertModel

    model = composed(LinearHead(32), cls)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(model.tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model.net.trunk = BertModel(config, add_pooling_layer=False).eval()
    check_pooling(model)


def test_a_kind_that_no_loss_learns_from_is_refused():
    judged = standardise(
        [ranked("p", ["a", "b"], [0, 1]), edited("p", "a", "b"), ranked("p", ["a", "b", "c"], [0, 1, 2]), rated("p", "a", 1)]
    )
    every = [BradleyTerry(), PlackettLuce(), GaussianRating()]
    assert learned_kinds(every) == {"pair", "edit", "ranking", "rating"}
    check_kinds(every, judged)
    check_kinds([BradleyTerry()], judged[:2])
    for left_out, kind in zip(every, ("edit", "ranking", "rating"), strict=True):
        rest = [loss for loss in every if loss is not left_out]
        with pytest.raises(ConfigError, match=f"kind '{kind}', and none of reward_loss=.{type(rest[0]).__name__}"):
            check_kinds(rest, judged)


def test_spans_that_nothing_learns_from_are_refused_and_thumbs_and_ties_are_not():
    thumbs, spans = (Feedback(prompt="p", responses=("a",), judgement=said) for said in (Thumbs(up=True), Spans(spans=())))
    every = [BradleyTerry(), PlackettLuce(), GaussianRating(), LogisticThumbs()]
    check_kinds(every, standardise([thumbs, ranked("p", ["a", "b"], [0, 0])]))
    with pytest.raises(ConfigError, match="kind 'spans'"):
        check_kinds(every, standardise([thumbs, spans]))


def numbered(prompts: int, most: int) -> Judgements:
    """1 to `most` judgements on each prompt, mixed up; the rating and its weight say which prompt it was."""
    records = [rated(f"prompt {i}", f"r{j}", 5, weight=i + 1.0) for i in range(prompts) for j in range(i % most + 1)]
    random.Random(0).shuffle(records)
    return standardise(records)


def prompts_of(loader) -> list[list[int]]:
    """The prompt of each judgement, by batch."""
    return [[int(weight) - 1 for weight in batch.ratings.weight] for batch in loader]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_loader_keeps_prompts_together_and_gives_each_process_an_even_share(world):
    judged, size = numbered(prompts=60, most=4), 30
    shares = [prompts_of(feedback_loader(judged, bag(), size, seed=0, rank=rank, world=world)) for rank in range(world)]
    said = {i: i % 4 + 1 for i in range(60)}
    for share in shares:
        assert len(share) == len(shares[0])  # else the process with a batch more waits for the others for ever
        for batch in share:
            assert all(batch.count(i) == said[i] for i in batch)
    seen = [i for share in shares for batch in share for i in set(batch)]
    assert sorted(seen) == list(range(60))
    together = [sum(map(len, batches)) for batches in zip(*shares, strict=True)]
    assert sum(together) == len(judged) == 150
    assert sum(together[:-1]) / len(together[:-1]) == pytest.approx(size, rel=0.25)


@pytest.mark.parametrize(("prompts", "world"), [(61, 3), (5, 2), (9, 4)])
def test_prompts_that_do_not_divide_leave_every_process_as_many_batches(prompts, world):
    judged = numbered(prompts, most=2)
    shares = [prompts_of(feedback_loader(judged, bag(), world, seed=0, rank=rank, world=world)) for rank in range(world)]
    assert len(set(map(len, shares))) == 1
    assert {i for share in shares for batch in share for i in batch} - {-1} == {*range(prompts)}, "a blank batch weighs 0"


def test_an_epoch_has_an_order_of_its_own_that_the_seed_decides():
    judged = numbered(prompts=40, most=3)

    def epochs(seed: int) -> list[list[list[int]]]:
        loader = feedback_loader(judged, bag(), 10, seed=seed, rank=0, world=1)
        first = prompts_of(loader)
        loader.batch_sampler.set_epoch(1)
        return [first, prompts_of(loader)]

    first, second = epochs(0)
    assert first != second
    assert epochs(0) == [first, second]
    assert epochs(1)[0] != first


def test_a_prompt_with_more_judgements_than_a_batch_is_spread_over_several():
    judged = standardise([rated("p", f"r{i}", i % 10, weight=i + 1.0) for i in range(25)])
    batches = prompts_of(feedback_loader(judged, bag(), 10, seed=0, rank=0, world=1))
    assert max(map(len, batches)) <= 10
    assert sorted(i for batch in batches for i in batch) == list(range(25))


def test_the_loader_reads_a_file_as_it_reads_a_list(tmp_path):
    judged = numbered(prompts=12, most=3)
    file = FeedbackFile.write(judged.source, tmp_path / "feedback.jsonl")
    loaders = [feedback_loader(standardise(source), bag(), 8, seed=0, rank=0, world=1) for source in (judged.source, file)]
    assert prompts_of(loaders[0]) == prompts_of(loaders[1])


def test_a_prompt_as_text_and_as_chat_is_one_prompt_and_two_texts():
    said = (Message(role="user", content="p"),)
    records = [ranked("User: p\nAssistant:", ["a", "b"], [0, 1]), ranked(said, ["a", "b"], [0, 1]), rated(said, "b", 1), rated("q", "c", 2)]
    judged = standardise(records)
    groups = PromptGroups(judged.rows["prompt"], 3)
    assert [rows.tolist() for rows in groups] == [[0, 1, 2], [3]]
    assert len(collate(judged.select(groups[0]), bag()).tokens) == 4


def test_stretches_are_looked_for_where_a_loss_learns_from_them():
    marked = Feedback(prompt="p", responses=("abc",), judgement=Spans(spans=(SpanLabel(start=1, end=2, value=-1.0),)))
    judged = standardise([marked, edited("q", "a b", "a c")])
    for kinds, expected in ((["edit"], 0), (["spans", "edit"], 3)):
        batches = feedback_loader(judged, bag(), 8, seed=0, rank=0, world=1, kinds=kinds)
        assert sum(len(batch.spans) for batch in batches) == expected


def test_a_process_without_a_prompt_of_a_batch_takes_part_without_a_say():
    judged = numbered(prompts=3, most=2)
    (batch,) = feedback_loader(judged, bag(), 100, seed=0, rank=3, world=4)
    assert len(batch.tokens) > 0
    assert float(sum(kind.weight.sum() for kind in (batch.pairs, batch.ties, batch.orders, batch.ratings, batch.thumbs))) == 0.0


def test_draws_are_poisson_and_independent_of_each_other():
    size = 200_000
    drawn = poisson_counts(torch.arange(size), 3, seed=0)
    for member in drawn:
        for count in range(5):
            share = (member == count).float().mean().item()
            expected = math.exp(-1) / math.factorial(count)
            assert abs(share - expected) < 5 * math.sqrt(expected / size)
    between = torch.corrcoef(torch.cat([drawn, poisson_counts(torch.arange(size), 1, seed=1)]))
    assert (between - torch.eye(4)).abs().max() < 5 / math.sqrt(size)
    assert torch.equal(poisson_counts(torch.arange(9), 3, seed=0), drawn[:, :9])


def test_a_key_is_the_prompt_s_tokens():
    rows = [[1, 2, 3, 7, 8], [1, 2, 3, 9], [1, 3, 2, 7, 8], [1, 2, 7, 8], [2, 1, 3, 7]]
    keys = text_keys(PackedTokens.of(rows, [3, 3, 3, 2, 3])).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert text_keys(PackedTokens.of(rows[3:], [2, 3])).tolist() == keys[3:]  # whatever else is in the batch


def test_a_key_is_the_encoder_s_text_where_there_is_one():
    context = PackedTokens.of([[5, 6], [5, 6], [6, 5]])
    keys = text_keys(PackedTokens.of([[0, 1], [0, 2], [0, 1]], [1, 1, 1], context=context)).tolist()
    assert keys[0] == keys[1] != keys[2]


def test_every_kind_is_weighed_by_its_prompt_s_draw(batch_with):
    index = torch.tensor
    batch = batch_with(
        pairs={"better": index([0, 2]), "worse": index([1, 3]), "weight": torch.tensor([1.0, 3.0])},
        orders={"items": index([[2, 3, 2, -1]]), "levels": index([[0, 1, 2, -1]])},
        ratings={"item": index([3, 1]), "weight": torch.tensor([2.0, 2.0])},
        thumbs={"item": index([1])},
    )
    batch.tokens = PackedTokens.of([[1, 5], [1, 6], [2, 5], [2, 6]], [1, 1, 1, 1])
    members = list(bootstrap_batches(batch, 40, seed=3))
    drawn = poisson_counts(text_keys(batch.tokens), 40, seed=3)
    assert drawn[:, 0].tolist() != drawn[:, 2].tolist()
    for member, (one, _, two, _) in zip(members, drawn.tolist(), strict=True):
        assert member.pairs.weight.tolist() == [one, 3 * two]
        assert member.orders.weight.tolist() == [two]
        assert member.ratings.weight.tolist() == [2 * two, 2 * one]
        assert member.thumbs.weight.tolist() == [one]
        assert len(member.ties.weight) == 0
        assert torch.equal(member.ratings.item, batch.ratings.item)
    assert batch.pairs.weight.tolist() == [1.0, 3.0]
    again = bootstrap_batches(batch, 40, seed=3)
    assert all(torch.equal(a.pairs.weight, b.pairs.weight) for a, b in zip(members, again, strict=True))
    assert sum(m.pairs.weight[0].item() for m in members) / 40 == pytest.approx(1, abs=0.6)


def test_texts_are_drawn_where_prompts_tell_nothing(batch_with):
    batch = batch_with(ratings={"item": torch.arange(40)})
    batch.tokens = PackedTokens.of([[1, 5 + i] for i in range(40)], [1] * 40)
    by_prompt = next(bootstrap_batches(batch, 1, seed=0)).ratings.weight
    by_text = next(bootstrap_batches(batch, 1, seed=0, by_text=True)).ratings.weight
    assert len(set(by_prompt.tolist())) == 1
    assert len(set(by_text.tolist())) > 2
    assert by_text.mean().item() == pytest.approx(1, abs=0.5)
