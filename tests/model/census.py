"""Census of the families of the installed transformers: each stage compared with plain transformers on tiny models.

`python -m tests.model.census > docs/models.md` writes the page; with names of families as arguments, it prints a line for each.
`--jobs 4` examines four families at a time, each in a process with a limit on its CPU time.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.backbone.encoder_decoder import encoder_decoder
from rlhf_lightning.backbone.tiny import byte_level_bpe
from rlhf_lightning.errors import UserError
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.output_layer import LogitForm, logit_form
from rlhf_lightning.model.packing import PackedTokens, accepted_arguments
from rlhf_lightning.model.text_vectors import batching
from rlhf_lightning.model.token_log_probs import response_log_probs
from rlhf_lightning.model.trunk import clamp_length, load_trunk, trunk_width
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.experience import PPOComponents
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.module import PPOModule
from rlhf_lightning.policy.objective import token_weights
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.tuning.lora import lora
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.preference.loss.dpo import DPO
from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.storage.folder import load_reward_model, save_reward_model
from rlhf_lightning.rollout.sampler import _decoder
from rlhf_lightning.rollout.sampler.native import draw, native
from rlhf_lightning.sft.module import SFTModule
from rlhf_lightning.sft.settings import SFTSettings
from tests.model.families import AUTO_MODELS, FAMILIES, PAD, Kind, plain_run, tiny_model

TOLERANCE = 1e-4
"""Maximum difference of a response's summed log-probability in nats, and of a score."""
PROMPTS = ["It", "A lamp:\n", "The kettle", "A fan, "]
RESPONSES = [" is a good lamp", " no", "ok then it goes", " bad"]
OPTIONS: dict[Kind, Any] = {"causal": causal, "encoder_decoder": encoder_decoder}
DECODERS = {
    "_packed_decoder": "packed", "_padded_decoder": "padded", "_equal_lengths": "equal lengths", "_equal_lengths_masked": "equal lengths",
    "_equal_lengths_all_rows": "equal lengths, all rows", "_cacheless": "without a cache", "_cross": "padded",
}  # fmt: skip


class WrongError(Exception):
    """A number differs from plain transformers."""


@dataclass(frozen=True)
class Row:
    """The result of a family: "correct", "rejected", "not runnable" in transformers itself, or "wrong"."""

    family: str
    result: str
    batching: str = ""
    sampling: str = ""
    logits: str = ""
    note: str = ""


def examine(family: str, kind: Kind) -> Row:
    """Run every stage with a model of the family, and compare the results with plain transformers."""
    with tempfile.TemporaryDirectory() as folder:
        row = examine_family(family, kind, Path(folder))
        return replace(row, note=row.note.replace(f"{folder}/", ""))


def examine_family(family: str, kind: Kind, folder: Path) -> Row:
    """`examine` with a folder for the models that it saves."""
    try:
        try:
            model = tiny_model(family, kind)
            plain_run(model, kind)
        except Exception as cause:
            return Row(family, "not runnable", note=first_line(cause))
        if kind != "encoder":
            model.generation_config.eos_token_id = 1
        byte_level_bpe(["It is a good lamp"], 300).save_pretrained(folder / "model")
        try:
            model.save_pretrained(folder / "model")
            plain = AUTO_MODELS[kind].from_pretrained(folder / "model").eval()
            plain_run(plain, kind)
        except Exception as cause:
            return Row(family, "not runnable", note=f"saved and loaded by transformers: {first_line(cause)}")
        return examine_encoder(family, plain, folder) if kind == "encoder" else examine_generator(family, kind, plain, folder)
    except UserError as cause:
        return Row(family, "rejected", note=first_line(cause))
    except WrongError as cause:
        return Row(family, "wrong", note=str(cause))
    except Exception as cause:
        frame = traceback.extract_tb(cause.__traceback__)[-1]
        return Row(family, "wrong", note=f"{first_line(cause)} ({Path(frame.filename).name}:{frame.lineno})")


def first_line(cause: BaseException) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    line = lines[0] if lines else ""
    return line if isinstance(cause, UserError) else f"{type(cause).__name__}: {line}"


