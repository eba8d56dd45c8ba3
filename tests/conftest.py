"""Fixtures for every test: the golden numbers of other frameworks, and records made from tensors."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.flow import Experience, ScoredRollout, score_on_last_token

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


@pytest.fixture(params=["gpt2", "llama"])
def language_model(request: pytest.FixtureRequest) -> LanguageModel:
    """A fresh tiny model of each position scheme: GPT-2 reads absolute positions, Llama rotary ones."""
    return make_tiny(request.param)


@pytest.fixture(scope="session")
def tiny_of() -> Callable[..., LanguageModel]:
    return make_tiny
