"""Names of TRL, verl, OpenRLHF and Lightning are answered with our overrides."""

from __future__ import annotations

import pytest

from rlhf_lightning import registry
from rlhf_lightning.cli.foreign_terms import explain_foreign_terms, reject_foreign_flags, table
from rlhf_lightning.config.presets import list_presets
from rlhf_lightning.errors import ConfigError

registry.load_components()
BACKBONE = "backbone=causal backbone.path="

# A command, its program, and the answer: what to write, or "" if there is nothing to set.
ANSWERS: list[tuple[str, str, str]] = [
    # TRL and transformers' TrainingArguments
    ("stage=sft --learning_rate 1e-5", "TRL", "sft.learning_rate=1e-5"),
    ("stage=reward --learning_rate=1e-5", "TRL", "reward.learning_rate=1e-5"),
    ("stage=ppo learning_rate=3e-6", "TRL", "ppo.learning_rate=3e-6"),
    ("stage=sft --num-train-epochs 3", "TRL", "sft.epochs=3"),
    ("stage=reward num_train_epochs=2", "TRL", "reward.epochs=2"),
    ("stage=sft --per_device_train_batch_size 8", "TRL", "sft.micro_batch_size=8"),
    ("stage=preference gradient_accumulation_steps=4", "TRL", "preference.batch_size=32"),
    ("stage=sft --lr_scheduler_type constant", "TRL", "schedule=constant"),
    ("stage=sft --warmup_ratio 0.03", "TRL", "schedule.warmup=0.03"),
    ("stage=sft weight_decay=0.1", "TRL", "optimizer.weight_decay=0.1"),
    ("stage=ppo --max_grad_norm 0.5", "TRL", "ppo.max_grad_norm=0.5"),
    ("stage=sft --eval_steps 50", "TRL", "evaluation.every=50"),
    ("metric_for_best_model=evaluation/accuracy", "TRL", "checkpoint.monitor=evaluation/accuracy"),
    ("stage=ppo log_completions=true", "TRL", "evaluation.completions_every=10"),
    ("stage=ppo --adam_epsilon 1e-8", "TRL", "optimizer.eps=1e-8"),
    ("--model_name_or_path Qwen/Qwen2.5-0.5B", "TRL", f"{BACKBONE}Qwen/Qwen2.5-0.5B"),
    ("--torch_dtype bfloat16", "TRL", "backbone=causal backbone.dtype=bfloat16"),
    ("--trust_remote_code", "TRL", ""),
    ("--dataset_name my/pairs", "TRL", "feedback_source=jsonl feedback_source.jsonl.path=my/pairs"),
    ("output_dir=out/run", "TRL", "hydra.run.dir=out/run"),
    ("--output_dir out", "TRL", "hydra.run.dir=out"),
    ("resume_from_checkpoint=out/run", "TRL", "resume=out/run"),
    ("report_to=wandb", "TRL", "logger=wandb"),
    ("--report_to tensorboard", "TRL", "logger=tensorboard"),
    ("--report_to none", "TRL", "logger=none"),
    ("--run_name first", "TRL", "logger=wandb logger.name=first"),
    ("--logging_steps 5", "TRL", "trainer.log_every_n_steps=5"),
    ("--save_steps 500", "TRL", "checkpoint.every=500"),
    ("save_total_limit=3", "TRL", "checkpoint.keep=3"),
    ("stage=sft --gradient_checkpointing true", "TRL", "backbone=causal backbone.activation_checkpointing=true"),
    ("--attn_implementation eager", "TRL", "backbone=causal backbone.attn_implementation=eager"),
    ("--push_to_hub", "TRL", "push=you/name"),
    ("--lora_dropout 0.1", "TRL", "policy_tuning=lora policy_tuning.dropout=0.1"),
    ("--bf16", "TRL", "trainer.precision=bf16-mixed"),
    ("--fp16 true", "TRL", "trainer.precision=16-mixed"),
    ("--deepspeed ds.json", "TRL", "trainer=deepspeed"),
    ("--fsdp", "TRL", "trainer=fsdp2"),
    ("--use_peft", "TRL", "policy_tuning=lora"),
    ("--lora_r 8", "TRL", "policy_tuning=lora policy_tuning.rank=8"),
    ("lora_alpha=64", "TRL", "policy_tuning=lora policy_tuning.alpha=64"),
    ("stage=grpo", "TRL", "stage=ppo advantage=grpo"),
    ("stage=ppo --reward_model_path RM", "TRL", "rollout_scorer=reward_model rollout_scorer.reward_model.path=RM"),
    ("stage=ppo total_episodes=10000", "TRL", "ppo.updates=40"),
    ("stage=ppo num_ppo_epochs=4", "TRL", "ppo.epochs=4"),
    ("stage=ppo --num_mini_batches 2", "TRL", "ppo.num_minibatches=2"),
    ("stage=ppo response_length=53", "TRL", "rollout_sampler.max_new_tokens=53"),
    ("stage=ppo --missing_eos_penalty 2.0", "TRL", "rollout_shaping.missing_eos.penalty=2.0"),
    ("stage=ppo kl_coef=0.1", "TRL", "policy_kl_control.coef=0.1"),
    ("stage=ppo kl_estimator=k3", "TRL", "policy_kl.estimator=k3"),
    ("stage=ppo cliprange=0.1", "TRL", "policy_loss.clip_ratio=0.1"),
    ("stage=ppo cliprange_value=0.1", "TRL", "policy_value_loss.clip_range=0.1"),
    ("stage=ppo vf_coef=0.5", "TRL", "ppo.value_coef=0.5"),
    ("stage=ppo gamma=0.99", "TRL", "advantage.gamma=0.99"),
    ("stage=ppo lam=0.9", "TRL", "advantage.lam=0.9"),
    ("stage=ppo num_generations=8", "TRL", "ppo.responses_per_prompt=8"),
    ("stage=sft num_generations=8", "TRL", "ppo.responses_per_prompt=8"),
    ("stage=ppo num_iterations=2", "TRL", "ppo.epochs=2"),
    ("stage=ppo max_completion_length=128", "TRL", "rollout_sampler.max_new_tokens=128"),
    ("stage=ppo --beta 0.02", "TRL", "policy_kl_control.coef=0.02"),
    ("stage=dpo --beta 0.2", "TRL", "preference_loss.beta=0.2"),
    ("stage=ppo epsilon_high=0.28", "TRL", "policy_loss.clip_ratio_high=0.28"),
    ("stage=ppo delta=3.0", "TRL", "policy_loss=dual_clip policy_loss.clip_ratio_c=3.0"),
    ("stage=ppo importance_sampling_level=sequence", "TRL", "policy_loss=gspo"),
    ("stage=ppo loss_type=dr_grpo", "TRL", "advantage=dr_grpo policy_reduction=fixed_length policy_reduction.length=256"),
    ("stage=preference loss_type=ipo", "TRL", "preference_loss=ipo preference_loss.length_normalised=true"),
    ("stage=ppo use_vllm=true", "TRL", "rollout_sampler=vllm"),
    ("stage=ppo vllm_importance_sampling_mode=token_mask", "TRL", "policy_correction=masked"),
    ("stage=dpo", "TRL", "stage=preference preference_loss=dpo"),
    ("stage=kto", "TRL", "stage=preference preference_loss=kto"),
    ("stage=preference label_smoothing=0.1", "TRL", "preference_loss.label_smoothing=0.1"),
    ("stage=preference simpo_gamma=0.5", "TRL", "preference_loss=simpo preference_loss.gamma=0.5"),
    ("stage=preference max_length=256", "TRL", "preference.max_length=256"),
    ("stage=sft max_seq_length=256", "TRL", "sft.max_length=256"),
    ("stage=preference precompute_ref_log_probs=true", "TRL", ""),
    ("stage=sft packing=true", "TRL", ""),
    ("stage=rm", "TRL", "stage=reward"),
    ("stage=reward center_rewards_coefficient=0.02", "TRL", "reward_loss.bradley_terry.centering=0.02"),
    # Lightning and lightning-hydra-template
    ("stage=sft lr=1e-4", "Lightning", "sft.learning_rate=1e-4"),
    ("ppo.lr=1e-4", "Lightning", "ppo.learning_rate=1e-4"),
    ("reward.lr=1e-4", "Lightning", "reward.learning_rate=1e-4"),
    ("stage=reward model.optimizer.lr=0.01", "Lightning", "reward.learning_rate=0.01"),
    ("stage=sft max_epochs=3", "Lightning", "sft.epochs=3"),
    ("stage=sft trainer.max_epochs=3", "Lightning", "sft.epochs=3"),
    ("sft.max_epochs=3", "Lightning", "sft.epochs=3"),
    ("stage=reward trainer.max_steps=100", "Lightning", "reward.epochs=3"),
    ("stage=sft data.batch_size=64", "Lightning", "sft.batch_size=64"),
    ("stage=sft trainer.accumulate_grad_batches=4", "Lightning", "sft.micro_batch_size=4"),
    ("stage=sft trainer.gradient_clip_val=0.5", "Lightning", "sft.max_grad_norm=0.5"),
    ("callbacks=early_stopping", "Lightning", "callback=[lr_monitor]"),
    ("callbacks.early_stopping.patience=5", "Lightning", "callback=[early_stopping] callback.early_stopping.patience=5"),
    ("callbacks.model_checkpoint.monitor=evaluation/loss", "Lightning", "checkpoint.monitor=evaluation/loss"),
    ("fast_dev_run=true", "Lightning", "debug=step"),
    ("debug=fdr", "Lightning", "debug=step"),
    ("scheduler=cosine", "Lightning", "schedule=cosine"),
    ("ckpt_path=runs/a", "Lightning", "resume=runs/a"),
    ("paths.output_dir=out", "Lightning", "hydra.run.dir=out"),
    ("trainer.gpus=2", "Lightning", "trainer=gpu trainer.devices=2"),
    ("precision=bf16-mixed", "Lightning", "trainer.precision=bf16-mixed"),
    ("trainer=ddp_sim", "Lightning", "trainer=ddp trainer.accelerator=cpu"),
    ("logger.wandb.project=mine", "Lightning", "logger=wandb logger.project=mine"),
    ("hparams_search=x", "Lightning", "hparams=ppo_search"),
    ("backbone=gpt2", "Lightning", f"{BACKBONE}gpt2"),
    ("backbone=bert", "Lightning", "backbone=encoder backbone.path=bert-base-uncased"),
    ("model=Qwen/Qwen3-0.6B", "Lightning", f"{BACKBONE}Qwen/Qwen3-0.6B"),
    ("data.num_workers=4", "Lightning", ""),
    ("stage=test", "Lightning", "stage=evaluate"),
    # verl
    ("actor_rollout_ref.model.path=Qwen/x", "verl", f"{BACKBONE}Qwen/x"),
    ("actor_rollout_ref.rollout.n=5", "verl", "ppo.responses_per_prompt=5"),
    ("algorithm.adv_estimator=grpo", "verl", "advantage=grpo"),
    ("algorithm.adv_estimator=remax", "verl", "advantage=remax"),
    ("data.train_batch_size=512", "verl", "ppo.prompts_per_update=512"),
    ("actor_rollout_ref.actor.ppo_mini_batch_size=64", "verl", "ppo.num_minibatches=4"),
    ("actor_rollout_ref.actor.optim.lr=2e-6", "verl", "ppo.learning_rate=2e-6"),
    ("actor_rollout_ref.actor.kl_loss_type=low_var_kl", "verl", "policy_kl=loss policy_kl.estimator=k3"),
    ("algorithm.kl_ctrl.horizon=500", "verl", "policy_kl_control=adaptive policy_kl_control.horizon=500"),
    ("trainer.total_training_steps=7", "verl", "ppo.updates=7"),
    ("trainer.n_gpus_per_node=4", "verl", "trainer=ddp trainer.devices=4"),
    ("trainer.test_freq=5", "verl", "evaluation.every=5"),
    ("trainer.project_name=p", "verl", "logger=wandb logger.project=p"),
    # OpenRLHF, today's flags and those before
    ("--actor.model_name_or_path Qwen/x", "OpenRLHF", f"{BACKBONE}Qwen/x"),
    ("--pretrain Qwen/x", "OpenRLHF", f"{BACKBONE}Qwen/x"),
    ("--reward.model_name_or_path RM", "OpenRLHF", "rollout_scorer=reward_model rollout_scorer.reward_model.path=RM"),
    ("--rollout.n_samples_per_prompt 4", "OpenRLHF", "ppo.responses_per_prompt=4"),
    ("--n_samples_per_prompt 4", "OpenRLHF", "ppo.responses_per_prompt=4"),
    ("--actor.adam.lr 5e-7", "OpenRLHF", "ppo.learning_rate=5e-7"),
    ("--algo.advantage.estimator group_norm", "OpenRLHF", "advantage=grpo"),
    ("--algo.kl.init_coef 0.001", "OpenRLHF", "policy_kl_control.coef=0.001"),
    ("--critic.value_clip 0.3", "OpenRLHF", "policy_value_loss.clip_range=0.3"),
    ("--ckpt.output_dir out", "OpenRLHF", "hydra.run.dir=out"),
    ("--logger.wandb.key abc", "OpenRLHF", "logger=wandb"),
    ("--train.batch_size 128", "OpenRLHF", "ppo.num_minibatches=8"),
    ("stage=preference --model.beta 0.3", "OpenRLHF", "preference_loss.beta=0.3"),
    ("--ds.packing_samples", "OpenRLHF", ""),
]


