"""The one place where weights are read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, RecipeError
from ..files import whole
from .adapter import go_on, locate_adapter, merged, under_adapter
from .foreign import read_config
from .hub import checked

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..methods.base import Method

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder; one without a token for padding pads with the one that ends a text."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "custom code" in str(error):
            raise RecipeError(
                f"{folder / 'tokenizer_config.json'}: auto_map: the tokenizer needs code that comes with it, which is"
                " not run; put a tokenizer.json there, as save_pretrained of a fast tokenizer writes it"
            ) from None
        raise RecipeError(f"model.path: {folder} has no tokenizer that can be read: {first_line(error)}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    folder: Path, precision: str = "auto", labels: tuple[str, ...] = (), adapters: Sequence[str] = ()
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A model from a folder of safetensors, and the names of the modules whose weights were not there.

    With `labels` it stands under a classification head of one output a label, which is new unless the folder has it.
    `adapters` are merged into its weights.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    family: Any = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    names = dict(enumerate(labels))
    heads = {"id2label": names, "label2id": {label: number for number, label in names.items()}} if labels else {}
    try:
        with quiet():
            model, info = family.from_pretrained(
                folder,
                config=read_config(folder, **heads),
                dtype=dtype(precision),
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise CheckpointError(f"model.path: the weights in {folder} are damaged ({error}); fetch them anew") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.path: {folder} cannot be loaded: {first_line(error)}") from None
    new = sorted({key.rpartition(".")[0] for key in info["missing_keys"]})
    if new and not labels:
        raise RecipeError(f"model.path: {folder} lacks the weights of {', '.join(new)}; it is no language model")
    with hushed():
        for adapter in adapters:
            model = merged(model, locate_adapter(adapter, "model.adapters"))
    return model, tuple(new)


def dtype(precision: str) -> torch.dtype:
    """The number format of the weights: as asked for, or the best that this machine computes in hardware."""
    import torch

    if precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("model.precision: fp16 needs a GPU; on a CPU use fp32 or bf16")
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return getattr(torch, PRECISIONS[precision])


def attach(
    model: PreTrainedModel,
    method: Method,
    heads: tuple[str, ...] = (),
    encode: Callable[[str], list[int]] | None = None,
):
    """The model under a method, with new heads trained whatever the method, and ready to train fast.

    `encode` turns text into tokens, for methods that begin with words.
    """
    from torch.nn import Embedding

    from .lean import make_lean
    from .learning import make_learning
    from .policy import Policy, same

    said = Policy(model).sample() if method.begins_alike else None
    with hushed():
        tuned = method.attach(model, heads).train()
        method.begin(tuned, encode or wordless)
        if method.adapter:
            go_on(tuned, locate_adapter(method.adapter, "method.adapter"))
    if said is not None and not same(Policy(tuned).sample(), said):
        raise RecipeError(
            f"method: {method.name} does not fit {type(model).__name__}: the model says something else before anything"
            " is learnt; take lora"
        )
    make_lean(tuned)
    if tuned is model:  # PEFT's layers have ways of their own
        make_learning(model)
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(words, Embedding):
        words.padding_idx = None  # or the stop token, where it pads as well, would learn nothing
        words.sparse = words.weight.requires_grad and getattr(head, "weight", None) is words.weight
        # its gradient is then added to the head's, row by row; a second one of its size is never made
    return tuned


def wordless(text: str) -> list[int]:
    raise RecipeError("method: begins with words, and there is no tokenizer here to read them")


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, warnings are not shown that say nothing: PEFT 0.21 reads a property that transformers 5.23 renamed,
    doubts norms that are not torch's own though it trains them well, and misses layers for ranks that are AdaLoRA's or
    experts'."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        yield


def save_tuned(model, method: Method, tokenizer: PreTrainedTokenizerFast, run: Path, base: str) -> Path:
    """Write what was learnt: an adapter in PEFT's own format, or a whole model; beside it the tokenizer."""
    adapter = hasattr(model, "peft_config")
    folder = run / ("adapter" if adapter else "model")
    with whole(folder) as beside:
        if adapter:
            model.peft_config["default"].base_model_name_or_path = base
        method.save(model, beside)
        tokenizer.save_pretrained(beside)
    return folder


def load_tuned(
    run: Path, base: Path, precision: str = "auto", labels: tuple[str, ...] = (), adapters: Sequence[str] = ()
):
    """What `save_tuned` wrote, ready to be asked."""
    if (run / "model").is_dir():
        return load_model(checked(run / "model"), precision, labels)[0].eval()
    if not (run / "adapter").is_dir():
        raise CheckpointError(f"{run}: holds neither adapter/ nor model/; was the run finished?")
    with hushed():
        return under_adapter(load_model(base, precision, labels, adapters)[0], run / "adapter").eval()


def quiet():
    """Within it, transformers says nothing of a new head or of progress: the run's own lines say it."""
    from contextlib import ExitStack

    from transformers.utils import logging

    level, stack = logging.get_verbosity(), ExitStack()
    if logging.is_progress_bar_enabled():
        logging.disable_progress_bar()
        stack.callback(logging.enable_progress_bar)
    logging.set_verbosity_error()
    stack.callback(logging.set_verbosity, level)
    return stack


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


NO_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc")


def memory_error(error: Exception) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in NO_MEMORY)