def check_close(what: str, values: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raise WrongError if values differ by more than the tolerance."""
    difference = (values.detach() - expected.detach()).abs().max().item()
    if not difference <= tolerance:
        raise WrongError(f"{what} differs by {difference:.1g}")


def eval_mode(language_model: LanguageModel) -> LanguageModel:
    language_model.model.eval()
    return language_model


# Policies: decoder-only models and encoder-decoders.


def examine_generator(family: str, kind: Kind, plain: Any, folder: Path) -> Row:
    path = str(folder / "model")
    language_model: LanguageModel = OPTIONS[kind]([], path=path)
    check_log_probs(language_model, plain)
    check_sampler(language_model, plain)
    notes = rejection_notes("reward", lambda: examine_reward(path, kind))
    for check_step in (check_sft_step, check_dpo_step, check_ppo_step):
        trained = copy.deepcopy(language_model)
        check_step(trained, copy.deepcopy(plain))
        if check_step is check_sft_step:
            check_saved(trained, kind, folder / "saved")
    notes += rejection_notes("LoRA", lambda: check_lora(copy.deepcopy(language_model), kind, folder / "lora"))
    form = logit_form(language_model.model)
    logits = "own head" if form is None else "" if form == LogitForm() else describe_form(form)
    sampling = DECODERS[_decoder._choose(language_model).__name__]
    return Row(family, "correct", batching(language_model.trunk).value, sampling, logits, "; ".join(notes))


def rejection_notes(what: str, check: Callable[[], Any]) -> list[str]:
    """The reason for rejecting a use of the model, if any."""
    try:
        check()
    except UserError as cause:
        return [f"{what} is rejected: {first_line(cause)}"]
    return []


def describe_form(form: LogitForm) -> str:
    words = [f"times {form.scale:g}"] if form.scale != 1 else []
    words += ["biased"] if form.is_biased else []
    return ", ".join(words + ([f"capped at {form.cap:g}"] if form.cap else []))


def encode_texts(language_model: LanguageModel) -> PackedTokens:
    rows, starts, contexts = zip(*[language_model.text_ids(p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)], strict=True)
    return PackedTokens.of(rows, starts, context=None if contexts[0] is None else PackedTokens.of(contexts))


def plain_log_probs(model: Any, tokens: PackedTokens) -> Tensor:
    """Summed log-probabilities [U] of responses by the model's own forward, without batching."""
    rows = tokens.ids.split(tokens.lengths.tolist())
    contexts = [None] * len(rows) if tokens.context is None else tokens.context.ids.split(tokens.context.lengths.tolist())
    assert tokens.response_start is not None
    return torch.stack(
        [
            plain_row(model, row, start, context).sum()
            for row, start, context in zip(rows, tokens.response_start.tolist(), contexts, strict=True)
        ]
    )


def plain_row(model: Any, row: Tensor, start: int, context: Tensor | None) -> Tensor:
    inputs = {"input_ids": row[None]} if context is None else {"input_ids": context[None], "decoder_input_ids": row[None]}
    logits = model(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
    return logits[start - 1 : -1].gather(1, row[start:, None])[:, 0]


@torch.no_grad()
def check_log_probs(language_model: LanguageModel, plain: Any) -> None:
    tokens = encode_texts(language_model)
    check_close("log-probability of a response", response_log_probs(eval_mode(language_model), tokens)[0], plain_log_probs(plain, tokens))


def sample_responses(language_model: LanguageModel, prompts: Any, temperature: float = 1.0) -> Any:
    """Sample responses of up to 6 tokens, without the padding token if the model counts positions by it.

    RoBERTa, M2M-100 and similar models number a text's tokens by `cumsum(ids != pad)`: after a sampled padding token, `generate` with a
    cache counts on and a forward pass over the text doesn't, in plain transformers too, so that there is no reference.
    """
    if not counts_padding(language_model.model):
        return native(language_model, prompts, max_new_tokens=6, temperature=temperature)
    with patch("rlhf_lightning.rollout.sampler.native.draw", draw_without_padding):
        return native(language_model, prompts, max_new_tokens=6, temperature=temperature)


def counts_padding(model: Any) -> bool:
    return any(hasattr(part, "create_position_ids_from_input_ids") for part in model.modules())


def draw_without_padding(logits: Tensor, draws: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """`draw` without PAD; log-probabilities are those of the full distribution."""
    token, _ = draw(logits.index_fill(1, torch.tensor([PAD]), -torch.inf), draws, temperature, top_p)
    return token, (logits.float() / (temperature or 1.0)).log_softmax(-1).gather(-1, token[:, None])[:, 0]


@torch.no_grad()
def check_sampler(language_model: LanguageModel, plain: Any) -> None:
    """Compare sampled and greedy responses, some of which end early, with each row's plain forward pass."""
    settings: Any = language_model.model.generation_config
    settings.eos_token_id = list(range(1, 290, 3))
    prompts = language_model.encode_prompts(PROMPTS, 6)
    for temperature in (1.0, 0.0):
        rollout = sample_responses(language_model, prompts.repeat(2), temperature=temperature)
        for i in range(len(rollout)):
            response = rollout.response_ids[i][rollout.response_mask[i].bool()]
            prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
            context, prefix = (
                (None, prompt) if language_model.decoder_prefix is None else (prompt, prompt.new_tensor(language_model.decoder_prefix))
            )
            text = torch.cat([prefix, response])
            expected = plain_row(plain, text, len(prefix), context)
            check_close("log-probability of a sampled response", rollout.sampled_log_probs[i, : len(response)].sum(), expected.sum())
            if temperature == 0:
                inputs = {"input_ids": text[None]} if context is None else {"input_ids": context[None], "decoder_input_ids": text[None]}
                best = plain(**inputs, use_cache=False).logits[0].float().log_softmax(-1)[len(prefix) - 1 : -1]
                check_close(
                    "greedy token's log-probability", expected, best[:, PAD + 1 :].amax(-1) if counts_padding(plain) else best.amax(-1)
                )
    settings.eos_token_id = 1


def check_gradients(what: str, ours: Any, theirs: Any) -> None:
    """Raise WrongError if the gradients of two copies of a model differ."""
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max((grad.abs().max().item() for grad in expected.values() if grad is not None), default=0.0)
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            continue
        grad, reference = parameter.grad, expected[name]
        grad = torch.zeros_like(parameter) if grad is None else grad
        reference = torch.zeros_like(parameter) if reference is None else reference
        difference = (grad - reference).abs().max().item()
        if not difference <= 1e-3 * max(1.0, largest):
            raise WrongError(f"{what}: the gradient of {name} differs by {difference:.1g} of {largest:.1g}")


def check_sft_step(language_model: LanguageModel, plain: Any) -> None:
    """Compare a step of SFT, in training mode."""
    tokens = encode_texts(language_model)
    module = SFTModule(language_model, SFTSettings(), steps=10)
    module.train(), plain.train()
    loss = module.training_step(tokens, 0)
    loss.backward()
    counts = tokens.lengths - tokens.response_start.clamp(min=1)
    expected = -plain_log_probs(plain, tokens).sum() / counts.sum()
    expected.backward()
    check_close("SFT's loss", loss, expected)
    check_gradients("SFT", language_model.model, plain)
    step(language_model.model)
    module.eval()


def check_dpo_step(language_model: LanguageModel, plain: Any) -> None:
    eval_mode(language_model)
    tokens = encode_texts(language_model)
    log_probs, counts = response_log_probs(language_model, tokens)
    reference = log_probs.detach() - torch.tensor([0.1, 0.4, -0.2, 0.3])
    chosen, rejected = torch.tensor([0, 2]), torch.tensor([1, 3])
    answers = [Answers(log_probs[side], counts[side], reference[side]) for side in (chosen, rejected)]
    DPO(beta=0.1)(Compared(*answers)).mean().backward()
    expected = plain_log_probs(plain, tokens)
    margin = (expected - reference)[chosen] - (expected - reference)[rejected]
    (-logsigmoid(0.1 * margin).mean()).backward()
    check_gradients("DPO", language_model.model, plain)
    step(language_model.model)


def check_ppo_step(language_model: LanguageModel, plain: Any) -> None:
    eval_mode(language_model)
    torch.manual_seed(0)
    critic = shared_critic(language_model, None)
    parts = PPOComponents(sample_responses, score_ids, [], gae, ppo_clip, token_mean, clipped_value_loss, FixedKL())
    reference = LanguageModel(copy.deepcopy(language_model.model), language_model.tokenizer)
    reference.__class__ = type(language_model)
    module = PPOModule(Policy(language_model, critic), Policy(reference), parts, PPOSettings(num_minibatches=1))
    rollout = sample_responses(language_model, language_model.encode_prompts(PROMPTS, 6).repeat(2))
    experience = gae(module.experience_maker.score(rollout))
    check_close("PPO's log-probabilities", experience.old_log_probs.sum(1), rollout.sampled_log_probs.sum(1))
    check_close("the reference's log-probabilities", experience.ref_log_probs.sum(1), experience.old_log_probs.sum(1))
    mask = experience.response_mask
    loss, _ = module.loss(experience, token_weights(token_mean, mask), mask / mask.sum())
    loss.backward()
    step(language_model.model)


def score_ids(rollout: Any) -> Tensor:
    return rollout.response_ids[:, 0] % 7 - 3.0


def step(model: Any) -> None:
    """Take a step of gradient descent that changes log-probabilities by more than the tolerance."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.grad is not None]
    size = torch.stack([parameter.grad.square().sum() for parameter in trained]).sum().sqrt()
    if not torch.isfinite(size) or size == 0:
        raise WrongError(f"the gradient's norm is {size.item()}")
    torch.optim.SGD(trained, lr=0.1 / size.item()).step()
    model.zero_grad()


@torch.no_grad()
def check_saved(language_model: LanguageModel, kind: Kind, folder: Path) -> None:
    """Check that plain transformers loads the saved folder without other keys, and computes the same."""
    eval_mode(language_model).save(folder)
    again, report = AUTO_MODELS[kind].from_pretrained(folder, output_loading_info=True)
    wrong = [key for name in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report[name]]
    if wrong:
        raise WrongError(f"the saved folder has other tensors than the model: {wrong[:3]}")
    tokens = encode_texts(language_model)
    check_close("after saving, a log-probability", response_log_probs(language_model, tokens)[0], plain_log_probs(again.eval(), tokens))


def check_lora(language_model: LanguageModel, kind: Kind, folder: Path) -> None:
    before = response_log_probs(eval_mode(language_model), encode_texts(language_model))[0].detach()
    lora(language_model.model, rank=2)
    eval_mode(language_model)
    tokens = encode_texts(language_model)
    for _ in range(2):  # A has no gradient until B differs from 0
        (-response_log_probs(language_model, tokens)[0].sum()).backward()
        step(language_model.model)
    with torch.no_grad():
        after = response_log_probs(language_model, tokens)[0]
    if (after - before).abs().max() < TOLERANCE:
        raise WrongError("LoRA learned nothing")
    check_saved(language_model, kind, folder)


# Reward models.


def examine_encoder(family: str, plain: Any, folder: Path) -> Row:
    trunk = examine_reward(str(folder / "model"), "encoder")
    return Row(family, "correct", batching(trunk).value)


def examine_reward(path: str, kind: Kind) -> Any:
    """Compare scores, the gradient of a step, and the saved folder."""
    kinds: dict[Kind, Any] = {"causal": "decoder", "encoder": "encoder", "encoder_decoder": "encoder_decoder"}
    trunk, tokenizer = load_trunk(path, kinds[kind])
    torch.manual_seed(0)
    model = RewardModel(ComposedScore(trunk, last, LinearHead(trunk_width(trunk))), tokenizer, clamp_length(trunk, 64)).eval()
    torch.nn.init.normal_(model.net.head.out.weight if hasattr(model.net.head, "out") else next(model.net.head.parameters()), std=0.3)
    tokens = model.tokenise(list(zip(PROMPTS, RESPONSES, strict=True)))
    scores = model(tokens)
    plain: Any = AUTO_MODELS["encoder"].from_pretrained(path).eval()
    plain.resize_token_embeddings(len(tokenizer)) if plain.get_input_embeddings().weight.shape[0] < len(tokenizer) else None
    check_close("a score", scores, plain_scores(plain, model, tokens))
    scores.square().sum().backward()
    plain_scores(plain, model, tokens).square().sum().backward()
    check_gradients("reward", trunk, plain)
    model.zero_grad()
    target = Path(path).with_name("reward")
    parts = {"head": "linear", "head_settings": {}, "pooling": "last", "pooling_settings": {}, "tuning": "full", "losses": []}
    save_reward_model(model, target, parts)
    check_close("after saving, a score", load_reward_model(str(target)).eval()(tokens), scores)
    return trunk


def plain_scores(plain: Any, model: RewardModel, tokens: PackedTokens) -> Tensor:
    scores = []
    for row in range(len(tokens)):
        text, _ = tokens.select(torch.tensor([row]))
        types = {} if text.types is None else {"token_type_ids": text.types[None]}
        if text.context is None:
            vectors = plain(input_ids=text.ids[None], **types, **accepted_arguments(plain, use_cache=False)).last_hidden_state
        else:
            encoded = plain.get_encoder()(input_ids=text.context.ids[None]).last_hidden_state
            vectors = plain.get_decoder()(input_ids=text.ids[None], encoder_hidden_states=encoded).last_hidden_state
        head: Any = model.net.head
        output = head(last(vectors, torch.ones(vectors.shape[:2], dtype=torch.long)))
        scores.append(getattr(output, "scores", output).reshape(()))
    return torch.stack(scores)


HEAD = """# Models

Every family of transformers {version} of the auto classes for causal, masked and sequence-to-sequence language models, as a tiny model with
random weights compared with plain transformers: log-probabilities of given and of sampled responses (1e-4 nats, summed), scores, the
gradients of a step of SFT, DPO and reward training, an update of PPO, LoRA, and the saved folder, loaded by plain transformers.

- **correct**: all of these agree.
- **rejected**: loading fails with the message in the last column.
- **not runnable**: transformers itself can't create, run, or save and load the model from token ids on a CPU; its message is in the last
  column.
- **wrong**: a number differs, or a step fails with the error in the last column; **timeout**: it exceeded the census's time limit.

Batching: texts without padding in one row (packed), right-padded, or in groups of equal lengths. Sampling: the decoder of
`rollout_sampler=native`. Logits: the model's transformation of the output layer's product; "own head" runs the model's own code.

`python -m tests.model.census > docs/models.md` writes this page; `pytest -m census` runs a test for each family.
"""
TITLES: dict[Kind, str] = {
    "causal": "Decoder-only (backbone=causal)",
    "encoder": "Encoders, for reward models (backbone=encoder)",
    "encoder_decoder": "Encoder-decoders (backbone=encoder_decoder)",
}


def page(rows: dict[Kind, list[Row]]) -> str:
    """docs/models.md."""
    import transformers

    parts = [HEAD.format(version=transformers.__version__)]
    for kind, title in TITLES.items():
        counts = Counter(row.result for row in rows[kind])
        summary = ", ".join(f"{count} {result}" for result, count in counts.most_common())
        parts.append(f"\n## {title}\n\n{len(rows[kind])} families: {summary}.\n\n| family | result | batching | sampling | logits | note |")
        parts.append("|---|---|---|---|---|---|")
        parts += [f"| {' | '.join(cell(text) for text in vars(row).values())} |" for row in rows[kind]]
    return "\n".join(parts) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")[:300]


def examine_all(tasks: list[tuple[Kind, str]], jobs: int, seconds: int, finished: Path | None) -> dict[tuple[Kind, str], Row]:
    """Examine families, `jobs` at a time, each in a forked process with a limit on its CPU time.

    Args:
        finished: a JSON-lines file of finished rows, which are skipped; new ones are appended.
    """
    context = multiprocessing.get_context("fork")  # imports are shared
    rows: dict[tuple[Kind, str], Row] = {}
    if finished is not None and finished.exists():
        for line in finished.read_text().splitlines():
            kind, values = json.loads(line)
            rows[kind, values["family"]] = Row(**values)
    waiting, running = [task for task in reversed(tasks) if task not in rows], {}
    while waiting or running:
        while waiting and len(running) < jobs:
            task = waiting.pop()
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=examine_in_child, args=(*task, writer, seconds), daemon=True)
            process.start()
            writer.close()
            running[reader] = task, process
        for reader in wait(list(running)):
            (kind, family), process = running.pop(reader)
            try:
                row = reader.recv()
            except EOFError:  # the process was killed
                process.join()
                is_late = process.exitcode in (-signal.SIGXCPU, -signal.SIGALRM)
                row = Row(family, "timeout" if is_late else "wrong", note=f"ended by signal {-process.exitcode}")
            process.join()
            rows[kind, family] = row
            if finished is not None:
                with finished.open("a") as lines:
                    lines.write(json.dumps([kind, vars(row)]) + "\n")
            print(f"{sum(task in rows for task in tasks)}/{len(tasks)}", kind, *vars(row).values(), sep=" | ", file=sys.stderr, flush=True)
    return rows


def examine_in_child(kind: Kind, family: str, writer: Connection, seconds: int) -> None:
    """Examine a family in a child process; the kernel kills it after `seconds` of CPU time or 10 * `seconds` of wall time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    signal.alarm(10 * seconds)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output is the page's
    warnings.filterwarnings("ignore")
    writer.send(examine(family, kind))


def main(arguments: list[str]) -> None:
    from transformers.utils import logging

    parser = argparse.ArgumentParser(prog="python -m tests.model.census", description=__doc__)
    parser.add_argument("families", nargs="*", help="examine only these, without writing a page")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of families examined at a time")
    parser.add_argument("--seconds", type=int, default=120, help="CPU time of a family")
    parser.add_argument("--rows", type=Path, help="file of rows of an interrupted census of the same code, to resume it")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    examine("gpt2", "causal")  # its imports, half of the time, are shared with the forked processes
    gc.freeze()
    chosen = set(options.families)
    tasks = [(kind, family) for kind, families in FAMILIES.items() for family in families if not chosen or family in chosen]
    rows = examine_all(tasks, options.jobs, options.seconds, options.rows)
    if not chosen:
        print(page({kind: [rows[kind, family] for family in families] for kind, families in FAMILIES.items()}), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
