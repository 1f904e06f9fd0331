"""Law: help needs nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ["torch", "transformers", "peft", "accelerate", "numpy", "pyarrow", "ruamel.yaml", "jinja2", "matplotlib"]
ASKED = "from tunesmith.cli import main\ntry: main({words})\nexcept SystemExit as left: assert not left.code\n"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import tunesmith\n", [*HEAVY, "pydantic"]),
        ("import tunesmith.run, tunesmith.migrate\n", [*HEAVY, "pydantic"]),
        (ASKED.format(words=["--help"]), [*HEAVY, "pydantic"]),
        (ASKED.format(words=["train", "--help"]), HEAVY),  # typer itself reads a command's options by pydantic
        (ASKED.format(words=["runs", "--help"]), HEAVY),
        (ASKED.format(words=["judge", "label", "--help"]), HEAVY),
    ],
)
def test_help_imports_nothing_heavy(code, heavy):
    code += f"import sys; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
