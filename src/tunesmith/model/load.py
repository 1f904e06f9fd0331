"""The one place where weights are read and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..attn.base import Attention
from ..config.load import dump
from ..errors import CheckpointError, RecipeError
from ..files import whole, write
from ..machine import to_ask
from ..methods.base import largest_list
from ..methods.mixture_of_depths import KIND, ROUTERS, deepen, mark
from ..objectives.base import Beside
from ..precision.base import FORMATS, Format, Precision
from ..precision.plain import FP32, Auto
from ..rope.base import RopeScaling
from .adapter import go_on, locate_adapter, merged, under_adapter
from .beside import put_beside
from .foreign import read_config, read_json
from .hub import checked
from .rounding import same
from .stored import Setting, quantisation, refuse_stored, renumber

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..methods.base import Method

AUTO = Auto()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder; one without a token for padding pads with the one that ends a text."""
    from transformers import AutoTokenizer

    try:
        with quiet():  # of a mixture of depths it would say that it knows no such model
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
    folder: Path,
    precision: Precision = AUTO,
    labels: tuple[str, ...] = (),
    adapters: Sequence[str] = (),
    changes: Sequence[RopeScaling | Attention] = (),
    sees: bool = False,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A model from a folder of safetensors, and the names of the modules whose weights were not there.

    With `labels` it stands under a classification head of one output a label, which is new unless the folder has it,
    or, of labels that are `Beside`, that head is put beside the language model's.
    `adapters` are merged into its weights, before these are quantised. `changes` are those of its config. One that
    `sees` is read with its part that looks at images.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSequenceClassification

    if adapters and precision.quantised:
        return merged_first(folder, precision, labels, adapters, changes)
    speaks = not labels or isinstance(labels, Beside)
    family: Any = AutoModelForCausalLM if speaks else AutoModelForSequenceClassification
    family = AutoModelForImageTextToText if sees else family
    names = dict(enumerate(labels))
    heads = {"id2label": names, "label2id": {label: number for number, label in names.items()}} if labels else {}
    config = read_config(folder, **heads)
    precision.check()
    config.dtype = precision.dtype()
    for one in changes:
        one.change(config)
    stored = quantisation(config)
    refuse_stored(folder, stored, precision, adapters)
    skip = heads_of(family, config, precision) if precision.quantised else []
    try:
        with quiet():
            model, info = family.from_pretrained(
                folder,
                config=config,
                dtype=precision.dtype(),
                quantization_config=precision.config(skip),
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise CheckpointError(f"model.path: the weights in {folder} are damaged ({error}); fetch them anew") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"model.path: {folder} cannot be loaded: {first_line(error)}") from None
    new = sorted({key.rpartition(".")[0] for key in info["missing_keys"]})
    if new and speaks:
        raise RecipeError(f"model.path: {folder} lacks the weights of {', '.join(new)}; it is no language model")
    quantise(model, precision, skip, stored)
    read_routers(model, folder)
    with hushed():
        for adapter in adapters:
            model = merged(model, locate_adapter(adapter, "model.adapters"))
    if labels and speaks:
        return model, put_beside(model, labels, folder)
    return model, tuple(new)


def quantise(model, precision: Precision, skip: list[str], stored: Setting) -> None:
    """Hold weights as `precision` says, where transformers has not done so as it read them.

    What stays whole is copied: it lies in the mapped file, all pages of which would stay with it in memory.
    """
    from torch.nn import Parameter

    precision.quantise(model, skip)
    if stored.get("quant_method") == "bitsandbytes":
        renumber(model, precision.dtype())
    for weight in model.parameters() if precision.quantised else ():
        if type(weight) is Parameter and weight.is_floating_point():
            weight.data = weight.data.clone()


def read_routers(model, folder: Path) -> None:
    """Let the blocks of a mixture of depths choose as they learnt to."""
    from safetensors import safe_open

    if not getattr(model.config.get_text_config(), KIND, None):
        return
    deepen(model)
    wanted = {name: weight for name, weight in model.named_parameters() if set(name.split(".")) & {*ROUTERS}}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in wanted.keys() & set(opened.keys()):
                weight = wanted.pop(name)
                weight.data.copy_(opened.get_tensor(name).view(weight.shape))
    if wanted:
        raise CheckpointError(f"model.path: {folder} lacks {min(wanted)} of its routers; copy it anew")


def merged_first(
    folder: Path,
    precision: Precision,
    labels: tuple[str, ...],
    adapters: Sequence[str],
    changes: Sequence[RopeScaling | Attention],
):
    """A quantised model of weights into which adapters were merged while they were whole."""
    precision.check()
    model, new = load_model(folder, FP32(), labels, adapters)
    with TemporaryDirectory() as place:
        model.save_pretrained(place)
        del model
        return load_model(Path(place), precision, labels, (), changes)[0], new


