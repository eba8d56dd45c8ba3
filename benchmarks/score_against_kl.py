"""Score against KL, by seed: our PPO and TRL 1.12's from the same start, with the same scorer, prompts, episodes and hyperparameters.

    pip install --no-deps --target build/trl-1.12 trl==1.12.0 && pip install accelerate datasets
    python benchmarks/score_against_kl.py --trl build/trl-1.12 --out build/score_against_kl \
        --stories MODEL --story-prompts PROMPTS.jsonl --lexicon LEXICON.tsv [--tasks reviews,stories] [--seeds 5] [--sides ours,trl]

    reviews     the embedded world; for each seed its start and its reward model are made once by our stages and used by both sides
    stories     a pretrained story model, scored by the words of a lexicon file

    ours        `train.py stage=ppo` with policy_critic=separate
    shared      the same with a value head on the policy's trunk, which TRL doesn't have
    trl         TRL's PPOTrainer, its scorer replaced by ours

TRL clips no gradients, so we don't. Results lie in --out, one file for each task, side and seed: what is there isn't run again, so that
the whole can be done in pieces, and `--tasks` without anything left to run prints the tables. --out/curves.jsonl holds every update.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rlhf_lightning.registry import load_components, make  # noqa: E402
from rlhf_lightning.statistics.intervals import mean_interval  # noqa: E402

SIDES = ("ours", "shared", "trl")
WINDOW = 5
"""Updates that are averaged before the curves are compared: one update's score is that of `episodes` responses."""
RESPONSES = 512
"""Drawn from each trained policy for its held-out score and KL."""


@dataclass(frozen=True)
class Settings:
    """What both sides are given."""

    updates: int = 30
    episodes: int = 64
    tokens: int = 48
    epochs: int = 2
    minibatches: int = 4
    learning_rate: float = 2e-4
    kl_coef: float = 0.05
    missing_eos: float | None = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coef: float = 0.1
    adam_eps: float = 1e-5


SETTINGS = {
    "reviews": Settings(),
    "stories": Settings(tokens=64, learning_rate=1e-4, kl_coef=0.015, missing_eos=None),
}
"""The learning rates, KL coefficients and lengths of the default run and of conf/experiment/lexicon_stories.yaml, with fewer episodes."""


@dataclass(frozen=True)
class World:
    """What a task's policy starts from and is scored by, the same on both sides."""

    start: Path
    task: str
    task_settings: dict[str, Any]
    scorer: str
    scorer_settings: dict[str, Any]

    def overrides(self) -> list[str]:
        """The choices as words of a command."""
        chosen = [("task", self.task, self.task_settings), ("rollout_scorer", self.scorer, self.scorer_settings)]
        words = [f"{group}={name}" for group, name, _ in chosen]
        return words + [f"{group}.{key}={value}" for group, _, settings in chosen for key, value in settings.items()]


def command(folder: Path, *words: str) -> None:
    """One `train.py` command in a process of its own, its run in `folder`."""
    given = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={folder.resolve()}", *words]
    run(given, dict(os.environ))


