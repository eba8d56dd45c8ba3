"""Fixtures for every test: the golden numbers of other frameworks, and records made from tensors."""

from __future__ import annotations

import contextlib
import copy
import csv
import functools
import gzip
import io
import json
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.flow import Experience, ScoredRollout, score_on_last_token
from rlhf_lightning.model.language_model import LanguageModel

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other, and tests run in several processes
GOLDENS = Path(__file__).resolve().parents[2] / "shared" / "goldens" / "peer_goldens.json.gz"


def make_scored(mask: Tensor, **fields: Any) -> ScoredRollout:
    """A scored rollout of the given mask [B, T]; what isn't given is zero, one group, ended, with rewards from the scores."""
    rows, steps = mask.shape
    zeros = torch.zeros(rows, steps)
    scores = fields.pop("scores", torch.zeros(rows))
    known: dict[str, Any] = {
        "prompts": [f"prompt {i}" for i in range(rows)],
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "group": torch.zeros(rows, dtype=torch.long),
        "responses": [f"response {i}" for i in range(rows)],
        "response_ids": torch.zeros(rows, steps, dtype=torch.long),
        "response_mask": mask,
        "has_eos": torch.ones(rows, dtype=torch.bool),
        "sampled_log_probs": zeros,
        "scores": scores,
        "rewards": None if "rewards" in fields else score_on_last_token(scores, mask),
        "old_log_probs": zeros,
        "ref_log_probs": zeros,
        "entropy": zeros,
        "values": None,
        "kl_coef": 0.0,
    }
    assert fields.keys() <= known.keys()
    return ScoredRollout(**{**known, **fields})


@pytest.fixture(scope="session")
def scored_of() -> Callable[..., ScoredRollout]:
    return make_scored


@pytest.fixture(scope="session")
def experience_of() -> Callable[..., Experience]:
    """An Experience of the given mask and advantages; returns and the fields of a scored rollout by name."""

    def make(mask: Tensor, advantages: Tensor, returns: Tensor | None = None, **fields: Any) -> Experience:
        return Experience.of(make_scored(mask, **fields), advantages, returns)

    return make


TOLERANCES = {
    "same": {"float64": (1e-10, 1e-12), "float32": (2e-5, 1e-6)},  # the peer's convention is ours to the last eps
    "near": {"float64": (1e-7, 1e-9), "float32": (1e-4, 3e-6)},  # it adds an eps to a denominator or floors a variance
    "round": {"float64": (1e-6, 1e-6), "float32": (1e-4, 3e-6)},  # its n / (n - 1) is float32 whatever the input (int / int)
    "single": {"float64": (1e-4, 3e-6), "float32": (1e-4, 3e-6)},  # it computes in float32 whatever the input
}
"""(rtol, atol) by how near a peer's arithmetic is to ours, and by dtype."""

Ours = Mapping[str, Tensor | tuple[Tensor, Tensor]]
"""Our value for each recorded output; with a second tensor, compared where that is true."""


class Case:
    """A golden case: x the inputs by name, p the parameters, out the recorded outputs."""

    def __init__(self, raw: dict[str, Any], x: dict[str, Tensor]) -> None:
        self.x, self.p, self.uses, self.name = x, raw["params"], raw["uses"], f"{raw['id']} {raw['params']}"
        self.out = {name: read_golden(array) for name, array in raw.get("outputs", {}).items()}
        self.mask, self.dtype = x["mask"], raw["input_set"].split("/")[1]
        self.inside = self.mask > 0

    def scored(self, mask: Tensor | None = None, **fields: Any) -> ScoredRollout:
        """The inputs as a record; rewards from the tokens' where the case uses them, else the score on each row's last token."""
        rewards = self.x["token_rewards" if "token_rewards" in self.uses else "outcome_rewards"]
        known = {"group": self.x["group"], "scores": self.x["scores"], "rewards": rewards, "values": self.x["values_old"]}
        known |= {"old_log_probs": self.x["old_logp"], "ref_log_probs": self.x["ref_logp"]}
        return make_scored(self.mask if mask is None else mask, **{**known, **fields})

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments: each given as a value, or as the name of the peer's parameter."""
        return {ours: self.p[theirs] if isinstance(theirs, str) else theirs for ours, theirs in settings.items()}

    def disagreement(self, ours: Ours, tolerance: str, beside: Collection[str]) -> str:
        """'' where every recorded output agrees or is `beside`, else the first that doesn't."""
        assert ours.keys() | set(beside) == self.out.keys(), f"{self.name}: recorded {sorted(self.out)}, compared {sorted(ours)}"
        rtol, atol = TOLERANCES[tolerance][self.dtype]
        for name, value in ours.items():
            mine, kept = value if isinstance(value, tuple) else (value, torch.ones_like(value, dtype=torch.bool))
            assert kept.any(), f"{self.name}: nothing of {name} is compared"
            mine, theirs = mine[kept].double(), self.out[name].expand(kept.shape)[kept].double()
            if not torch.allclose(mine, theirs, rtol=rtol, atol=atol):
                return f"{self.name}: {name} {mine.flatten()[:6].tolist()} is not {theirs.flatten()[:6].tolist()}"
        return ""