def heads_of(family: Any, config: Any, precision: Precision) -> list[str]:
    """The linear layers that stand outside a model's blocks, such as its head: all that are not to be quantised."""
    import torch

    with torch.device("meta"), quiet():
        model = family.from_config(config, trust_remote_code=False)
    within = set(largest_list(model).modules())
    linear = {path: module for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if not any(module in within for module in linear.values()):
        raise RecipeError(f"model.precision: {type(model).__name__} has no linear layers to quantise; take bf16")
    precision.fits({path: module for path, module in linear.items() if module in within})
    return [path for path, module in linear.items() if module not in within]


def attach(
    model: PreTrainedModel,
    method: Method,
    heads: tuple[str, ...] = (),
    encode: Callable[[str], list[int]] | None = None,
):
    """The model under a method, with new heads trained whatever the method, and ready to train fast. `encode` turns
    text into tokens, for methods that begin with words."""
    from torch.nn import Embedding

    from .lean import make_lean
    from .learning import make_learning
    from .policy import Policy

    said = Policy(model).sample() if method.begins_alike and not method.adapter else None
    with hushed():
        tuned = method.attach(model, heads).train()
        method.begin(tuned, encode or wordless)
        method.begin_near(tuned, partial(whole_weight, Path(model.name_or_path or "")))
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


def pad_as(tokenizer: PreTrainedTokenizerFast, model) -> None:
    """Tell a classifier which token pads: it passes over that one at the end of a text, whether or not it is there to
    pad."""
    if tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id


def whole_weight(folder: Path, path: str) -> torch.Tensor:
    """The weights of a layer as they are in a model's folder, of which the others are not read."""
    from safetensors import safe_open

    name = f"{path}.weight"
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            there = set(opened.keys())
            for known in (name, name.partition(".")[2]):  # of a headless model, which is without its first part
                if known in there and (weight := opened.get_tensor(known)).is_floating_point():
                    return weight
    raise RecipeError(
        f"method: needs {name} as it was before it was quantised, and {folder} does not have it; take"
        " method.init_lora_weights=default, and adapters that are merged into a model before"
    )


def wordless(text: str) -> list[int]:
    raise RecipeError("method: begins with words, and there is no tokenizer here to read them")


@contextmanager
def hushed() -> Iterator[None]:
    """Within it, warnings are not shown that say nothing: PEFT 0.21 reads a property that transformers 5.23 renamed,
    doubts norms that are not torch's own though it trains them well, misses layers for ranks that are AdaLoRA's or
    experts', and warns of biases that learn, which are seen to where an adapter is switched off."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        warnings.filterwarnings("ignore", "Careful, disabling adapter layers with bias", UserWarning)
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        yield


def save_tuned(
    model, method: Method, tokenizer: PreTrainedTokenizerFast, run: Path, base: str, precision: Precision
) -> Path:
    """Write what was learnt: an adapter in PEFT's own format, or a whole model; beside it the tokenizer, and of an
    adapter how the weights were held that it was trained on."""
    from .ends import stop_at_turns

    adapter = hasattr(model, "peft_config")
    if not adapter:
        stop_at_turns(model, tokenizer)
    folder = run / ("adapter" if adapter else "model")
    with whole(folder) as beside:
        if adapter:
            model.peft_config["default"].base_model_name_or_path = base
        method.save(model, beside)
        if not adapter:
            file = beside / "config.json"
            write(file, json.dumps(mark(read_json(file)), indent=2))
        if adapter:
            write(beside / "trained_on.json", json.dumps(trained_on(model, precision), indent=1))
        tokenizer.save_pretrained(beside)
    return folder


def save_whole(model, tokenizer: PreTrainedTokenizerFast, folder: Path, numbers: Format) -> None:
    """Write a whole model for others, its numbers in this format, with its tokenizer."""
    import torch

    from .ends import stop_at_turns

    stop_at_turns(model, tokenizer)
    with quiet():
        model.to(getattr(torch, FORMATS[numbers])).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trained_on(model, precision: Precision) -> dict[str, Any]:
    """How the weights were held that an adapter was trained on."""
    number = next(one.dtype for one in model.get_base_model().parameters() if one.is_floating_point())
    stored = quantisation(model.get_base_model().config)
    kind = getattr(stored, "quant_method", None) or (stored or {}).get("quant_method")
    by = precision.package or getattr(kind, "value", kind)
    return {"precision": dump(precision), "numbers": str(number).removeprefix("torch."), "quantised_by": by}


def load_tuned(
    run: Path,
    base: Path,
    precision: Precision = AUTO,
    labels: tuple[str, ...] = (),
    adapters: Sequence[str] = (),
    changes: Sequence[RopeScaling | Attention] = (),
):
    """What `save_tuned` wrote, ready to be asked."""
    if (run / "model").is_dir():
        changes = [one for one in changes if isinstance(one, Attention)]  # its positions are in its own config
        return to_ask(load_model(checked(run / "model"), precision, labels, (), changes)[0])
    if not (run / "adapter").is_dir():
        raise CheckpointError(f"{run}: holds neither adapter/ nor model/; was the run finished?")
    with hushed():
        return to_ask(under_adapter(load_model(base, precision, labels, adapters, changes)[0], run / "adapter"))


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
