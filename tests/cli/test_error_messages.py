"""Wrong command lines: each is refused with exit code 2 and one message that names the wrong word and the right one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlhf_lightning import registry
from tests.fork_server import run

registry.load_components()
OPTIONS = {group: ", ".join(component.name for component in registry.components(group)) for group in registry.GROUPS}
ROOT = Path(__file__).resolve().parents[2]

# The words of a command, and what its message must hold.
REFUSED: list[tuple[str, list[str]]] = [
    # a name at the top
    ("stag=ppo", ["'stag'", "did you mean 'stage'", "rollout_sampler"]),
    ("rewardhead=mlp", ["'rewardhead'", "did you mean 'reward_head'"]),
    ("sed=1", ["'sed'", "did you mean 'seed'"]),
    ("optimiser.lr=1", ["'optimiser.lr'", "the top of the menu: stage, task"]),
    ("reward_head@foo=mlp", ["'reward_head@foo'", "did you mean 'reward_head'"]),
    ("hydra.run.dri=x", ["Hydra has no setting 'run.dri'", "--cfg hydra"]),
    # an option
    ("stage=pp0", ["stage=pp0", "did you mean 'ppo'", "{options[stage]}"]),
    ("stage=", ["no option stage=;", "{options[stage]}"]),
    ("reward_head=mpl", ["reward_head=mpl", "did you mean 'mlp'", "{options[reward_head]}"]),
    ("advantage=gea", ["advantage=gea", "did you mean 'gae'", "{options[advantage]}"]),
    ("policy_loss=ppoclip", ["policy_loss=ppoclip", "did you mean 'ppo_clip'"]),
    ("trainer=gpus", ["trainer=gpus", "did you mean 'gpu'", "cpu, ddp, deepspeed, fsdp2, gpu, multi_node"]),
    ("logger=wandbb", ["logger=wandbb", "did you mean 'wandb'", "csv, none, tensorboard, wandb"]),
    ("experiment=nothing_like_it", ["experiment=nothing_like_it", "experiment has:"]),
    ("feedback_format=[pairwize]", ["feedback_format=pairwize", "did you mean 'pairwise'", "{options[feedback_format]}"]),
    ("rollout_shaping=[missing_eos,clipscore]", ["rollout_shaping=clipscore", "did you mean 'clip_score'"]),
    ("advantage=[gae,rloo]", ["advantage takes one option", "gae", "-m advantage=a,b"]),
    ("advantage=gae,rloo", ["advantage=gae,rloo", "-m advantage=gae,rloo"]),
    ("advantage=null", ["advantage=null", "{options[advantage]}", "~advantage"]),
    ("stage=3", ["stage=3", "{options[stage]}"]),
    ("-m hydra/launcher=jobli seed=1,2", ["hydra/launcher=jobli", "did you mean 'joblib'", "rlhf-lightning[sweep]"]),
    ("hparams=ppo_smal", ["hparams=ppo_smal", "did you mean 'ppo_small'"]),
    ("hparams=ppo_small stage=sft", ["ppo.learning_rate, policy_kl_control.coef", "add -m"]),
    ("-m seed=1 hydra/sweeper=optuna", ["nothing to search", "hparams=NAME"]),
    ("-m advantage=gae,gea", ["advantage=gea", "did you mean 'gae'"]),
    # a setting
    ("ppo.lr=1e-4", ["ppo.lr=1e-4", "write ppo.learning_rate=1e-4"]),
    ("ppo.learning_rat=1e-4", ["'learning_rat'", "did you mean 'learning_rate'", "value_coef"]),
    ("reward.batchsize=3", ["'batchsize'", "did you mean 'batch_size'"]),
    ("sft.epocs=2", ["'epocs'", "did you mean 'epochs'"]),
    ("evaluation.response=4", ["'response'", "did you mean 'responses'"]),
    ("policy_loss.clip=0.2", ["'clip'", "did you mean 'clip_ratio'", "clip_ratio, clip_ratio_high"]),
    ("advantage.gamm=0.9", ["'gamm'", "did you mean 'gamma'", "gamma, lam, whiten"]),
    ("reward_head=mlp reward_head.hiden=8", ["'hiden'", "did you mean 'hidden'", "hidden, dropout (mlp)"]),
    ("reward_head=gated reward_head.hiden=8", ["'hiden'", "did you mean 'hidden'", "hidden (gated)"]),
    ("advantage=batch_mean advantage.scale_by_sd=true", ["'scale_by_sd'", "did you mean 'scale_by_std'"]),
    ("rollout_shaping.missing_eos.penalti=3", ["'missing_eos.penalti'", "did you mean 'missing_eos.penalty'"]),
    ("rollout_shaping.missing_eoss.penalty=3", ["'missing_eoss.penalty'", "did you mean 'missing_eos.penalty'"]),
    ("reward_loss.bradley_terry.smoothing=0.1", ["'bradley_terry.smoothing'", "did you mean 'bradley_terry.label_smoothing'"]),
    ("task.promts=x task=files", ["'promts'", "did you mean 'prompts'"]),
    ("stage=rounds stage.roundz=3", ["'roundz'", "did you mean 'max_rounds'"]),
    ("trainer.device=2", ["'device'", "did you mean 'devices'", "accelerator, devices, num_nodes"]),
    # a setting of an option that isn't chosen
    ("stage=ppo stage.max_rounds=3", ["stage.max_rounds", "setting of stage=rounds", "add stage=rounds"]),
    ("rollout_shaping.clip_score.limits=[1,2]", ["rollout_shaping.clip_score.limits", "add rollout_shaping=[...,clip_score]"]),
    ("reward_head.hidden=8", ["reward_head.hidden", "is a setting of reward_head=", "gated and mlp"]),
    ("logger.project=mine", ["logger.project", "setting of logger=wandb"]),
    # an addition that nothing reads
    ("+foo=1", ["'foo'", "the top of the menu"]),
    ("++rewad.epochs=1", ["'rewad'", "did you mean 'reward'"]),
    ("+ppo.foo=1", ["ppo has no setting 'foo'", "updates, prompts_per_update"]),
    ("++ppo.updats=3", ["'updats'", "did you mean 'updates'"]),
    ("+backbone.dropout=0.1", ["backbone has no setting 'dropout'", "family, layers, width"]),
    ("+rollout_shaping.missing_eos.foo=1", ["rollout_shaping.missing_eos has no setting 'foo'", "penalty"]),
    ("+logger.api_key=x", ["logger has no setting 'api_key'", "logger=csv has: kind"]),
    ("+trainer.determinstic=true", ["'determinstic'", "did you mean 'deterministic'"]),
    ("+trainer.max_steps=3", ["trainer.max_steps is set by the stage", "ppo.updates"]),
    ("+trainer.limit_val_batches=2", ["trainer.limit_val_batches is set by the stage"]),
    ("+seed.x=1", ["seed"]),
    ("+trainer.max_epochs=1 stage=sft", ["trainer.max_epochs is set by the stage"]),
    ("+stage.max_rounds=2", ["stage.max_rounds", "without the +"]),
    ("~ppo", ["ppo", "cannot be deleted"]),
    ("~seed", ["seed", "cannot be deleted"]),
    ("~ppo.updates", ["ppo.updates", "cannot be deleted"]),
    ("~policy_loss", ["no policy_loss", "policy_loss=...", "{options[policy_loss]}"]),
    ("~backbone stage=sft", ["no backbone", "{options[backbone]}"]),
    ("~trainer", ["trainer", "cannot be deleted"]),
    ("~logger.kind", ["logger.kind=None", "csv, tensorboard, wandb, none"]),
    ("~nothing", ["'nothing'", "the top of the menu"]),
    ("~advantage", ["no advantage", "advantage=...", "{options[advantage]}"]),
    ("~stage", ["no stage", "{options[stage]}"]),
    # what is no word of a command
    ("ppo.updates", ["'ppo.updates' can't be read", "section.setting=value"]),
    ("ppo.updates=[1", ["'ppo.updates=[1' can't be read", "in quotes"]),
    ("=3", ["'=3' sets nothing"]),
    ("--multirn", ["unrecognized arguments: --multirn"]),
    ("--config-name nothing", ["no configuration 'nothing'", "--config-name"]),
    ("--config-dir /nothing", ["/nothing"]),
    # a value of the wrong type
    ("ppo.updates=abc", ["ppo.updates", "'abc'", "Integer"]),
    ("ppo.updates=1.5", ["ppo.updates", "'1.5'", "Integer"]),
    ("ppo.updates=", ["ppo.updates", "''", "Integer"]),
    ("ppo.updates=null", ["ppo.updates", "not Optional"]),
    ("ppo.target_kl=big", ["ppo.target_kl", "'big'", "Float"]),
    ("reward_head=ensemble reward_head.bootstrap=maybe", ["reward_head.bootstrap", "'maybe'", "bool"]),
    ("rollout_shaping=[clip_score] rollout_shaping.clip_score.limits=[low,high]", ["clip_score.limits", "low"]),
    ("backbone.width=wide", ["backbone.width", "'wide'", "Integer"]),
    ("-m ppo.updates=1,many", ["ppo.updates", "'many'", "Integer"]),
    ("-m ppo.learning_rate=1e-4,abc", ["ppo.learning_rate", "'abc'", "Float"]),
    ("ppo.updates=${{nothing}}", ["ppo refers to", "'nothing'"]),
    ("backbone.width=${{oc.env:RLHF_NOT_SET}}", ["backbone refers to", "'RLHF_NOT_SET'"]),
    ("logger=3", ["no option logger=3", "csv, none, tensorboard, wandb"]),
    ("reward_head=mlp reward_head.hidden=[1,2]", ["reward_head.hidden"]),
    ("seed=abc", ["seed=abc", "whole number"]),
    ("seed=1.5", ["seed=1.5", "whole number"]),
    ("seed=null", ["seed=None", "whole number"]),
    ("seed=true", ["seed=True", "whole number"]),
    ("ppo=3", ["ppo=3", "ppo.<setting>=<value>"]),
    ("trainer.devices=two stage=sft", ["trainer.devices=two", "int > 0"]),
    # out of its choices
    ("optimizer.no_decay=[bias]", ["optimizer.no_decay", "'biases'", "'norms'"]),
    ("schedule.warmup=-5", ["schedule.warmup", "-5", "fraction"]),
    ("schedule.warmup=40", ["schedule.warmup=40", "40 steps", "schedule.warmup=0.1"]),
    ("schedule=anneal schedule.min_lr_rate=0.1", ["min_lr_rate", "schedule=cosine"]),
    ("policy_critic=seperate", ["policy_critic=seperate", "did you mean 'separate'", "reward_model, separate, shared"]),
    ("-m schedule.warmup=0.1,1.5", ["schedule.warmup", "1.5", "fraction"]),
    ("-m stage=sft,pp0", ["stage=pp0", "did you mean 'ppo'"]),
    ("backbone.family=gpt3", ["backbone.family=gpt3", "'gpt2' or 'llama'"]),
    ("policy_kl.estimator=k4", ["policy_kl.estimator=k4", "'k1', 'k2' or 'k3'"]),
    ("feedback.on_bad=ignore", ["feedback.on_bad=ignore", "'refuse' or 'quarantine'"]),
    ("logger.kind=csvv", ["logger.kind=csvv", "csv, tensorboard, wandb, none", "did you mean 'csv'"]),
    ("trainer.accelerator=tpuu stage=sft", ["trainer.accelerator=tpuu", "'auto', 'cpu', 'gpu'"]),
    ("trainer.precision=17 stage=sft", ["trainer.precision=17", "bf16-mixed"]),
    ("trainer.strategy=ddpp stage=sft", ["trainer.strategy=ddpp", "did you mean 'ddp'", "fsdp"]),
    # out of its range
    ("ppo.updates=0", ["ppo.updates=0", "greater than 0"]),
    ("-m ppo.updates=1,0", ["ppo.updates=0", "greater than 0"]),
    ("-m seed=1,-1", ["seed=-1", "from 0 to"]),
    ("ppo.learning_rate=inf", ["ppo.learning_rate=inf", "finite"]),
    ("trainer.devices=0", ["trainer.devices=0", "int > 0"]),
    ("ppo.learning_rate=-1", ["ppo.learning_rate=-1", "greater than 0"]),
    ("advantage.lam=1.5", ["advantage.lam=1.5", "less than or equal to 1"]),
    ("backbone.vocabulary=10", ["backbone.vocabulary=10", "260"]),
    ("rollout_sampler.top_p=0", ["rollout_sampler.top_p=0", "greater than 0"]),
    ("reward.validation_fraction=1", ["reward.validation_fraction=1", "less than 1"]),
    ("stage=rounds stage.target=utility>=-1", ["stage.target=utility>=-1", "greater than 0"]),
    ("stage=rounds stage.target=1.5", ["stage.target=1.5", "NAME>=NUMBER", "win_rate>=0.65"]),
    ("stage=rounds stage.target=win_rat>=0.6", ["win_rat", "did you mean 'win_rate'"]),
    ("stage=rounds stage.target=win_rate>=65", ["win_rate>=65", "between 0 and 1"]),
    ("stage=rounds stage.target=score>=1", ["score is not measured", "ppo.held_out_scorer=FOLDER"]),
    ("stage=rounds stage.learn_edits=true", ["stage.learn_edits", "ppo.ptx_coef=0.1"]),
    ("seed=-1", ["seed=-1", "from 0 to"]),
    ("seed=5000000000", ["seed=5000000000", "from 0 to"]),
    # combinations
    ("advantage=rloo ppo.responses_per_prompt=1", ["advantage=rloo", "ppo.responses_per_prompt=1", "at least 2"]),
    ("ppo.num_minibatches=1000", ["ppo.num_minibatches=1000", "ppo.prompts_per_update x ppo.responses_per_prompt"]),
    ("backbone.width=130", ["backbone.width=130", "backbone.heads=4"]),
    ("-m trainer=ddp trainer.accelerator=cpu", ["trainer.devices=2", "-m", "trainer.devices=1"]),
    ("-m trainer.devices=2 seed=1,2", ["trainer.devices=2", "whole sweep again"]),
    ("-m trainer.devices=1,2", ["trainer.devices=2", "whole sweep again"]),
    ("trainer.num_nodes=2", ["trainer.num_nodes=2 needs MASTER_ADDR, MASTER_PORT, NODE_RANK", "torchrun or srun"]),
    ("trainer.devices=2 ppo.prompts_per_update=3", ["ppo.prompts_per_update=3", "multiple of the 2 processes"]),
    ("trainer.devices=[0,1]", ["trainer.devices=[0, 1]", "on the CPU it is a number of processes"]),
    ("trainer=gpu trainer.devices=99", ["torch sees"]),
    ("trainer.accelerator=cuda trainer.devices=[99]", ["torch sees"]),
    ("trainer.precision=16-mixed stage=sft", ["trainer.precision=16-mixed needs a GPU", "bf16-mixed"]),
    ("rollout_shaping=[missing_eos,clip_score]", ["rollout_shaping.clip_score shapes scores", "rollout_shaping=[clip_score,...]"]),
    ("evaluation_metric=[length]", ["keep it among the metrics", "evaluation_metric=[utility,...]"]),
    ("--multirun --cfg job", ["Only one of"]),
    ("--resolve", ["--resolve", "--cfg"]),
    ("stage=rounds task=files task.prompts={files}/prompts.jsonl", ["stage.target", "known utility", "task=reviews", "win_rate>=0.65"]),
    # what a stage needs
    ("stage=ppo", ["no rollout_scorer", "rollout_scorer=...", "lexicon, match, program, reference, reward_model"]),
    ("stage=ppo rollout_scorer=reward_model", ["rollout_scorer.reward_model.path must be given", "rollout_scorer.reward_model.path=..."]),
    ("stage=reward", ["no feedback_source", "feedback_source=...", "jsonl"]),
    ("stage=reward feedback_source=jsonl feedback_source.path=f.jsonl", ["takes several options", "feedback_source.jsonl.path"]),
    ("stage=reward feedback_source=jsonl", ["feedback_source.jsonl.path must be given"]),
    ("backbone=causal", ["backbone.path must be given"]),
    ("task=files", ["task.prompts=...", "task.demonstrations=..."]),
    ("stage=sft task=files task.prompts={files}/prompts.jsonl", ["no demonstrations", "task.demonstrations=FILE"]),
    ("stage=ppo rollout_scorer=lexicon rollout_scorer.path=l.tsv", ["takes several options", "rollout_scorer.lexicon.path"]),
    ("stage=ppo rollout_scorer=format rollout_shaping=[missing_eos,gdpo]", ["rollout_shaping=[gdpo,missing_eos]"]),
    ("stage=ppo task=files task.prompts={files}/prompts.jsonl rollout_scorer=match", ["match.column=answer", "no such column"]),
    ("stage=ppo rollout_scorer=function rollout_scorer.function.path={files}/no.py:f", ["rollout_scorer.function.path", "no file"]),
    # files
    ("task=files task.prompts=/nothing/p.jsonl", ["task.prompts", "/nothing/p.jsonl", "no such file"]),
    ("stage=reward feedback_source=jsonl feedback_source.jsonl.path=/nothing/f.jsonl", ["feedback_source.jsonl.path", "/nothing/f.jsonl"]),
    ("stage=ppo rollout_scorer=lexicon rollout_scorer.lexicon.path=/nothing/l.tsv",
     ["rollout_scorer.lexicon.path", "/nothing/l.tsv", "word<tab>valence"]),
    ("stage=ppo rollout_scorer=lexicon rollout_scorer.lexicon.path={files}/prompts.jsonl", ["prompts.jsonl:1", "word<tab>valence"]),
    ("stage=ppo rollout_scorer=reward_model rollout_scorer.reward_model.path=/nothing/rm", ["/nothing/rm", "local Hugging Face folder"]),
    ("stage=ppo rollout_scorer=reward_model rollout_scorer.reward_model.path={files}", ["{files}", "holds no model itself"]),
    ("stage=ppo rollout_scorer=reward_model rollout_scorer.reward_model.path={files}/two_labels",
     ["two_labels", "2 labels", "num_labels=1"]),
    ("stage=sft backbone=causal backbone.path=/nothing/model", ["backbone.path", "/nothing/model"]),
    ("stage=sft backbone=causal backbone.path={files}", ["backbone.path", "{files}", "holds no model itself"]),
    ("stage=ppo rollout_scorer=reward_model rollout_scorer.reward_model.path=a/b/c",
     ["rollout_scorer.reward_model.path=a/b/c", "no such folder"]),
    ("ppo.held_out_scorer=./nothing", ["ppo.held_out_scorer=./nothing", "no such folder"]),
    ("stage=evaluate_reward stage.models=[/nothing/a]", ["stage.models.0=/nothing/a", "no such folder"]),
    ("stage=explain stage.model=/nothing/a", ["stage.model=/nothing/a", "no such folder"]),
    ("experiment=broken --config-dir {files}/conf", ["broken.yaml:2 is not valid YAML"]),
    ("experiment=no_package --config-dir {files}/conf", ["conf/experiment/", "# @package _global_"]),
    ("experiment=wrong_key --config-dir {files}/conf", ["ppo has no setting 'updatez'", "did you mean 'updates'"]),
    ("experiment=wrong_option --config-dir {files}/conf", ["no option reward_head=mpl", "did you mean 'mlp'"]),
    ("experiment=wrong_value --config-dir {files}/conf", ["ppo.updates=0", "greater than 0"]),
    ("--config-path {files}/nothing", ["nothing"]),
    ("stage=evaluate stage.reference=/nothing/start", ["/nothing/start", "local Hugging Face folder"]),
    # code
    ("backbone._target_=os.system", ["'os.system'", "not a registered component"]),
    ("rollout_shaping.missing_eos._target_=subprocess.Popen", ["'subprocess.Popen'", "not a registered component"]),
    ("+ppo._target_=os.system", ["ppo has no setting '_target_'"]),
    ("+backbone.heads2._target_=os.system", ["backbone has no setting 'heads2'", "did you mean 'heads'"]),
    ("reward_head._target_=rlhf_lightning.advantage.gae.gae", ["reward_head can't be", "an option of advantage"]),
    # the list of components
    ("components rewardhead", ["'rewardhead'", "did you mean 'reward_head'"]),
]  # fmt: skip


EXPERIMENTS = {
    "broken": "a: [1,\nb: }\n",
    "no_package": "ppo:\n  updates: 3\n",
    "wrong_key": "# @package _global_\nppo:\n  updatez: 3\n",
    "wrong_option": "# @package _global_\ndefaults:\n  - override /reward_head: mpl\n",
    "wrong_value": "# @package _global_\nppo:\n  updates: 0\n",
}


@pytest.fixture(scope="module")
def files(world, tiny_of) -> Path:
    """The world's files, and a classifier with two labels."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = world.files / "two_labels"
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=2, pad_token_id=0)).save_pretrained(folder)
    tiny_of("llama").tokenizer.save_pretrained(folder)
    experiments = world.files / "conf" / "experiment"
    experiments.mkdir(parents=True)
    for name, text in EXPERIMENTS.items():
        (experiments / f"{name}.yaml").write_text(text)
    return world.files