class Goldens:
    """The recorded cases by (family, peer, function), and their inputs as tensors."""

    def __init__(self, path: Path) -> None:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        self.cases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for raw in stored["cases"]:
            self.cases.setdefault((raw["family"], raw["peer"], raw["function"]), []).append(raw)
        self._inputs = stored["inputs"]

    @functools.cache  # noqa: B019  (one object, for the session)
    def inputs(self, name: str) -> dict[str, Tensor]:
        return {key: read_golden(array) for key, array in self._inputs[name].items()}

    def hold(
        self,
        key: tuple[str, str, str],
        ours: Callable[[Case], Ours],
        where: Callable[[Case], bool] | None = None,
        because: str = "",
        tolerance: str = "same",
        beside: Collection[str] = (),
    ) -> None:
        """Hold ours to every case of a peer's function, or to those `where` it must be equal; the others differ `because`."""
        cases = [Case(raw, self.inputs(raw["input_set"])) for raw in self.cases[key]]
        equal = [case for case in cases if where is None or where(case)]
        assert equal
        assert [found for case in equal if (found := case.disagreement(ours(case), tolerance, beside))] == []
        if where is not None:  # the condition is needed, and has its reason
            assert because
            assert any(case.disagreement(ours(case), tolerance, beside) for case in cases if not where(case))


def read_golden(array: Any) -> Tensor:
    """A stored number, or array {dtype, shape, data}; non-finite numbers are written as strings."""
    if not isinstance(array, dict):
        return torch.tensor(float(array), dtype=torch.float64)

    def number(value: Any) -> Any:
        return [number(v) for v in value] if isinstance(value, list) else float(value) if isinstance(value, str) else value

    return torch.tensor(number(array["data"]), dtype=getattr(torch, array["dtype"])).reshape(array["shape"])


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    if not GOLDENS.exists():
        pytest.skip("the goldens are not beside the repository")
    return Goldens(GOLDENS)


CORPUS = ["The kettle boils water quickly.", "It is a quiet fan, and it costs little.", "Review of a lamp:\n"] * 4


def make_tiny(family: Literal["gpt2", "llama"], seed: int = 0) -> LanguageModel:
    """An untrained model whose weights are large enough that an error of position or padding shows in its outputs."""
    torch.manual_seed(seed)
    language_model = tiny(CORPUS, family=family, layers=2, width=32, heads=4, vocabulary=320, positions=64)
    with torch.no_grad():
        for parameter in language_model.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    language_model.model.eval()
    return language_model


