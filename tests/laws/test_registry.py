"""Law: a new entry is a new file; it appears in the help, in the schema and in the grid by being there."""

import subprocess
import sys
from pathlib import Path

import tunesmith

NEW = {
    "methods": (
        "from .base import Method, method\n\n\n"
        '@method("nothing_new")\nclass NothingNew(Method):\n    """Learns everything, under another name."""\n\n'
        '    strength: int = 3\n    """A new option."""\n    detachable = False\n\n'
        "    def attach(self, model, heads=()):\n        return model.requires_grad_(True)\n"
    ),
    "objectives": (
        "from .base import Objective, objective, over\n\n\n"
        '@objective("nothing_new")\nclass NothingNew(Objective):\n    """Learns answers, under another name."""\n\n'
        '    strength: int = 3\n    """A new option."""\n\n'
        "    def loss(self, batch, logp):\n        return over(-logp.token)\n"
    ),
}
LOOK = """
import sys
from importlib import import_module
import tunesmith.{room} as room
room.__path__.append(sys.argv[1])
from tunesmith.config.describe import json_schema, rows
from tunesmith.config.load import load
from tunesmith.run import Run
registry = getattr(import_module("tunesmith.{room}.base"), "{kind}")
assert "nothing_new" in registry.all()
assert ("{kind}.strength", "{kind}=nothing_new") in [(row.path, row.when) for row in rows(Run)]
assert "A new option." in str(json_schema(Run))
from contextlib import redirect_stdout, suppress
from io import StringIO
from tunesmith.cli import main
with redirect_stdout(StringIO()) as said, suppress(SystemExit):
    main(["train", "--help"])
assert "{kind}.strength  [{kind}=nothing_new]" in said.getvalue()
run = load(Run, None, ["model.path=a", "data.path=b", "{kind}=nothing_new", "{kind}.strength=4"]).value
assert run.{kind}.strength == 4
"""


def test_a_new_file_is_a_new_entry_everywhere(tmp_path):
    for room, text in NEW.items():
        folder = tmp_path / room
        folder.mkdir()
        text = text.replace("from .base", f"from tunesmith.{room}.base")
        (folder / "nothing_new.py").write_text(f'"""New."""\n\n{text}')
        code = LOOK.format(room=room, kind=room.removesuffix("s"))
        seen = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
        assert seen.returncode == 0, seen.stderr


def test_the_grid_is_made_of_the_registries():
    grid = (Path(__file__).parent / "test_grid.py").read_text()
    assert "product(method.all(), OFFLINE)" in grid
    assert tunesmith.__doc__
