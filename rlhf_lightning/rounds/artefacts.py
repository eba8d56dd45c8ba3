"""Files of a round: samples, questions, feedback, measurements, histories and adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.flow import Feedback, Message, Prompt, Record

if TYPE_CHECKING:
    from rlhf_lightning.evaluation.measure import Measured
    from rlhf_lightning.model.language_model import LanguageModel

SAMPLES, QUESTIONS, FEEDBACK, COMPARISON = "samples.jsonl", "questions.jsonl", "feedback.jsonl", "comparison.jsonl"
RANDOM = "random"
"""The rule of questions that were drawn uniformly."""
MEASURED, HISTORY, ADAPTERS = "measured.json", "history.json", "adapters.safetensors"


class Group(Record):
    """A prompt with responses that are judged together.

    Attributes:
        selected_by: the rule that chose the question; None if all are asked.
    """

    prompt: Prompt
    responses: tuple[str, ...]
    selected_by: str | None = None


def write_groups(path: Path, groups: Iterable[Group]) -> None:
    """Write groups as JSON Lines, readable by the owner only."""
    write_atomic(path, "".join(group.model_dump_json() + "\n" for group in groups), private=True)


def read_groups(path: Path) -> list[Group]:
    return [Group.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_feedback(path: Path, feedback: Iterable[Feedback]) -> None:
    """Write feedback as JSON Lines, readable by the owner only."""
    write_atomic(path, "".join(record.model_dump_json() + "\n" for record in feedback), private=True)


def with_selection(feedback: Sequence[Feedback], questions: Sequence[Group]) -> list[Feedback]:
    """Give feedback the rule that selected its question, by its prompt and responses.

    A judgement of one response may be of several questions: it is then of the one that was not drawn at random, so that the random part
    stays unbiased.
    """
    of_group = {(question.prompt, frozenset(question.responses)): question.selected_by for question in questions}
    of_response: dict[tuple[Prompt, str], str | None] = {}
    for question in sorted(questions, key=lambda question: question.selected_by != RANDOM):
        of_response |= dict.fromkeys([(question.prompt, response) for response in question.responses], question.selected_by)
    if not any(of_group.values()):
        return list(feedback)

    def rule(record: Feedback) -> str | None:
        group_rule = of_group.get((record.prompt, frozenset(record.responses)))
        return group_rule if group_rule is not None else of_response.get((record.prompt, record.responses[0]))

    return [record.model_copy(update={"selected_by": rule(record)}) for record in feedback]


def read_feedback(path: Path) -> list[Feedback]:
    return [Feedback.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_measured(path: Path, measured: Measured) -> None:
    """Write a measurement as JSON; numbers are read back exactly."""
    prompts = [prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt] for prompt in measured.prompts]
    write_json(path, {**vars(measured), "prompts": prompts})


def read_measured(path: Path) -> Measured:
    from rlhf_lightning.evaluation.measure import Measured

    content = read_json(path)
    prompts: list[Prompt] = [
        prompt if isinstance(prompt, str) else tuple(Message(**message) for message in prompt) for prompt in content["prompts"]
    ]
    return Measured(prompts, content["responses"], content["values"], content["kl"])


def write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content, ensure_ascii=False), private=True)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_adapters(policy: LanguageModel, path: Path) -> None:
    """Write the trained weights of a policy with adapters: its folder has them merged."""
    from safetensors.torch import save_file

    from rlhf_lightning.model.adapters import has_adapters
    from rlhf_lightning.training.periodic_evaluation import trained_weights

    if has_adapters(policy.model):
        save_file({name: weight.detach().cpu().contiguous() for name, weight in trained_weights(policy.model)}, path)


def load_weights(policy: LanguageModel, folder: Path, adapters: Path | None = None) -> None:
    """Give a policy the weights of its folder, or those of `save_adapters`, exactly."""
    import torch
    from safetensors.torch import load_file

    from rlhf_lightning.runtime.policy import load_policy

    if adapters is None or not adapters.is_file():
        policy.model.load_state_dict(load_policy(folder).model.state_dict())
        return
    weights = dict(policy.model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(adapters).items():
            weights[name].copy_(value)


def weight_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of weights in a model's folder, by name."""
    return {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def effort(feedback: Sequence[Feedback], annotators: Any) -> dict[str, Any]:
    """The seconds that people spent on judgements, and the annotators' cost; None if not recorded."""
    seconds = [record.seconds for record in feedback if record.seconds is not None]
    return {"people_seconds": sum(seconds) if seconds else None, "cost": getattr(annotators, "cost", None)}


def counts(feedback: Sequence[Feedback]) -> Mapping[str, int]:
    """The number of judgements of each kind."""
    kinds = [record.judgement.kind for record in feedback]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
