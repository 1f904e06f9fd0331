"""Whether what was delivered is what was trained: it is loaded in a process of its own, and both are asked the same.

`python -m tunesmith.delivery.proof` is that process: it reads a job as JSON on stdin, and writes what it hears.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Into
    from .source import Source

ASKED = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write one sentence about the sea.", "The sea was calm, and the boats lay still in the evening light."),
    ("What is 17 plus 25?", "17 plus 25 is 42."),
    ("Name three primary colours.", "Red, yellow and blue."),
    ("Is this review positive or negative? A dull film with no surprises.", "negative"),
    ("Is this review positive or negative? I laughed from beginning to end.", "positive"),
    ("Translate to German: good morning", "Guten Morgen"),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("Write a Python function that squares a number.", "def square(x):\n    return x * x"),
    ("What day comes after Tuesday?", "Wednesday comes after Tuesday."),
    ("Who wrote Hamlet?", "Hamlet was written by William Shakespeare."),
    ("Summarise: The train was late because of snow.", "Snow delayed the train."),
    ("Give me a synonym for quick.", "Fast."),
    ("What do plants need to grow?", "Plants need light, water, air and nutrients."),
    ("Correct the grammar: she go to school", "She goes to school."),
    ("List two fruits as JSON.", '["apple", "pear"]'),
    ("Explain gravity to a child.", "Gravity is what pulls things down to the ground."),
    ("What is the boiling point of water at sea level?", "100 degrees Celsius, or 212 degrees Fahrenheit."),
    ("Write a polite reply that says no.", "Thank you for asking, but I am afraid I cannot."),
    ("Is 91 a prime number?", "No, 91 is 7 times 13."),
    ("Say hello in Spanish.", "Hola"),
    ("What is the opposite of hot?", "Cold."),
    ("法国的首都是哪里？", "法国的首都是巴黎。"),
    ("用一句话介绍长城。", "长城是中国古代修建的伟大防御工程。"),
    ("三加五等于几？", "三加五等于八。"),
    ("这条评论是正面还是负面？画面很美，故事感人。", "正面"),
    ("这条评论是正面还是负面？浪费时间。", "负面"),
    ("把“谢谢”翻译成英文。", "Thank you."),
    ("写一句关于春天的话。", "春风吹过，花都开了。"),
    ("一年有几个季节？", "一年有四个季节。"),
    ("水的化学式是什么？", "水的化学式是 H2O。"),
    ("请用礼貌的语气拒绝邀请。", "非常感谢您的邀请，但我恐怕不能参加。"),
)
"""32 questions, with answers to be read as well: what a model says behind every token of them is compared."""
LONGEST = 256


@dataclass(frozen=True)
class Apart:
    """How far the delivered model is from the original, over all tokens of all questions."""

    prompts: int
    tokens: int
    kl: float
    """Nats a token, on average: the original's divergence from the delivered."""
    agreement: float
    """The share of tokens behind which both hold the same word, or class, to be the likeliest."""
    logits: float
    """The largest difference of two logits."""

    def sentence(self) -> str:
        return (
            f"{self.prompts} prompts, {self.tokens:,} tokens: KL {self.kl:.2g} nats a token, the same likeliest word"
            f" behind {self.agreement:.2%}, logits at most {self.logits:.2g} apart"
        )


def texts(source: Source) -> list[str]:
    """What both are asked: dialogues as the model's template writes them, or plain text for one that sorts."""
    from ..data.example import Message
    from ..data.rendering.render import Renderer

    if source.labels and not source.tuned.scores:
        return [f"{asked} {answer}" for asked, answer in ASKED]
    renderer = Renderer(source.tokenizer, source.tuned.run.data)
    return [renderer.text((Message("user", asked), Message("assistant", answer))) for asked, answer in ASKED]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:LONGEST]


def says(model: Any, ids: list[int], labels: bool) -> Tensor:
    """[T, V] what a model says behind each token, or [1, L] what it holds of the whole."""
    import torch

    asked = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        found = model.eval()(input_ids=asked, attention_mask=torch.ones_like(asked)).logits[0]
    return (found[None] if labels else found[-len(ids) :]).float().cpu().contiguous()


