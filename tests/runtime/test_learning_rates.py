"""Default learning rates by the model that is trained."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.runtime.learning_rates import set_learning_rates
from rlhf_lightning.testing.trial import compose_command

PRETRAINED = ["backbone=causal", "backbone.path=gpt2"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["backbone=tiny"], [6e-3, 1e-3, 3e-4, 2e-4, None]),
        (PRETRAINED, [2e-5, 1e-5, 1e-6, 1e-6, 1e-5]),
        ([*PRETRAINED, "policy_tuning=lora", "reward_tuning=lora"], [2e-4, 1e-4, 1e-5, 1e-5, 1e-5]),
        ([*PRETRAINED, "reward_tuning=frozen"], [2e-5, 1e-3, 1e-6, 1e-6, 1e-5]),
        (["backbone=tiny", "policy_tuning=lora"], [6e-3, 1e-3, 3e-4, 2e-4, None]),
        ([*PRETRAINED, "sft.learning_rate=1", "ppo.learning_rate=2"], [1, 1e-5, 1e-6, 2, None]),
        ([*PRETRAINED, "ppo.critic_learning_rate=3"], [2e-5, 1e-5, 1e-6, 1e-6, 3]),
    ],
)
def test_a_rate_that_is_not_given_follows_the_model(words, expected):
    config = compose_command(*words)
    OmegaConf.set_struct(config, False)
    reasons = set_learning_rates(config)
    rates = [config[name].learning_rate for name in ("sft", "reward", "preference", "ppo")]
    assert [*rates, config.ppo.critic_learning_rate] == pytest.approx(expected)
    given = {word.partition(".")[0] for word in words if ".learning_rate=" in word}
    assert set(reasons) == {"sft", "reward", "preference", "ppo"} - given


def test_the_rate_is_printed_saved_and_used(command, world):
    words = [word for word in world.ppo("logger=csv") if not word.startswith("ppo.learning_rate")]
    done = command(*words)
    assert done.code == 0, done.error
    assert "learning rate 1e-06, the default for a pretrained model (ppo.learning_rate)" in done.out
    assert OmegaConf.load(done.folder / "config.yaml").ppo.learning_rate == 1e-6
    header, first = (line.split(",") for line in (done.folder / "logs" / "ppo" / "metrics.csv").read_text().splitlines()[:2])
    assert float(first[header.index("lr")]) == 1e-6
