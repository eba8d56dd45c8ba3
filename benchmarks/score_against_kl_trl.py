"""TRL 1.12's side of score_against_kl.py, in a process of its own: `SPEC.json OUT.json`.

TRL's own PPOTrainer. Its reward model is replaced by the scorer of the other side, which reads texts; the scores are noted before the
penalty for a missing EOS, which TRL's own log takes off. The value model starts as the policy does, with a head of zeros.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer  # noqa: E402
from trl.experimental.ppo import ppo_trainer as inner  # noqa: E402

from rlhf_lightning.flow import Prompts, Rollout  # noqa: E402
from rlhf_lightning.model.language_model import LanguageModel  # noqa: E402
from rlhf_lightning.model.loading import load_tokenizer  # noqa: E402
from rlhf_lightning.registry import load_components, make  # noqa: E402
from rlhf_lightning.tokenization.boundary import plain_ids  # noqa: E402


class ThroughText:
    """Scores of responses as TRL asks for them, from a scorer of rollouts."""

    def __init__(self, scorer: Any, language_model: LanguageModel, prompts: dict[tuple[int, ...], str]) -> None:
        self.scorer, self.language_model, self.prompts = scorer, language_model, prompts
        self.reward_model = torch.nn.Linear(1, 1)
        self.plain = inner.get_reward
        self.seen: list[float] = []
        inner.get_reward = self

    def __call__(self, model: torch.nn.Module, ids: Tensor, pad: int, context: int) -> Any:
        if model is not self.reward_model:
            return self.plain(model, ids, pad, context)
        queries, answers = ids[:, :context], ids[:, context:]
        texts = [self.prompts[tuple(row[row != pad].tolist())] for row in queries]
        mask = ((answers == pad).long().cumsum(1) == 0).long()  # the answer ends at its first pad, as TRL sees it
        batch = Prompts(prompts=texts, prompt_ids=queries, prompt_mask=(queries != pad).long(), group=torch.arange(len(texts)))
        rollout = Rollout(
            **vars(batch), responses=self.language_model.decode(answers, mask), response_ids=answers, response_mask=mask,
            has_eos=(answers == self.language_model.tokenizer.eos_token_id).any(1), sampled_log_probs=torch.zeros(mask.shape),
            temperature=1.0,
        )  # fmt: skip
        scores = self.scorer(rollout)
        self.seen.append(float(scores.mean()))
        self.lengths = float(mask.sum(1).float().mean())
        return None, scores, None


class Curve(TrainerCallback):
    """KL and score of each update's rollout."""

    def __init__(self, scores: ThroughText) -> None:
        self.scores = scores
        self.updates: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if "objective/kl" in logs:
            named = {"approxkl": "policy/approxkl_avg", "value_loss": "loss/value_avg", "lr": "lr"}
            self.updates.append(
                {"kl": logs["objective/kl"], "score": self.scores.seen[-1], "length": self.scores.lengths}
                | {short: logs[name] for short, name in named.items()}
            )


def main() -> None:
    spec, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    load_components()
    start, settings = spec["start"], spec["settings"]
    tokenizer = load_tokenizer(start)
    tokenizer.padding_side = "left"
    policy, reference = (AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(value.score.weight)
    rows = [plain_ids(tokenizer, text) for text in spec["prompts"]]
    scorer = make("rollout_scorer", spec["scorer"], spec["scorer_settings"])
    of_ids = dict(zip(map(tuple, rows), spec["prompts"], strict=True))
    scores = ThroughText(scorer, LanguageModel(policy, tokenizer), of_ids)
    curve = Curve(scores)
    data = Dataset.from_dict({"input_ids": rows})
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=settings["episodes"], gradient_accumulation_steps=1,
        num_mini_batches=settings["minibatches"], num_ppo_epochs=settings["epochs"], total_episodes=len(rows),
        response_length=settings["tokens"], stop_token="eos", temperature=1.0, local_rollout_forward_batch_size=settings["episodes"],
        num_sample_generations=0, learning_rate=settings["learning_rate"], lr_scheduler_type="linear", adam_beta1=0.9, adam_beta2=0.999,
        adam_epsilon=settings["adam_eps"], weight_decay=0.0, kl_coef=settings["kl_coef"], kl_estimator="k1", gamma=settings["gamma"],
        lam=settings["lam"], cliprange=settings["clip"], cliprange_value=settings["value_clip"], vf_coef=settings["value_coef"],
        whiten_rewards=False, missing_eos_penalty=settings["missing_eos"], bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", use_cpu=True, seed=spec["seed"], logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=scores.reward_model, value_model=value,
        train_dataset=data, eval_dataset=data.select(range(4)), callbacks=[curve],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    policy.save_pretrained(spec["policy"])
    tokenizer.save_pretrained(spec["policy"])
    out.write_text(json.dumps(curve.updates))


if __name__ == "__main__":
    main()
