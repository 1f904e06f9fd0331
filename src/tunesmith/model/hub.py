"""From the name of a model, or of data, to where it is on this machine."""

import json
import logging
import re
from functools import partial
from pathlib import Path

from ..cache import cache, keep
from ..config.registry import did_you_mean
from ..data.reading.dataset_info import named
from ..data.reading.source import PATTERN, SUFFIXES, Where, kind_of
from ..errors import BadEnvironment, DataError, RecipeError
from . import demo
from .download import download
from .foreign import read_json, refuse_code

log = logging.getLogger("tunesmith")

# What a download takes. Pickled weights (*.bin, *.pt, *.pkl) can run code when read, so they are never asked for.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
NOT_MODEL_FILES = ["onnx/*", "openvino/*", "original/*", "consolidated*"]  # the same weights once more
DATA_FILES = [f"*{suffix}" for suffix in SUFFIXES if not suffix.startswith(".txt")]  # what lies beside data is text too
DATA_FILES += ["README.md"]  # which lists the files of each config
NOT_DATA_FILES = ["dataset_infos.json", "dataset_info.json"]  # they speak of the data
TOKENIZER_FILES = ["tokenizer*", "vocab*", "*.model", "*.tiktoken", "*.spm"]

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MODELSCOPE = "modelscope:"


def locate(path: str) -> Path:
    """The folder of a model: config.json, *.safetensors and the tokenizer's files. Downloads or converts it if need be.

    The name is a local folder, `org/name` on Hugging Face, `modelscope:org/name`, a GGUF file, or a built-in demo.
    """
    here = Path(path).expanduser()
    if path in demo.MODELS:
        return built_in(path, demo.MODELS[path])
    if path in demo.DATA:
        raise RecipeError(f"{path} is data, not a model; built-in models are {', '.join(demo.MODELS)}")
    if here.is_file():
        return from_gguf(here)
    if here.is_dir():
        return checked(here)
    if path.startswith(MODELSCOPE):
        return checked(from_modelscope(path, data=False))
    if REPOSITORY.fullmatch(path) and here.suffix != ".gguf" and not path.startswith("demo/"):
        return checked(from_hugging_face(path, data=False))
    raise RecipeError(
        f"model '{path}' is not there; expected a folder, a .gguf file, org/name on Hugging Face, modelscope:org/name, "
        f"or a built-in demo ({did_you_mean(path, demo.MODELS)})"
    )


def locate_data(path: str, sha256: str | None = None) -> Where:
    """Where data are: a file, a folder, a pattern of files, or a dataset that a dataset_info.json names.

    A built-in name's folder has train.jsonl, validation.jsonl and test.jsonl. What is on a hub, or at an https://
    address, is downloaded if need be.
    """
    if "://" in path:
        return download(path, sha256, cache())
    if sha256 is not None:
        raise RecipeError(f"data.sha256: is for https:// addresses, and data.path={path} is none; leave it out")
    if path in demo.DATA:
        return built_in(path, demo.DATA[path])
    if path in demo.MODELS:
        raise DataError(f"{path} is a model, not data; built-in data are {', '.join(demo.DATA)}")
    here = Path(path).expanduser()
    if found := named(here, data_on_hub):
        return found
    if here.exists() or PATTERN & set(path):
        return here
    if path.startswith(MODELSCOPE) or (
        REPOSITORY.fullmatch(path) and not kind_of(here) and not path.startswith("demo/")
    ):
        return data_on_hub(path)
    raise DataError(
        f"data '{path}' is not there; expected a file, a folder, a pattern such as data/*.jsonl, an https:// address,"
        f" org/name on Hugging Face, modelscope:org/name, or a built-in demo ({did_you_mean(path, demo.DATA)})"
    )


def data_on_hub(name: str) -> Path:
    if name.startswith(MODELSCOPE):
        return from_modelscope(name, data=True)
    return from_hugging_face(name, data=True)


# --- folders ----------------------------------------------------------------------------------------------------------