def prove(source: Source, folder: Path) -> Apart:
    """Load what was delivered in a new process, and hold what it says against what the trained model says."""
    from ..model.hub import locate

    asked = texts(source)
    with TemporaryDirectory() as place:
        heard = Path(place) / "heard.safetensors"
        job = {"folder": str(folder), "heard": str(heard), "texts": asked, "labels": source.labels}
        if source.adapter:
            job["base"] = str(locate(source.tuned.run.model.path))
            job["run"] = str(source.tuned.folder.path)
        done = subprocess.run(
            [sys.executable, "-m", "tunesmith.delivery.proof"], input=json.dumps(job), capture_output=True, text=True
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise CheckpointError(
                f"{folder}: what was written cannot be loaded again: {said[-1] if said else 'killed'}"
            )
        return compared(source, asked, heard)


def compared(source: Source, asked: list[str], heard: Path) -> Apart:
    """How far from the trained model that is which a new process has written down."""
    from safetensors import safe_open

    with safe_open(heard, "pt") as there:

        def said(number: int, ids: list[int]) -> Tensor:
            if ids != there.get_tensor(f"ids{number}").tolist():
                raise CheckpointError(
                    f"what was written makes other tokens of {asked[number][:40]!r} than the tokenizer that was trained"
                    " with"
                )
            return there.get_tensor(f"said{number}")

        return drift(source, asked, said)


def drift(source: Source, asked: list[str], said: Callable[[int, list[int]], Tensor]) -> Apart:
    """How far from the trained model that is which says this of each text."""
    import torch

    tokens, kl, same, gaps = 0, 0.0, 0, list[float]()
    for number, text in enumerate(asked):
        ids = ids_of(source.tokenizer, text)
        before, after = says(source.model, ids, bool(source.labels)), said(number, ids)
        first, second = before.log_softmax(-1).double(), after.log_softmax(-1).double()
        if before.shape[-1] == 1:  # one score, which is no distribution
            kl += float((before - after).abs().sum())
        else:
            kl += float((first.exp() * (first - second)).sum())
        tokens, same = tokens + len(before), same + int((before.argmax(-1) == after.argmax(-1)).sum())
        gaps.append(float((before - after).abs().max()))
    mean = kl / tokens
    mean = 0.0 if mean < 0 else mean  # by rounding; not max(0, mean), which makes 0 of what is no number
    return Apart(len(asked), tokens, mean, same / tokens, float(torch.tensor(gaps).max()))


def merged_into(source: Source, into: Into) -> Apart:
    """How far a run over quantised weights is from itself, merged into these or those of its weights."""
    model = source.whole(into)
    return drift(source, texts(source), lambda _, ids: says(model, ids, bool(source.labels)))


def loaded(job: dict[str, Any]) -> tuple[Any, Any]:
    """What was delivered, and its tokenizer."""
    from ..model.adapter import under_adapter
    from ..model.demo import dequantise
    from ..model.foreign import read_config
    from ..model.load import hushed, load_model, load_tokenizer
    from ..model.stored import quantisation
    from ..precision.plain import FP32
    from ..runs import RunFolder
    from ._onnx import GRAPH, Graph
    from .source import in_32_bits

    folder, labels = Path(job["folder"]), tuple(job["labels"])
    if (folder / "adapter_config.json").is_file():
        settings = RunFolder(Path(job["run"])).recipe().value.model
        with hushed():
            base, _ = load_model(Path(job["base"]), settings.precision, labels, settings.adapters, settings.changes)
            return in_32_bits(under_adapter(base, folder)), load_tokenizer(folder)
    if files := sorted(folder.glob("*.gguf")):
        with TemporaryDirectory() as place:
            whole = Path(place) / "whole"
            whole.mkdir()
            dequantise(files[0], whole)
            return load_model(whole, FP32())[0], load_tokenizer(whole)
    if (folder / GRAPH).is_file():
        return Graph(folder / GRAPH), load_tokenizer(folder)
    if quantisation(read_config(folder)):  # what is made on a GPU is computed there
        made: Any = load_model(folder, labels=labels)[0]
        return made.to("cuda"), load_tokenizer(folder)
    return load_model(folder, FP32(), labels)[0], load_tokenizer(folder)


def heard(job: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    import torch

    model, tokenizer = loaded(job)
    for number, text in enumerate(job["texts"]):
        ids = ids_of(tokenizer, text)
        yield f"ids{number}", torch.tensor(ids)
        yield f"said{number}", says(model, ids, bool(job["labels"]))


def main() -> None:
    from safetensors.torch import save_file

    job = json.loads(sys.stdin.read())
    save_file(dict(heard(job)), job["heard"])


if __name__ == "__main__":
    main()
