"""Law: nothing that the program reads is run as code. A gate over the source, and a proof that the gate closes."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("src", "bench") for file in (ROOT / folder).rglob("*.py"))

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "imp"}
"""What reads code, or objects that are code; no file imports them."""
CALLS = {
    "eval": "runs a text",
    "exec": "runs a text",
    "compile": "makes code of a text",
    "__import__": "loads a module by a name that is computed",
    "torch.load": "unpickles",
    "pandas.read_pickle": "unpickles",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "tempfile.mktemp": "names a file that another may make first",
    "shutil.unpack_archive": "unpacks an archive to wherever it says",
    "jinja2.Template": "renders without the sandbox",
    "jinja2.Environment": "renders without the sandbox",
}
METHODS = {
    "extractall": "unpacks an archive to wherever it says",
    "extract": "unpacks a member to wherever it says",
    "load_module": "runs a file",
    "exec_module": "runs a file",
}
ALLOWED = {
    # (file, call): why it may stand there
    ("src/tunesmith/evaluate/report.py", "jinja2.Environment"): "renders our own template, with every value escaped",
    ("src/tunesmith/data/view.py", "jinja2.Environment"): "renders our own template, with every value escaped",
    ("src/tunesmith/code.py", "spec.loader.exec_module"): "the recipe names the file, to be run",
}
"""What is forbidden elsewhere."""


def names(tree: ast.AST) -> dict[str, str]:
    """What each name that a file imports stands for, such as `np` for `numpy`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(node: ast.expr, known: dict[str, str]) -> str:
    """The whole name of what is called; a name that stands on something computed begins with a dot."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, known)}.{node.attr}"
    return ""


def value(call: ast.Call, keyword: str):
    """A keyword's value if it is written out; None if it is not given, `...` if it is computed."""
    for given in call.keywords:
        if given.arg == keyword:
            return given.value.value if isinstance(given.value, ast.Constant) else ...
    return None


def fault(call: ast.Call, name: str) -> str:
    """Why a call may not stand; empty if it may."""
    last = name.rpartition(".")[2]
    if name in CALLS:
        return CALLS[name]
    if "." in name and last in METHODS:
        return METHODS[last]
    if name.startswith("subprocess.") and value(call, "shell") not in (None, False):
        return "runs a shell"
    if name == "numpy.load" and value(call, "allow_pickle") is not False:
        return "may unpickle: say allow_pickle=False"
    if value(call, "trust_remote_code") not in (None, False):
        return "runs code that comes with a model"
    if last in ("from_pretrained", "from_config") and value(call, "trust_remote_code") is not False:
        return "may ask whether to run a model's code: say trust_remote_code=False"
    return ""


def faults(text: str, file: str = "a.py"):
    """Every call and import that may not stand, with its line."""
    tree = ast.parse(text)
    known = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            roots = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            banned = {root.split(".")[0] for root in roots} & MODULES if not getattr(node, "level", 0) else set()
            yield from (f"{file}:{node.lineno}: imports {module}" for module in banned)
        if isinstance(node, ast.Call):
            name = dotted(node.func, known)
            why = fault(node, name)
            if why and (file, name) not in ALLOWED:
                yield f"{file}:{node.lineno}: {name} {why}"


def test_nothing_that_is_read_is_run():
    found = [
        line for file in FILES for line in faults(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]
    assert len(FILES) > 80 and found == []


def test_no_exception_outlives_its_call():
    for file, name in ALLOWED:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {dotted(node.func, names(tree)) for node in ast.walk(tree) if isinstance(node, ast.Call)}, file


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "import cloudpickle as kept",
        "import dill",
        "import yaml",
        "import torch; torch.load(f)",
        "from torch import load; load(f)",
        "import torch as t; t.load(f)",
        "import numpy as np; np.load(f)",
        "import numpy as np; np.load(f, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "compile(text, 'a', 'exec')",
        "import os; os.system(text)",
        "import subprocess; subprocess.run(text, shell=True)",
        "import subprocess; subprocess.Popen(text, shell=wanted)",
        "import tarfile; tarfile.open(f).extractall(place)",
        "import zipfile; zipfile.ZipFile(f).extract(name)",
        "import shutil; shutil.unpack_archive(f)",
        "import tempfile; tempfile.mktemp()",
        "from tempfile import mktemp; mktemp()",
        "from transformers import AutoModel; AutoModel.from_pretrained(f)",
        "AutoModel.from_pretrained(f, trust_remote_code=True)",
        "AutoModel.from_pretrained(f, trust_remote_code=wanted)",
        "load_dataset(f, trust_remote_code=True)",
        "import jinja2; jinja2.Template(text)",
    ],
)
def test_the_gate_closes(line):
    assert list(faults(line))


@pytest.mark.parametrize(
    "line",
    [
        "import re; re.compile(text)",
        "import torch; torch.compile(block)",
        "import numpy as np; np.load(f, allow_pickle=False)",
        "import subprocess; subprocess.run([text])",
        "model.eval()",
        "AutoModel.from_pretrained(f, trust_remote_code=False)",
        "from .yaml import read_yaml",
        "text = 'eval(this)'  # exec(that)",
    ],
)
def test_the_gate_lets_pass(line):
    assert not list(faults(line))
