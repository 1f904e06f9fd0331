"""vLLM in this process, on the GPU of the model that learns: its weights and its memory are beside that model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadEnvironment
from ._vllm import Learnt, Place, least_rank, rank, sampling
from .base import Drawn, How, Pupil

SHARE = 0.3
"""Of the GPU's memory, unless another is asked for."""


class Inside:
    """Draws answers by `vllm.LLM`."""

    def __init__(self, said: Place, pupil: Pupil, how: How) -> None:
        from vllm import LLM  # pyright: ignore[reportMissingImports] - an extra, for GPUs

        self.stops, self.learnt = pupil.stops, Learnt(pupil)
        with self.learnt.written() as folder:
            adapter = lora(folder) if self.learnt.adapter else {}
        try:
            self.llm = LLM(
                model=str(pupil.base),
                dtype=pupil.dtype,
                gpu_memory_utilization=said.gpu_memory_utilization or SHARE,
                max_model_len=said.max_model_len,
                generation_config="vllm",
                logprobs_mode="raw_logprobs" if how.temperature == 1 else "processed_logprobs",
                **adapter,
            )
        except (RuntimeError, ValueError, NotImplementedError) as error:
            why = str(error).strip().partition("\n")[0]
            raise BadEnvironment(
                f"objective.sampler: vllm did not begin with {pupil.base} ({why}); see what it says above,"
                " change gpu_memory_utilization or max_model_len, or name a server by url"
            ) from error

    def __call__(self, prompts: Sequence[list[int]], how: How, seed: int, size: int = 1) -> list[Drawn]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        asked = [SamplingParams(**sampling(how, self.stops, size, seed, number)) for number in range(len(prompts))]
        with self.learnt.written() as folder:
            under = None
            if self.learnt.adapter:
                under = LoRARequest(folder.name, self.learnt.number, str(folder))
            else:
                self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
                self.llm.reset_prefix_cache()  # what it remembers of prompts is the former weights'
            tokens = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
            said = self.llm.generate(tokens, asked, lora_request=under, use_tqdm=False)
        return [drawn(one) for group in said for one in sorted(group.outputs, key=lambda one: one.index)]

    def close(self) -> None:
        self.learnt.close()
        del self.llm  # which ends its process


def lora(folder: Path) -> dict[str, Any]:
    """What vLLM must be told beforehand of adapters like the one in a folder."""
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": least_rank(rank(folder))}


def drawn(answer: Any) -> Drawn:
    ids = list(answer.token_ids)
    logp = [float(step[token].logprob) for token, step in zip(ids, answer.logprobs, strict=True)]
    return Drawn(ids, logp, answer.finish_reason == "stop")
