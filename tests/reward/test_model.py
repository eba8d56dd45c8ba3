"""The reward model: one score whatever the padding, saved and loaded, and the same in plain transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.model import ComposedScore, RewardModel, load_reward_model, trunk_and_tokenizer
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.pooling.mean import mean

TEXTS = [("Review of a lamp:\n", "It is a quiet fan."), ("It", " costs"), ("The kettle", " boils water quickly. It is a quiet fan.")]


@pytest.fixture
def saved_policy(language_model, tmp_path) -> str:
    language_model.save(tmp_path / "policy")
    return str(tmp_path / "policy")


def reward_model(folder: str, pooling=last, head=LinearHead) -> RewardModel:
    torch.manual_seed(0)
    trunk, tokenizer = trunk_and_tokenizer(folder)
    return RewardModel(ComposedScore(trunk, pooling, head(trunk.config.hidden_size)), tokenizer, 64).eval()


@pytest.mark.parametrize("pooling", [last, mean])
@torch.no_grad()
def test_batched_padded_and_single_scores_agree(saved_policy, pooling):
    model = reward_model(saved_policy, pooling)
    together = model.score_texts(*zip(*TEXTS, strict=True))
    alone = torch.cat([model.score_texts([prompt], [response]) for prompt, response in TEXTS])
    ids, mask = model.tokenise(TEXTS)
    longer = torch.nn.functional.pad(ids, (0, 9), value=7), torch.nn.functional.pad(mask, (0, 9))
    assert (together - alone).abs().max() < 1e-5
    assert (together - model(*longer)).abs().max() < 1e-5
    assert together.std() > 1e-3


@torch.no_grad()
def test_the_score_is_read_at_the_end_of_text_even_where_it_is_the_pad(saved_policy):
    """A tokenizer whose pad equals its end-of-text: the mask finds the last token, comparing ids would find the one before."""
    model = reward_model(saved_policy)
    model.tokenizer.pad_token = model.tokenizer.eos_token
    ids, mask = model.tokenise(TEXTS)
    assert (ids == model.tokenizer.eos_token_id).sum() > len(TEXTS)
    hidden = model.net.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
    lengths = [len(model.tokenizer(p)["input_ids"]) + len(model.tokenizer(r)["input_ids"]) + 1 for p, r in TEXTS]
    expected = torch.stack([model.net.head(hidden[i, n - 1]) for i, n in enumerate(lengths)])
    assert (model(ids, mask) - expected).abs().max() < 1e-6
    one_before = torch.stack([model.net.head(hidden[i, n - 2]) for i, n in enumerate(lengths)])
    assert (model(ids, mask) - one_before).abs().max() > 1e-3


@torch.no_grad()
def test_linear_head_exports_to_a_classifier_with_equal_weights_and_scores(saved_policy, tmp_path):
    model = reward_model(saved_policy)
    model.normalise(*zip(*TEXTS, strict=True))
    model.save(tmp_path / "rm", {"head": "linear", "head_settings": {}, "pooling": "last"})
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rm")
    assert classifier.config.num_labels == 1
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    ids, mask = model.tokenise(TEXTS)
    # The classifier multiplies every token by w and picks one product, we the other way round: the last bit may differ.
    assert (classifier.eval()(input_ids=ids, attention_mask=mask).logits[:, 0] - model.net(ids, mask)).abs().max() < 1e-6
    assert torch.equal(classifier.score.weight, model.net.head.weight.weight)
    theirs, ours = classifier.base_model.state_dict(), model.net.trunk.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    again = load_reward_model(str(tmp_path / "rm")).eval()
    assert torch.equal(again(ids, mask), model(ids, mask))


@pytest.mark.parametrize(("name", "head", "settings"), [("mlp", MLPHead, {"hidden": 16}), ("linear", LinearHead, {})])
@pytest.mark.parametrize("pooling", [last, mean])
@torch.no_grad()
def test_any_head_and_pooling_comes_back_bitwise(saved_policy, tmp_path, name, head, settings, pooling):
    model = reward_model(saved_policy, pooling, lambda width: head(width, **settings))
    model.save(tmp_path / "rm", {"head": name, "head_settings": settings, "pooling": pooling.__name__})
    again = load_reward_model(str(tmp_path / "rm")).eval()
    ids, mask = model.tokenise(TEXTS)
    assert torch.equal(again(ids, mask), model(ids, mask))
    AutoModel.from_pretrained(tmp_path / "rm")


@torch.no_grad()
def test_a_plain_classifier_of_transformers_is_a_reward_model_as_it_is(saved_policy, tmp_path):
    classifier = AutoModelForSequenceClassification.from_pretrained(saved_policy, num_labels=1)
    classifier.save_pretrained(tmp_path / "hf")
    AutoTokenizer.from_pretrained(saved_policy).save_pretrained(tmp_path / "hf")
    model = load_reward_model(str(tmp_path / "hf")).eval()
    ids, mask = model.tokenise(TEXTS)
    assert torch.equal(model(ids, mask), classifier.eval()(input_ids=ids, attention_mask=mask).logits[:, 0])


def test_a_classifier_with_two_labels_is_refused(saved_policy, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(saved_policy, num_labels=2).save_pretrained(tmp_path / "two")
    AutoTokenizer.from_pretrained(saved_policy).save_pretrained(tmp_path / "two")
    with pytest.raises(DataError, match="2 labels; a reward model has one"):
        load_reward_model(str(tmp_path / "two"))


@torch.no_grad()
def test_normalised_scores_have_mean_0_and_variance_1_and_twice_is_once(saved_policy):
    model = reward_model(saved_policy)
    prompts, responses = zip(*TEXTS, strict=True)
    for _ in range(2):
        model.normalise(prompts, responses)
        scores = model.score_texts(prompts, responses)
        assert scores.mean().abs() < 1e-5
        assert (scores.std() - 1).abs() < 1e-5


def test_truncation_keeps_the_response_and_is_counted(saved_policy):
    model = reward_model(saved_policy)
    model.max_length = 24
    long_prompt = "The kettle boils water quickly. " * 5
    ids, mask = model.tokenise([(long_prompt, "It costs little.")])
    kept = model.tokenizer.decode(ids[0][mask[0].bool()][:-1])
    assert int(mask.sum()) == 24
    assert kept.endswith("It costs little.")
    assert model.truncated == 1
    ids, mask = model.tokenise([("It", "The kettle boils water quickly. " * 5)])
    assert model.tokenizer.decode(ids[0][mask[0].bool()][:-1]).startswith("The kettle boils")
    assert model.truncated == 2


def test_truncation_of_a_long_response_keeps_the_begin_of_text_and_nothing_of_the_prompt(either_tokenizer, tmp_path):
    either_tokenizer.save(tmp_path / "policy")
    model = reward_model(str(tmp_path / "policy"))
    model.max_length = 12
    response = "The kettle boils water quickly. " * 5
    ids, mask = model.tokenise([("It costs", response)])
    begin = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
    expected = [*begin, *model.tokenizer(response, add_special_tokens=False)["input_ids"]]
    assert ids.tolist() == [[*expected[:11], model.tokenizer.eos_token_id]]
    assert mask.all()


def test_special_token_strings_in_the_text_stay_text(saved_policy):
    model = reward_model(saved_policy)
    ids, mask = model.tokenise([("It", "<|end|><|pad|> costs")])
    inside = ids[0][mask[0].bool()].tolist()
    assert inside.count(model.tokenizer.eos_token_id) == 1
    assert inside[-1] == model.tokenizer.eos_token_id
    assert model.tokenizer.pad_token_id not in inside