def word_pieces(style: Literal["bert", "roberta", "t5"]) -> Any:
    """A tokenizer of words and characters, with the special tokens and template of the named family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pad, unknown, first, end = {
        "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        "roberta": ("<pad>", "<unk>", "<s>", "</s>"),
        "t5": ("<pad>", "<unk>", None, "</s>"),
    }[style]
    special = [token for token in (pad, unknown, first, end) if token]
    pieces = Tokenizer(models.WordPiece(unk_token=unknown))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    single, pair = {
        "bert": (f"{first} $A {end}", f"{first} $A {end} $B:1 {end}:1"),
        "roberta": (f"{first} $A {end}", f"{first} $A {end} {end} $B {end}"),
        "t5": (f"$A {end}", f"$A {end} $B {end}"),
    }[style]
    ids = [(token, pieces.token_to_id(token)) for token in special]
    pieces.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    names = {"cls_token": first, "sep_token": end} if first else {}
    names |= {} if style == "bert" else {"eos_token": end}
    names |= {"bos_token": first} if style == "roberta" else {}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token=pad, unk_token=unknown, **names)


def write_reader(family: str, folder: Path, seed: int = 0) -> str:
    """A folder with an untrained encoder or encoder-decoder and its tokenizer, its weights large enough that errors show."""
    import transformers as hf

    tokenizer = word_pieces(
        {"bert": "bert", "distilbert": "bert", "modernbert": "bert", "roberta": "roberta", "bart": "roberta"}.get(family, "t5")
    )
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = {
        "bert": lambda: hf.BertConfig(**ids, **small, max_position_embeddings=64),
        "roberta": lambda: hf.RobertaConfig(**ids, **small, **ends, max_position_embeddings=64, type_vocab_size=1),
        "distilbert": lambda: hf.DistilBertConfig(**ids, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64),
        "modernbert": lambda: hf.ModernBertConfig(
            **ids, **small, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, max_position_embeddings=64
        ),
        "t5": lambda: hf.T5Config(
            **ids, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0, decoder_start_token_id=ids["pad_token_id"],
            eos_token_id=tokenizer.eos_token_id,
        ),
        "bart": lambda: hf.BartConfig(
            **ids, **ends, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, decoder_start_token_id=tokenizer.eos_token_id,
        ),
    }[family]()  # fmt: skip
    torch.manual_seed(seed)
    model = hf.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.0 if family == "t5" else 6.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def trunk_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny trunk by family: gpt2, llama; bert, roberta, distilbert, modernbert; t5, bart."""

    @functools.cache
    def folder(family: str) -> str:
        target = tmp_path_factory.mktemp(family)
        if family not in ("gpt2", "llama"):
            return write_reader(family, target)
        make_tiny("gpt2" if family == "gpt2" else "llama").save(target)
        return str(target)

    return folder


@pytest.fixture(params=["gpt2", "llama"])
def language_model(request: pytest.FixtureRequest) -> LanguageModel:
    """A fresh tiny model of each position scheme: GPT-2 reads absolute positions, Llama rotary ones."""
    return make_tiny(request.param)


def give_begin_of_text(language_model: LanguageModel) -> LanguageModel:
    """The model with a tokenizer that begins each text with a token of its own, as Llama's and Gemma's do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = language_model.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    language_model.model.resize_token_embeddings(len(tokenizer))
    return language_model


@pytest.fixture(params=[False, True], ids=["no begin-of-text", "begin-of-text"])
def either_tokenizer(request: pytest.FixtureRequest) -> LanguageModel:
    """A fresh tiny model whose tokenizer has no begin-of-text token, and one whose tokenizer puts one first."""
    return give_begin_of_text(make_tiny("llama")) if request.param else make_tiny("llama")


@pytest.fixture(scope="session")
def tiny_of() -> Callable[..., LanguageModel]:
    return make_tiny


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """A tiny model with random weights of any family of transformers: `tiny_model("mamba", "causal")`."""
    from tests.model.families import tiny_model

    return tiny_model


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, what it printed, and the folder of its run."""

    code: int
    out: str
    error: str
    folder: Path

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def run_command(*words: str, folder: Path, workdir: Path | None = None) -> Outcome:
    """`python train.py` with these words in this process, which is a second faster than in one of its own.

    Composing once and not twice is the only difference: Hydra composes the whole command first to learn whether it is a sweep.
    """
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from rlhf_lightning.cli.main import main

    GlobalHydra.instance().clear()
    runs = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
    out, error, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        sweep, rest = [word for word in words if word == "-m"], [word for word in words if word != "-m"]
        patch.setattr(
            sys,
            "argv",
            ["train.py", *sweep, *([] if words[0] in ("components", "new", "--help") or words[0].startswith("resume=") else runs), *rest],
        )
        patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        patch.setenv("COLUMNS", "200")
        patch.chdir(workdir or Path.cwd())
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), error.getvalue(), folder)


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Runs a command in this process: `command("stage=sft", ...)`."""

    def run(*words: str, folder: Path | None = None, workdir: Path | None = None) -> Outcome:
        return run_command(*words, folder=folder or tmp_path_factory.mktemp("run"), workdir=workdir)

    return run


def what_was_learned(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """All weights that a run leaves, and the metrics of each step but for its speeds."""
    from safetensors.torch import load_file

    weights = {f"{file.name}/{name}": value for file in sorted(folder.glob("**/*.safetensors")) for name, value in load_file(file).items()}
    metrics: list[dict[str, float]] = []
    for file in folder.glob("**/metrics.csv"):
        with file.open() as lines:
            rows = [{name: float(v) for name, v in row.items() if v and not name.startswith("perf/")} for row in csv.DictReader(lines)]
            metrics += [row for row in rows if row.keys() > {"step"}]
    return weights, metrics


@pytest.fixture(scope="session")
def learned() -> Callable[[Path], tuple[dict[str, Tensor], list[dict[str, float]]]]:
    return what_was_learned


@pytest.fixture
def untouched() -> Iterator[None]:
    """The registry as the package fills it, and as it was afterwards."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from rlhf_lightning import registry
    from rlhf_lightning.config import presets

    registry.load_components()
    Plugins.instance()  # Hydra's own put their configurations into the store once
    store, modules = ConfigStore.instance(), _plugin_modules()
    known = copy.copy(registry._components), copy.copy(registry._sections), copy.deepcopy(store.repo)
    paths, of_plugins = list(sys.modules["plugins"].__path__), list(presets._of_plugins)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_PLUGINS", "")
        yield
    registry._components, registry._sections, store.repo = known
    for component in registry._components.values():
        component.target.Config = component.config  # type: ignore[attr-defined]
    sys.modules["plugins"].__path__[:], presets._of_plugins[:] = paths, of_plugins
    for name in _plugin_modules():
        del sys.modules[name]
    sys.modules.update(modules)  # those that a test put another of the same name in the place of, too