@pytest.mark.parametrize(("line", "program", "answer"), ANSWERS, ids=[line for line, _, _ in ANSWERS])
def test_a_foreign_term_is_answered_with_ours(line, program, answer):
    text = explain_foreign_terms(line.split(" "), list_presets())
    lines = [part for part in text.splitlines() if answer.startswith("stage=") or "stage=" not in part.partition(" (")[0]]
    assert f" ({program}): " in lines[-1]
    if answer:
        assert lines[-1].partition(": write ")[2].partition(" (")[0] == answer
    else:
        assert "leave it out" in lines[-1]


def test_the_table_has_100_terms():
    assert len({line for line, _, _ in ANSWERS}) >= 100


def test_every_row_can_be_matched():
    assert len(table()) > 250
    assert {row.program for row in table()} == {"TRL", "Lightning", "verl", "OpenRLHF"}
    for row in table():
        assert row.answers or row.text in ("always", "never"), row
        assert row.key, row


def test_all_terms_of_a_command_are_answered_together():
    line = "trainer=gpu --model_name_or_path Qwen/x --learning_rate 1e-5 --num_generations 8 advantage=grpo stage=ppo seed=3"
    with pytest.raises(ConfigError) as error:
        reject_foreign_flags(line.split(" "))
    answers = str(error.value).splitlines()[1:]
    assert [answer.partition(": write ")[2].split(" (")[0] for answer in answers] == [
        f"{BACKBONE}Qwen/x", "ppo.learning_rate=1e-5", "ppo.responses_per_prompt=8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "stage=ppo ppo.epochs=3 advantage.gamma=0.9 trainer.devices=2 logger=wandb logger.project=x seed=1",
        "--cfg job stage=sft sft.batch_size=3", "-m seed=1,2 advantage=gae,rloo", "--config-path runs/model resume=runs/x",
        "task.prompts=x.jsonl preference_loss.beta=0.1 trainer.precision=bf16-mixed feedback_source.jsonl.limit=3",
    ],
)  # fmt: skip
def test_ours_are_not_foreign(line):
    reject_foreign_flags(line.split(" "))
    assert explain_foreign_terms(line.split(" "), list_presets()) == ""


def test_a_run_is_answered(command):
    outcome = command("stage=sft", "num_train_epochs=3", "report_to=wandb")
    assert outcome.code == 2
    for part in ("sft.epochs=3", "logger=wandb", "TRL"):
        assert part in outcome.error
    assert "write ppo.learning_rate=1e-4" in command("ppo.lr=1e-4").error
