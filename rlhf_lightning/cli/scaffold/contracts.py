"""For each group the option that a new one begins from, and a test of what the group's contract promises of it."""

from __future__ import annotations

from typing import NamedTuple

TEST = '''"""{group}={name}: begun by `rlhf-lightning new`; say here what yours does."""

from __future__ import annotations

# imports
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from pathlib import Path
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.registry import component_of, load_components, make, option
from typing import Any
# end

load_components([Path(__file__).parent])


def made(*given: Any, **settings: Any) -> Any:
    """The component with these settings, given what it is given at run time."""
    return make("{group}", "{name}", settings, *given)


def composed(*words: str) -> DictConfig:
    """The configuration of a command."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


def test_it_is_an_option() -> None:
    config = composed("{group}={chosen}")
    assert component_of({node}) is option("{group}", "{name}")
    assert Path(option("{group}", "{name}").file) == Path(__file__).with_name("{name}.py")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no setting 'nothing_of_this_name'"):
        made(nothing_of_this_name=1)
'''


class Contract(NamedTuple):
    """What a group's new component begins from and is tested for.

    Attributes:
        like: an option of the group.
        test: functions, in which NAME is the new name.
        imports: what they need beyond TEST's.
    """

    like: str
    test: str
    imports: str = "import torch"


PER_TOKEN = """
def test_each_token_has_its_own_and_what_is_outside_the_mask_none() -> None:
    record = experience()
    given = record.{field}.clone().requires_grad_()
    per_token, metrics = made()(record, given)
    assert per_token.shape == record.response_mask.shape
    per_token.sum().backward()
    assert torch.isfinite(given.grad).all()
    assert (given.grad[record.response_mask == 0] == 0).all()
    assert all(value.numel() == 1 for value in metrics.values())
"""
RECORD = "import torch\nfrom rlhf_lightning.cli.scaffold.records import experience"
SCORED = "import torch\nfrom rlhf_lightning.cli.scaffold.records import scored_rollout"
MODEL = "from rlhf_lightning.cli.scaffold.records import small_model"
TUNED = """
def test_some_weight_is_trained() -> None:
    model = torch.nn.Linear(3, 2).requires_grad_(False)
    made()(model)
    assert any(weight.requires_grad for weight in model.parameters())
"""