def run(given: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(given, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(given)} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")


def world_of(task: str, seed: int, given: argparse.Namespace) -> World:
    """The world of a task and seed, made where it isn't there yet."""
    if task == "reviews":
        folder = given.out / f"reviews-world-{seed}"
        reward_model = folder / "round_1" / "reward_model"
        if not reward_model.exists():
            command(folder, "stage=rounds", "stage.max_rounds=1", "ppo.updates=1", f"seed={seed}", "logger=none")
        return World(folder / "sft", "reviews", {}, "reward_model", {"path": str(reward_model.resolve())})
    folder = given.out / "stories-start"
    if not folder.exists():
        write_one_end(given.stories, folder)
    files = {"prompts": str(given.story_prompts.resolve())}
    return World(folder, "files", files, "lexicon", {"path": str(given.lexicon.resolve())})


def write_one_end(model: Path, folder: Path) -> None:
    """A copy of the model with a single end-of-text token, the first that its generation config names: TRL knows one only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf_lightning.config.atomic_write import write_folder

    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    ends = policy.generation_config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    policy.generation_config.eos_token_id = policy.config.eos_token_id = end

    def write(target: Path) -> None:
        policy.save_pretrained(target)
        tokenizer.save_pretrained(target)

    write_folder(folder, write)


def ours(world: World, settings: Settings, seed: int, folder: Path, critic: str) -> list[dict[str, float]]:
    """Our side; the metrics of every update. Leaves folder/policy."""
    shapings = ["rollout_shaping=[]"]
    if settings.missing_eos is not None:
        shapings = ["rollout_shaping=[missing_eos]", f"rollout_shaping.missing_eos.penalty={settings.missing_eos}"]
    words = f"""stage=ppo backbone=causal backbone.path={world.start.resolve()} seed={seed} logger=csv evaluation.responses=64
        policy_critic={critic} ppo.updates={settings.updates} ppo.prompts_per_update={settings.episodes} ppo.responses_per_prompt=1
        ppo.epochs={settings.epochs} ppo.num_minibatches={settings.minibatches} ppo.learning_rate={settings.learning_rate}
        schedule=anneal ppo.value_coef={settings.value_coef} ppo.entropy_coef=0 ppo.max_grad_norm=1e9
        optimizer.eps={settings.adam_eps} advantage=gae advantage.gamma={settings.gamma} advantage.lam={settings.lam}
        policy_loss=ppo_clip policy_loss.clip_ratio={settings.clip} policy_value_loss=clipped
        policy_value_loss.clip_range={settings.value_clip} policy_reduction=token_mean policy_kl_control=fixed
        policy_kl_control.coef={settings.kl_coef} rollout_sampler.max_new_tokens={settings.tokens} rollout_sampler.temperature=1"""
    command(folder, *words.split(), *shapings, *world.overrides())
    names = {"kl": "objective/kl", "score": "objective/scores", "length": "val/response_length", "approxkl": "policy/approxkl_avg",
             "value_loss": "loss/value_avg", "lr": "lr"}  # fmt: skip
    logged = np.genfromtxt(folder / "logs" / "ppo" / "metrics.csv", delimiter=",", names=True, deletechars="", replace_space=" ")
    return [{short: float(row[name]) for short, name in names.items()} for row in logged]


def trl(world: World, settings: Settings, seed: int, folder: Path, where: Path) -> list[dict[str, float]]:
    """TRL's side on the prompts of ours, in an order of its own; the metrics of every update. Leaves folder/policy."""
    from rlhf_lightning.backbone.causal import causal
    from rlhf_lightning.rollout.prompts import prompt_loader

    task = make("task", world.task, world.task_settings)
    loader = prompt_loader(
        task.train_prompts(), causal((), path=str(world.start)), settings.updates, settings.episodes, settings.tokens,
        seed=seed, rank=0, world=1,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "start": str(world.start.resolve()), "policy": str((folder / "policy").resolve()), "scorer": world.scorer, "seed": seed,
        "scorer_settings": world.scorer_settings, "settings": asdict(settings),
        "prompts": [text for batch in loader for text in batch.prompts],
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(where.resolve()), os.environ.get("PYTHONPATH", "")])}
    script = Path(__file__).resolve().with_name("score_against_kl_trl.py")
    run([sys.executable, str(script), str(folder / "spec.json"), str(folder / "updates.json")], environment)
    updates: list[dict[str, float]] = json.loads((folder / "updates.json").read_text())
    return updates


def held_out(world: World, settings: Settings, policy: Path) -> dict[str, float]:
    """Score, KL and, where it is known, utility of a policy's responses to prompts that it wasn't trained on; the same draw for all."""
    from rlhf_lightning.backbone.causal import causal
    from rlhf_lightning.evaluation.measure import measure
    from rlhf_lightning.evaluation.metric.utility import utility
    from rlhf_lightning.evaluation.settings import EvaluationSettings
    from rlhf_lightning.rollout.sampler.native import native

    task = make("task", world.task, world.task_settings)
    metrics = {"score": scorer_of(world.scorer, json.dumps(world.scorer_settings))}
    if task.has_utility:
        metrics["utility"] = partial(utility, task)
    found = measure(
        causal((), path=str(policy)), task.test_prompts(), partial(native, max_new_tokens=settings.tokens), metrics,
        EvaluationSettings(responses=RESPONSES), max_new_tokens=settings.tokens, seed=0, reference=causal((), path=str(world.start)),
    )  # fmt: skip
    return {name: found.mean(name) for name in metrics} | {"kl": float(found.kl or 0.0)}


@cache
def scorer_of(name: str, settings: str) -> Any:
    return make("rollout_scorer", name, json.loads(settings))


