"""Two rounds with people: rounds, server and a scripted annotator are three processes; the rounds are killed and resumed.

    python benchmarks/rounds_with_people.py --model MODEL --prompts PROMPTS.jsonl --lexicon LEXICON.tsv --out build/people [--kills 10]

The annotator answers over HTTP, by the words of a lexicon. Runs once undisturbed and once with kills (SIGKILL) at random moments, each with
a database of its own, and compares the models, the win rate and the answers of both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
SIZES = [
    "stage.max_rounds=2", "stage.prompts=24", "stage.responses=2", "stage.comparisons=16", "rollout_sampler.max_new_tokens=16",
    "ppo.updates=2", "ppo.prompts_per_update=8", "evaluation.responses=16", "evaluation.samples=2", "reward.epochs=1",
    "reward.learning_rate=3e-4", "ppo.learning_rate=3e-4", "ppo.self_checks=false", "rollout_shaping=[]", "logger=none",
    "checkpoint.every=1", "reward.validation_fraction=0.3",
]  # fmt: skip


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *words], stdout=file, stderr=file, env=dict(os.environ))


class Annotator(threading.Thread):
    """A scripted person: prefers the response with the larger summed valence, until the server is gone."""

    def __init__(self, link: str, valence: dict[str, float]) -> None:
        super().__init__(daemon=True)
        self.link, self.valence, self.answers = link, valence, 0

    def value(self, text: str) -> float:
        return sum(self.valence.get(word.strip(".,!?\"'").lower(), 0.0) for word in text.split())

    def run(self) -> None:
        with httpx.Client(base_url=self.link.split("/t/")[0], follow_redirects=True, timeout=60) as client:
            page = client.get(self.link).text
            headers = {"x-csrf-token": re.search(r'name="csrf" content="(\w+)"', page)[1]}
            while True:
                try:
                    tasks = client.get("/api/state", headers=headers).json()["tasks"]
                    for task in tasks[:1]:
                        self.answer(client, headers, task)
                except httpx.HTTPError:
                    return
                time.sleep(0.01 if tasks else 0.2)

    def answer(self, client: httpx.Client, headers: dict[str, str], task: dict[str, Any]) -> None:
        first, second = (self.value(text) for text in task["responses"])
        choice = "tie" if first == second else "a" if first > second else "b"
        body = {"key": f"k-{task['assignment']}", "assignment": task["assignment"], "version": task["version"], "seconds": 2, "elapsed": 3}
        reply = client.post("/api/answer", headers=headers, json=body | {"steps": {"pairwise": {"choice": choice}}})
        self.answers += reply.status_code == 200
        if reply.status_code != 200:
            print(reply.status_code, reply.text[:300])


def job(options: argparse.Namespace, name: str, kills: int) -> dict[str, Any]:
    """Run the three processes until the rounds end; returns the digests of their files, the win rate and counts."""
    folder = options.out / name
    folder.mkdir(parents=True)
    database = f"collect.database={folder / 'people.sqlite'}"
    collect = ["stage=collect", "collect.items=database", "collect.annotators=[ada]", "collect.port=0", "logger=none", database]
    server = start([*collect, f"hydra.run.dir={folder / 'collect'}"], folder / "server.log")
    words = ["stage=rounds", "task=files", f"task.prompts={options.prompts}", "backbone=causal", f"backbone.path={options.model}"]
    words += ["feedback_annotator=[people]", "feedback_annotator.people.serve=false", database, "stage.target=win_rate>=0.99", *SIZES]
    words += [f"hydra.run.dir={folder / 'run'}", "resume=auto"]
    generator, killed = random.Random(0), 0
    try:
        while "Ctrl-C" not in (folder / "server.log").read_text():
            time.sleep(0.2)
        lines = (line.split("\t") for line in options.lexicon.read_text(encoding="utf-8").splitlines())
        link = re.search(r"^ada: (http\S+)$", (folder / "server.log").read_text(), re.MULTILINE)[1]
        annotator = Annotator(link, {word: float(value) for word, value, *_ in lines})
        annotator.start()
        while True:
            rounds = start(words, folder / "rounds.log")
            try:
                code = rounds.wait(timeout=generator.uniform(0.2, 1) * options.seconds if killed < kills else None)
            except subprocess.TimeoutExpired:
                rounds.send_signal(signal.SIGKILL)
                rounds.wait()
                killed += 1
                continue
            if code:
                raise SystemExit((folder / "rounds.log").read_text()[-3000:])
            break
    finally:
        server.terminate()
        server.wait()
    result = json.loads((folder / "run" / "result.json").read_text())
    models = {str(file.relative_to(folder)): digest(file) for file in sorted((folder / "run").rglob("*.safetensors"))}
    return {"kills": killed, "answers": annotator.answers, "metrics": result["metrics"], "models": models}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "prompts", "lexicon", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10, help="the latest moment of a kill after a start")
    options = parser.parse_args()
    options.out = options.out.resolve()
    undisturbed, killed = job(options, "undisturbed", 0), job(options, "killed", options.kills)
    for name in ("target", "target/low", "target/high"):
        print(f"{name}: {undisturbed['metrics'][name]:.3f}, killed {killed['metrics'][name]:.3f}")
    print(f"{killed['kills']} kills; answers {undisturbed['answers']}, killed {killed['answers']}")
    print("models equal:", undisturbed["models"] == killed["models"], "  metrics equal:", undisturbed["metrics"] == killed["metrics"])


if __name__ == "__main__":
    main()