def _plugin_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.startswith("plugins.")}


@pytest.fixture
def plugin(untouched: None, tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a plugin file and loads the folder; returns the complaints."""
    from rlhf_lightning import registry

    def write(name: str, text: str) -> list[str]:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        heading = "from __future__ import annotations\nfrom rlhf_lightning.registry import register\n"
        (folder / f"{name}.py").write_text(heading + textwrap.dedent(text))
        return registry.load_components([folder])

    return write


THINGS = ["lamp", "fan", "kettle", "tent", "desk", "rug", "pen", "bike", "clock", "boat", "vase", "drum"]


@dataclass(frozen=True)
class World:
    """The smallest of everything: files, a policy and a reward model, and the words that make each stage take a second."""

    files: Path
    policy: Path
    reward_model: Path

    @property
    def task(self) -> list[str]:
        prompts = self.files / "prompts.jsonl"
        return ["task=files", f"task.prompts={prompts}", f"task.demonstrations={prompts}", "task.test_fraction=0.3"]

    @property
    def sizes(self) -> list[str]:
        """Sizes that every stage takes."""
        return [
            "logger=none", "rollout_sampler.max_new_tokens=8", "evaluation.responses=4", "evaluation.samples=2",
            "sft.epochs=1", "sft.batch_size=4", "reward.epochs=1", "reward.batch_size=16", "reward.validation_fraction=0.3",
            "preference.epochs=1", "preference.batch_size=16", "preference.validation_fraction=0.3",
            "ppo.updates=2", "ppo.prompts_per_update=4", "ppo.responses_per_prompt=2", "ppo.num_minibatches=2",
        ]  # fmt: skip

    @property
    def tiny(self) -> list[str]:
        return ["backbone=tiny", "backbone.layers=1", "backbone.width=16", "backbone.heads=2", "backbone.vocabulary=300"]

    @property
    def trained(self) -> list[str]:
        return ["backbone=causal", f"backbone.path={self.policy}"]

    def reader(self, family: str) -> list[str]:
        """A tiny encoder or encoder-decoder as the backbone (`write_reader`)."""
        folder = self.files / family
        if not folder.exists():
            write_reader(family, folder)
        return [f"backbone={'encoder_decoder' if family in ('t5', 'bart') else 'encoder'}", f"backbone.path={folder}"]

    @property
    def scorer(self) -> list[str]:
        return ["rollout_scorer=reward_model", f"rollout_scorer.path={self.reward_model}"]

    @property
    def feedback(self) -> list[str]:
        return ["feedback_source=jsonl", f"feedback_source.jsonl.path={self.files / 'feedback.jsonl'}"]

    @property
    def aspects(self) -> list[str]:
        """The feedback, and ratings of two aspects: "truth" and "length"."""
        file = f"feedback_source.jsonl.path={self.files / 'aspects.jsonl'}"
        formats = ["feedback_format=[attributes,rating,ranking,edit,pairwise]", "feedback_format.attributes.ratings=aspects"]
        return ["feedback_source=jsonl", file, *formats, "feedback_format.attributes.scale=[1,7]"]

    def sft(self, *words: str) -> list[str]:
        return ["stage=sft", *self.task, *self.tiny, *self.sizes, *words]

    def reward(self, *words: str) -> list[str]:
        return ["stage=reward", *self.trained, *self.feedback, *self.sizes, *words]

    def preference(self, *words: str) -> list[str]:
        return ["stage=preference", *self.task, *self.trained, *self.feedback, *self.sizes, *words]

    def evaluate_reward(self, *words: str) -> list[str]:
        return ["stage=evaluate_reward", *self.feedback, "logger=none", f"stage.models=[{self.reward_model}]", *words]

    def inspect(self, *words: str) -> list[str]:
        return ["stage=inspect", *self.feedback, "logger=none", *words]

    def plan(self, *words: str) -> list[str]:
        return ["stage=plan", *self.ppo()[1:], *words]

    def explain(self, *words: str) -> list[str]:
        return ["stage=explain", f"stage.model={self.reward_model}", "stage.limit=3", *self.feedback, "logger=none", *words]

    def ppo(self, *words: str) -> list[str]:
        return ["stage=ppo", *self.task, *self.trained, *self.scorer, *self.sizes, *words]

    def evaluate(self, *words: str) -> list[str]:
        return ["stage=evaluate", *self.task, *self.trained, *self.sizes, *words]

    def rounds(self, *words: str) -> list[str]:
        """One round on the embedded task."""
        return [
            "stage=rounds", *self.tiny, *self.sizes, "backbone.positions=128", "task.demonstrations=60", "stage.max_rounds=1",
            "stage.prompts=24", "stage.responses=3", *words,
        ]  # fmt: skip


def write_world(files: Path) -> None:
    """Prompts with demonstrations, feedback of four kinds on each prompt, and a lexicon."""
    asked = [f"The {thing}:" for thing in THINGS]
    rows: list[dict[str, Any]] = []
    for i, (thing, prompt) in enumerate(zip(THINGS, asked, strict=True)):
        good, bad, middle = f" a good {thing}.", f" bad, bad {thing}", f" it is {thing}."
        rows += [
            {"prompt": prompt, "chosen": good, "rejected": bad},
            {"prompt": prompt, "response": good, "rating": 5 + i % 3, "scale": [1, 7], "annotator": "ann"},
            {"prompt": prompt, "response": bad, "rating": 1 + i % 3, "scale": [1, 7], "annotator": "ann"},
            {"prompt": prompt, "responses": [good, bad, middle], "ranking": [0, 2, 1]},
            {"prompt": prompt, "response": middle, "edit": good},
        ]
    demonstrations = [{"prompt": p, "response": f" a good {t}."} for p, t in zip(asked, THINGS, strict=True)]
    aspects = [
        {"prompt": row["prompt"], "response": row["response"], "aspects": {"truth": row["rating"], "length": 8 - row["rating"]}}
        for row in rows
        if "rating" in row
    ]
    for name, content in (("prompts", demonstrations), ("feedback", rows), ("aspects", [*rows, *aspects])):
        (files / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    (files / "lexicon.tsv").write_text("good\t2.0\nbad\t-2.0\n")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Outcome]) -> World:
    """Made once, by stage=sft and stage=reward themselves."""
    files = tmp_path_factory.mktemp("world")
    write_world(files)
    made = World(files, files / "sft" / "policy", files / "reward" / "reward_model")
    for stage, words in (("sft", made.sft("backbone.positions=64", "sft.epochs=2")), ("reward", made.reward())):
        outcome = command(*words, folder=files / stage)
        assert outcome.code == 0, outcome.error
    return made
