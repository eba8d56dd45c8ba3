"""Sampling by vLLM on the policy's device, with its weights updated before each rollout."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from rlhf_lightning.errors import import_extra
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.model.checkpoint_tensors import checkpoint_state
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.sampler._responses import ResponseEnds, StopStrings, check_decoder_only, prompt_rows, rollout_of, seeds_of


@register("rollout_sampler", "vllm")
class VLLMSampler:
    """Sample with vLLM on the training device (colocated), for long responses on a GPU.

    Needs the extra `vllm`.
    The engine starts at the first rollout, from a copy of the policy, in this process; before each rollout it loads the policy's
    weights, and between rollouts it releases its memory (`sleep`). Log-probabilities come from the policy's forward pass. Tested with a
    mock of vLLM's LLM, not on a GPU.

    Args:
        max_new_tokens: a response that reaches it without an EOS is truncated.
        temperature: the logits are divided by it; log-probabilities are those of the full tempered distribution.
        top_p: sample from the smallest set of tokens with this probability.
        stop_strings: texts that end a response, as an end-of-text does.
        memory: fraction of the GPU's memory for the engine.
        sleep: release the engine's memory between rollouts.

    Raises:
        ConfigError: vLLM isn't installed, or an encoder-decoder.
    """

    def __init__(
        self,
        *,
        max_new_tokens: PositiveInt = 48,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
        stop_strings: StopStrings = (),
        memory: Annotated[float, Field(gt=0, lt=1)] = 0.3,
        sleep: bool = True,
    ) -> None:
        self.max_new_tokens, self.temperature, self.top_p, self.stop_strings = max_new_tokens, temperature, top_p, stop_strings
        self.memory, self.sleep = memory, sleep
        self.engine: Any = None

    @torch.no_grad()
    def __call__(self, language_model: LanguageModel, prompts: Prompts) -> Rollout:
        """One response for each prompt."""
        check_decoder_only(language_model, "vllm")
        vllm = import_extra("vllm", "rollout_sampler=vllm", "vllm")
        if self.engine is None:
            self.engine = self._start(vllm, language_model)
        elif self.sleep:
            self.engine.wake_up()
        self.engine.apply_model(_Load(checkpoint_state(language_model.model).items()))
        self.engine.reset_prefix_cache()  # of keys and values under the old weights
        ends = ResponseEnds(language_model, prompts, self.stop_strings)
        settings = [
            vllm.SamplingParams(
                n=1, temperature=self.temperature, top_p=self.top_p, top_k=-1, max_tokens=self.max_new_tokens,
                stop_token_ids=ends.token_ids, seed=seed, detokenize=bool(ends.strings), stop=ends.strings,
            )
            for seed in seeds_of(prompts).tolist()
        ]  # fmt: skip
        inputs = [{"prompt_token_ids": row} for row in prompt_rows(prompts)]
        outputs = self.engine.generate(inputs, settings, use_tqdm=False)
        if self.sleep:
            self.engine.sleep(level=1)
        return rollout_of(language_model, prompts, [list(output.outputs[0].token_ids) for output in outputs], self.temperature, ends)

    def _start(self, vllm: Any, language_model: LanguageModel) -> Any:
        # In this process: the weights are handed over as they are, without a copy through another process.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        executor = "external_launcher" if "RANK" in os.environ else None
        with tempfile.TemporaryDirectory() as folder:
            language_model.save(Path(folder) / "policy")
            return vllm.LLM(
                model=str(Path(folder) / "policy"), gpu_memory_utilization=self.memory, enable_sleep_mode=self.sleep,
                generation_config="vllm", seed=int(torch.randint(2**31, ())), distributed_executor_backend=executor,
                max_model_len=min(language_model.max_generated_length, 2**15), dtype=str(language_model.model.dtype).removeprefix("torch."),
            )  # fmt: skip


class _Load:
    """Load these weights into the model of the engine's worker."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self.named = list(named)

    def __call__(self, model: Any) -> None:
        model.load_weights(iter(self.named))