def checked(folder: Path) -> Path:
    """The folder again, if a model can be loaded from it."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise RecipeError(f"{folder}: holds an adapter, not a model; name the model that the adapter was trained on")
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f"{folder}: has no config.json, so it is no model; name the folder that save_pretrained wrote"
        )
    refuse_code(folder)
    weights = [file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_")]
    if not weights:
        raise RecipeError(without_weights(folder))
    index = folder / "model.safetensors.index.json"
    needed = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    if missing := sorted(needed - {file.name for file in weights}):
        raise RecipeError(f"{folder}: {len(missing)} of {len(needed)} weight files are missing, first {missing[0]}")
    for file in weights:
        check_length(file)
    if not any(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)):
        raise RecipeError(
            f"{folder}: has no tokenizer; copy tokenizer.json and tokenizer_config.json of the model there"
        )
    return folder


def without_weights(folder: Path) -> str:
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in sorted(folder.glob(pattern))]
    if not pickled:
        return f"{folder}: has no weights; expected *.safetensors beside config.json (pickled weights are not loaded)"
    return (
        f"{folder}: has only pickled weights ({pickled[0]}), which can run code and are not loaded; load them "
        "with transformers where you trust them, and save them as safetensors with the model's save_pretrained(folder)"
    )


def check_length(file: Path) -> None:
    """Refuse a safetensors file that is not as long as its own head says: a download cut short, a git-lfs pointer."""
    with file.open("rb") as opened:
        head = int.from_bytes(opened.read(8), "little")
        size = file.stat().st_size
        try:
            tensors = json.loads(opened.read(head)) if head < size else {}
        except ValueError:
            tensors = {}
    ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    if not ends or 8 + head + max(ends) != size:
        raise RecipeError(f"{file}: is cut short or damaged ({size:,} bytes); copy or download it again")


# --- other people's hubs ----------------------------------------------------------------------------------------------


def from_hugging_face(name: str, *, data: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - whichever httpx it uses
        RepositoryNotFoundError,
        XetDownloadError,
    )

    log.info("%s: looking it up on Hugging Face", name)
    try:
        if data:
            folder = snapshot_download(
                name, repo_type="dataset", allow_patterns=DATA_FILES, ignore_patterns=NOT_DATA_FILES
            )
        else:
            folder = snapshot_download(name, allow_patterns=MODEL_FILES, ignore_patterns=NOT_MODEL_FILES)
    except GatedRepoError:
        why = "its authors ask for consent first: accept their terms on its page, then run `hf auth login`"
    except RepositoryNotFoundError:
        why = f"it is not there, or private ({near(name, data)})"
    except (OSError, ValueError, HTTPError, XetDownloadError) as error:
        why = demo.first_line(error).removeprefix("Got: ")
    else:
        return Path(folder)
    raise cannot_download(name, "Hugging Face", why)


def from_modelscope(path: str, *, data: bool) -> Path:
    name = path.removeprefix(MODELSCOPE)
    if not REPOSITORY.fullmatch(name):
        raise RecipeError(f"'{path}' is no name on ModelScope; expected modelscope:org/name")
    try:
        from modelscope.hub.errors import HubError  # pyright: ignore[reportMissingImports] - an extra
        from modelscope.hub.snapshot_download import (  # pyright: ignore[reportMissingImports] - an extra
            dataset_snapshot_download,
            snapshot_download,
        )
    except ImportError:
        raise BadEnvironment(
            f"{path}: needs the package modelscope: run `pip install 'tunesmith[modelscope]'`"
        ) from None
    log.info("%s: looking it up on ModelScope", name)
    try:
        if data:
            folder = dataset_snapshot_download(name, allow_patterns=DATA_FILES, ignore_patterns=NOT_DATA_FILES)
        else:
            folder = snapshot_download(name, allow_patterns=MODEL_FILES, ignore_patterns=NOT_MODEL_FILES)
    except (HubError, OSError, ValueError) as error:
        raise cannot_download(name, "ModelScope", demo.first_line(error)) from None
    return Path(folder)


def near(name: str, data: bool) -> str:
    return did_you_mean(name, demo.DATA if data else demo.MODELS)


def cannot_download(name: str, place: str, why: str) -> BadEnvironment:
    return BadEnvironment(
        f"{name} could not be downloaded from {place}, and there is no local path of this name: {why.rstrip('.')}; "
        "check the name and the network, or name a local folder"
    )


# --- made here --------------------------------------------------------------------------------------------------------


def built_in(name: str, entry: demo.Demo) -> Path:
    made_of = f"{entry.requirement} sha256:{entry.sha256} revision {entry.revision}"
    return keep(cache() / name, made_of, partial(demo.build, name, entry), entry.disk)


def from_gguf(file: Path) -> Path:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise RecipeError(
                f"{file}: is no model; expected a folder with config.json and *.safetensors, or a GGUF file"
            )
    digest = demo.sha256(file)
    disk = 10 * file.stat().st_size // 1_000_000  # of 4 bits, 32
    make = partial(demo.dequantise, file.absolute())
    return keep(cache() / "gguf" / digest[:16], f"gguf sha256:{digest} revision 1", make, disk)