def start_of(task: str, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """`held_out` of the start, measured once."""
    world = world_of(task, seed, given)
    file = world.start.parent / f"{world.start.name}-held_out.json"
    if not file.exists():
        file.write_text(json.dumps(held_out(world, SETTINGS[task], world.start)))
    found: dict[str, float] = json.loads(file.read_text())
    return found


def result_of(task: str, side: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The result of one side, from its file or by running it."""
    file = given.out / f"{task}-{side}-{seed}.json"
    if not file.exists():
        world, settings, folder = world_of(task, seed, given), SETTINGS[task], given.out / f"{task}-{side}-{seed}"
        started = time.perf_counter()
        if side == "trl":
            updates = trl(world, settings, seed, folder, given.trl)
        else:
            updates = ours(world, settings, seed, folder, "separate" if side == "ours" else "shared")
        final = held_out(world, settings, folder / "policy")
        found = {"task": task, "side": side, "seed": seed, "settings": asdict(settings), "updates": updates, "final": final,
                 "start": start_of(task, seed, given), "seconds": time.perf_counter() - started}  # fmt: skip
        file.write_text(json.dumps(found))
        print(f"{task} {side} seed {seed}: {found['seconds']:.0f} s, " + ", ".join(f"{k} {v:.3f}" for k, v in final.items()), flush=True)
    result: dict[str, Any] = json.loads(file.read_text())
    if result["settings"] != asdict(SETTINGS[task]):
        raise SystemExit(f"{file} was made with other settings: remove it, or give another --out")
    return result


def curve(result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """KL and score of windows of updates, by rising KL."""
    kernel = np.ones(WINDOW) / WINDOW
    kl, score = (np.convolve([update[name] for update in result["updates"]], kernel, "valid") for name in ("kl", "score"))
    order = np.argsort(kl)
    return kl[order], score[order]


def at_equal_kl(one: dict[str, Any], other: dict[str, Any], share: float) -> tuple[float, float, float]:
    """A KL, `share` of the way up to the highest that both have reached, and both scores there, interpolated on their curves."""
    (kl, score), (other_kl, other_score) = curve(one), curve(other)
    low, high = max(kl[0], other_kl[0]), min(kl[-1], other_kl[-1])
    place = low + share * (high - low)
    return float(place), float(np.interp(place, kl, score)), float(np.interp(place, other_kl, other_score))


def gains(one: dict[str, Any], peer: dict[str, Any], coef: float) -> dict[str, float]:
    """What is better by how much than the peer's, for one seed."""
    mine, theirs = one["final"], peer["final"]
    found = {name: mine[name] - theirs[name] for name in mine}
    found["score less KL penalty"] = found["score"] - coef * found["kl"]
    for share in (0.5, 1.0):
        _, score, other = at_equal_kl(one, peer, share)
        found[f"score at equal KL, {share:.0%} of the way"] = score - other
    return found


def table(task: str, results: dict[str, list[dict[str, Any]]]) -> str:
    """Finals by seed, scores at equal KL, and paired differences to TRL's."""
    settings = SETTINGS[task]
    lines = [f"{task}: {settings.updates} updates of {settings.episodes} episodes", ""]
    lines += ["| seed | side | held-out score | KL | utility | last updates' score | KL |", "|---|---|---|---|---|---|---|"]
    for rows in zip(*results.values(), strict=True):
        for row in rows:
            last = {name: np.mean([update[name] for update in row["updates"][-WINDOW:]]) for name in ("score", "kl")}
            utility = f"{row['final']['utility']:.3f}" if "utility" in row["final"] else "-"
            lines.append(
                f"| {row['seed']} | {row['side']} | {row['final']['score']:.3f} (from {row['start']['score']:.3f}) | "
                f"{row['final']['kl']:.2f} | {utility} | {last['score']:.3f} | {last['kl']:.2f} |"
            )
    peers = results.get("trl", [])
    for side in [side for side in results if side != "trl" and peers]:
        lines += ["", "| seed | KL | " + side + " | trl | KL | " + side + " | trl |", "|---|---|---|---|---|---|---|"]
        for row, peer in zip(results[side], peers, strict=True):
            halves = [at_equal_kl(row, peer, share) for share in (0.5, 1.0)]
            lines.append(f"| {row['seed']} | " + " | ".join(f"{kl:.2f} | {a:.3f} | {b:.3f}" for kl, a, b in halves) + " |")
        lines += ["", f"| {side} less trl, {len(peers)} seeds | mean | 95 % interval |", "|---|---|---|"]
        found = [gains(row, peer, settings.kl_coef) for row, peer in zip(results[side], peers, strict=True)]
        for name in found[0]:
            interval = mean_interval([one[name] for one in found])
            lines.append(f"| {name} | {interval.mean:+.3f} | {interval.low:+.3f} to {interval.high:+.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trl", type=Path, help="where TRL 1.12 is installed")
    parser.add_argument("--tasks", default=",".join(SETTINGS))
    parser.add_argument("--sides", default="ours,trl")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stories", type=Path, help="folder of a causal language model")
    parser.add_argument("--story-prompts", type=Path, help="JSON Lines with the field prompt")
    parser.add_argument("--lexicon", type=Path, help="one word<tab>valence a line")
    given = parser.parse_args()
    tasks, sides = given.tasks.split(","), given.sides.split(",")
    if "trl" in sides and given.trl is None:
        parser.error("--trl says where TRL 1.12 is installed; or leave it out of --sides")
    if "stories" in tasks and None in (given.stories, given.story_prompts, given.lexicon):
        parser.error("--tasks stories needs --stories, --story-prompts and --lexicon")
    given.out.mkdir(parents=True, exist_ok=True)
    load_components()
    everything = []
    for task in tasks:
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for seed in range(given.seeds):
            for side in sides:
                results[side].append(result_of(task, side, seed, given))
        everything += [row for rows in results.values() for row in rows]
        print(table(task, results), flush=True)
    lines = [
        json.dumps({"task": row["task"], "side": row["side"], "seed": row["seed"], "update": number, **update})
        for row in everything
        for number, update in enumerate(row["updates"], start=1)
    ]
    (given.out / "curves.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