@pytest.mark.parametrize(("line", "expected"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_wrong_command_is_refused_by_name(command, files, line, expected, tmp_path):
    outcome = command(*line.format(files=files).split(" "), folder=tmp_path / "run")
    assert outcome.code == 2, outcome.error
    for part in expected:
        assert part.format(files=files, options=OPTIONS) in outcome.error
    assert "Traceback" not in outcome.error
    if outcome.error.startswith("usage: "):
        assert line.startswith("--"), "argparse tells of flags alone"
    else:
        assert outcome.error.startswith("error: ")
        assert outcome.error.count("\n") <= 3
    assert not (tmp_path / "run" / "result.json").exists()


def test_the_table_is_long_enough():
    assert len({line for line, _ in REFUSED}) >= 60


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("reward_head=mpl", "did you mean 'mlp'"),
        ("-m trainer.devices=2 seed=1,2", "whole sweep again"),
        ("-m ppo.updates=1,0", "ppo.updates=0: Input should be greater than 0"),
        ("+trainer.max_steps=3", "trainer.max_steps is set by the stage"),
    ],
)
def test_a_process_of_its_own_says_the_same_without_a_traceback(line, expected, tmp_path):
    words = [sys.executable, str(ROOT / "train.py"), *line.split(" ")]
    done = run(words, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1