CONTRACTS = {
    "stage": Contract(
        "inspect",
        '''
def test_it_runs_and_returns_a_number(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"The lamp {i}:", "chosen": "good", "rejected": "bad"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\\n" for row in rows))
    source = ["feedback_source=jsonl", f"feedback_source.jsonl.path={file}", "feedback_format=[pairwise]"]
    run = Run(composed("stage=NAME", "logger=none", *source), tmp_path)
    check(run.config)
    assert made()(run) == 3
''',
        "import json\nfrom rlhf_lightning.runtime.composition import check\nfrom rlhf_lightning.runtime.run import Run",
    ),
    "task": Contract(
        "files",
        '''
def test_held_out_prompts_are_no_training_prompts(tmp_path: Path) -> None:
    prompts = [f"The lamp {i}:" for i in range(30)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\\n" for prompt in prompts))
    task = made(prompts=str(tmp_path / "prompts.jsonl"), test_fraction=0.3)
    assert task.train_prompts()
    assert task.test_prompts()
    assert sorted(task.train_prompts() + task.test_prompts()) == sorted(prompts)
''',
        "import json",
    ),
    "backbone": Contract(
        "causal",
        '''
def test_it_is_a_language_model(tmp_path: Path) -> None:
    model = small_model()
    model.save(tmp_path)
    loaded = made(["a text"], path=str(tmp_path))()
    assert loaded.width == model.width
    assert loaded.tokenizer("a good lamp")["input_ids"] == model.tokenizer("a good lamp")["input_ids"]
''',
        MODEL,
    ),
    "feedback_source": Contract(
        "jsonl",
        '''
def test_it_reads_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\\n{"prompt": "b"}\\n')
    assert [row.data for row in made(path=str(tmp_path / "rows.jsonl"))()] == [{"prompt": "a"}, {"prompt": "b"}]
''',
        "",
    ),
    "feedback_format": Contract(
        "edit",
        '''
def test_it_reads_its_rows_and_leaves_others() -> None:
    (feedback,) = made()(Row({"prompt": "The lamp:", "response": "bad", "edit": "good"}, "here:1"))
    assert (feedback.prompt, feedback.responses) == ("The lamp:", ("bad", "good"))
    assert made()(Row({"prompt": "The lamp:", "response": "bad"}, "here:2")) is None
''',
        "from rlhf_lightning.feedback.row import Row",
    ),
    "feedback_filter": Contract(
        "length",
        '''
def test_what_it_removes_is_counted() -> None:
    records = [Feedback(prompt="The lamp:", responses=(text, "bad"), judgement=Ranking(ranks=(0, 1))) for text in ("good", "too long")]
    done = Cleaning()
    assert list(made(max_characters=5)(records, done)) == records[:1]
    assert sum(done.removed.values()) == 1
''',
        "from rlhf_lightning.feedback.cleaning import Cleaning\nfrom rlhf_lightning.flow import Feedback, Ranking",
    ),
    "feedback_comment": Contract(
        "vader",
        '''
def test_praise_is_above_blame() -> None:
    assert -1 <= made()("I hate it.") < made()("I love it.") <= 1
''',
        "",
    ),
    "feedback_annotator": Contract(
        "simulated",
        '''
def test_it_judges_each_prompt_s_responses() -> None:
    task = Reviews(demonstrations=20)
    prompt = task.train_prompts()[0]
    judgements = made(task).judge([(prompt, ["a good lamp", "a bad lamp"])])
    assert judgements
    assert {feedback.prompt for feedback in judgements} == {prompt}
''',
        "from rlhf_lightning.task.reviews import Reviews",
    ),
    "reward_pooling": Contract(
        "mean",
        '''
def test_padding_counts_nothing() -> None:
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    phi = made()(hidden, mask)
    assert phi.shape == (2, 4)
    assert torch.equal(phi, made()(torch.where(mask[:, :, None] == 1, hidden, 9.0), mask))
''',
    ),
    "reward_head": Contract(
        "mlp",
        '''
def test_a_score_for_each_text_and_a_gradient_for_each_weight() -> None:
    head = made(8)
    scores = head(torch.randn(5, 8))
    assert scores.shape == (5,)
    scores.sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())
''',
    ),
    "reward_tuning": Contract("full", TUNED),
    "reward_feature": Contract(
        "readability",
        '''
def test_each_named_number_is_there() -> None:
    family = as_family("NAME", made())
    family.fit([("The lamp:", "a good lamp"), ("The fan:", "")])
    for row in family.rows([("The lamp:", "a good lamp. It is quiet."), ("The fan:", "")]):
        assert len(row) == len(family.names)
''',
        "from rlhf_lightning.reward.regression.family import as_family",
    ),
    "reward_loss": Contract(
        "bradley_terry",
        '''
def test_the_right_order_costs_less() -> None:
    batch = judged(Feedback(prompt="The lamp:", responses=("good", "bad"), judgement=Ranking(ranks=(0, 1))))
    right, weights = made()(ScoredBatch(scores=torch.tensor([1.0, 0.0])), batch)
    wrong, _ = made()(ScoredBatch(scores=torch.tensor([0.0, 1.0])), batch)
    assert right.shape == weights.shape == (1,)
    assert right < wrong
''',
        "import torch\nfrom rlhf_lightning.flow import Feedback, Ranking\nfrom rlhf_lightning.reward.scored_batch import ScoredBatch\n"
        "from rlhf_lightning.cli.scaffold.records import judged",
    ),
    "preference_loss": Contract(
        "ipo",
        '''
def test_preferring_the_better_costs_less() -> None:
    more, less = (Answers(torch.tensor([at]), torch.tensor([4]), torch.tensor([-5.0])) for at in (-4.9, -5.1))
    right, wrong = made()(Compared(more, less)), made()(Compared(less, more))
    assert right.shape == (1,)
    assert right < wrong
    assert made().rewards(more).shape == (1,)
''',
        "import torch\nfrom rlhf_lightning.preference.record import Answers, Compared",
    ),
    "rollout_sampler": Contract(
        "transformers",
        '''
def test_a_response_for_each_prompt() -> None:
    model = small_model()
    rollout = made(max_new_tokens=4)(model, model.encode_prompts(["The lamp:", "The fan:"], 4))
    assert len(rollout.responses) == 2
    assert rollout.response_ids.shape == rollout.response_mask.shape == rollout.sampled_log_probs.shape
    assert rollout.response_mask.sum(1).max() <= 4
    assert (rollout.sampled_log_probs <= 0).all()
''',
        MODEL,
    ),
    "rollout_scorer": Contract(
        "lexicon",
        '''
def test_a_score_for_each_response(tmp_path: Path) -> None:
    (tmp_path / "lexicon.tsv").write_text("good\\t2.0\\nbad\\t-2.0\\n")
    scores = made(path=str(tmp_path / "lexicon.tsv"))(scored_rollout(["a good lamp", "a lamp", "a bad lamp"]))
    assert scores.shape == (3,)
    assert scores[0] > scores[1] > scores[2]
''',
        "from rlhf_lightning.cli.scaffold.records import scored_rollout",
    ),
    "rollout_shaping": Contract(
        "missing_eos",
        '''
def test_rewards_stay_on_the_response() -> None:
    scored = scored_rollout()
    shaped = made()(scored)
    assert torch.isfinite(shaped.rewards).all()
    assert (shaped.rewards[scored.response_mask == 0] == 0).all()
''',
        SCORED,
    ),
    "advantage": Contract(
        "rloo",
        '''
def test_an_advantage_for_each_token_of_the_response() -> None:
    scored = scored_rollout()
    found = made()(scored)
    assert found.advantages.shape == scored.rewards.shape
    assert torch.isfinite(found.advantages).all()
    assert (found.advantages[scored.response_mask == 0] == 0).all()
''',
        SCORED,
    ),
    "policy_tuning": Contract("full", TUNED),
    "policy_critic": Contract(
        "shared",
        '''
def test_it_is_a_critic_of_the_policy_s_width() -> None:
    critic = made(small_model(), lambda rollout: rollout.scores)()
    assert isinstance(critic, Critic)
    assert critic.head(torch.randn(3, 16)).shape == (3, 1)
''',
        f"import torch\nfrom rlhf_lightning.policy.model import Critic\n{MODEL}",
    ),
    "policy_loss": Contract("reinforce", PER_TOKEN.format(field="old_log_probs"), RECORD),
    "policy_correction": Contract(
        "truncated",
        '''
def test_a_weight_for_each_token() -> None:
    record = experience()
    weights, metrics = made()(record)
    assert weights.shape == record.response_mask.shape
    assert (weights >= 0).all()
    assert all(torch.isfinite(value).all() for value in metrics.values())
''',
        RECORD,
    ),
    "policy_kl": Contract(
        "reward",
        '''
def test_the_penalty_has_the_shape_of_the_responses() -> None:
    penalty, record = made(), experience()
    assert penalty.shape_rewards(record).rewards.shape == record.response_mask.shape
    in_loss = penalty.per_token_loss(record, record.old_log_probs)
    assert in_loss is None or in_loss[0].shape == record.response_mask.shape
''',
        RECORD,
    ),
    "policy_reduction": Contract(
        "token_mean",
        '''
def test_one_number_of_what_the_mask_covers() -> None:
    per_token, mask = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert made()(per_token, mask).shape == ()
    assert made()(per_token, mask) == made()(per_token * mask, mask)
''',
    ),
    "policy_value_loss": Contract("mse", PER_TOKEN.format(field="values"), RECORD),
    "policy_kl_control": Contract(
        "fixed",
        '''
def test_the_coefficient_is_never_negative() -> None:
    control = made(coef=0.1)
    assert control.value() == 0.1
    for kl in (0.0, 100.0):
        control.update(kl, 8)
        assert control.value() >= 0
''',
        "",
    ),
    "evaluation_metric": Contract(
        "length",
        '''
def test_a_number_for_each_response() -> None:
    found = made()(Reviews(demonstrations=2), scored_rollout())
    assert found.shape == (4,)
    assert torch.isfinite(found).all()
''',
        f"{SCORED}\nfrom rlhf_lightning.task.reviews import Reviews",
    ),
}  # fmt: skip
