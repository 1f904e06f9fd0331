"""A registry knows what lies in its folder and what plugins add, and says which of them is at fault."""

import sys
from typing import Annotated

import jsonschema
import pytest

from tunesmith.config.choice import Choice
from tunesmith.config.describe import json_schema, rows
from tunesmith.config.load import dump, load
from tunesmith.config.record import Count, record
from tunesmith.config.registry import Registry
from tunesmith.errors import BadEnvironment

BASE = '''
from tunesmith.config.record import Count, record
from tunesmith.config.registry import Registry
horn = Registry("horn", "brass")
@record
class Horn:
    valves: Count = 3
    """How many valves it has."""
'''
ENTRY = '''
from brass.base import Horn, horn
@horn("{name}")
class {name}(Horn):
    """One of them."""
    bore: float = 11.5
    """How wide it is."""
'''


@pytest.fixture
def brass(tmp_path, monkeypatch):
    """The registry of a package on disk that grows by files and plugins."""
    folder = tmp_path / "brass"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(BASE)
    (folder / "tuba.py").write_text(ENTRY.format(name="tuba"))
    (folder / "_draft.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] in ("brass", "plugged")]:
        del sys.modules[module]


@pytest.fixture
def plug(tmp_path):
    """Install a plugin whose module says what is given."""

    def install(text: str) -> None:
        (tmp_path / "plugged.py").write_text(text)
        folder = tmp_path / "plugged-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
        (folder / "entry_points.txt").write_text("[tunesmith.horn]\ncornet = plugged\n")

    return install


def registry() -> Registry:
    from brass.base import horn

    return horn


@pytest.mark.usefixtures("brass")
def test_entries_are_files_and_plugins_but_no_drafts(plug):
    plug(ENTRY.format(name="cornet"))
    assert list(registry().all()) == ["cornet", "tuba"]
    assert registry()["tuba"].name == "tuba"


@pytest.mark.usefixtures("brass")
@pytest.mark.parametrize("text", ["1 / 0", "import nowhere", "a b", ENTRY.format(name="tuba")])
def test_a_plugin_that_fails_is_named_each_time(plug, text):
    plug(text)
    for _ in range(2):
        with pytest.raises(BadEnvironment, match="the plugin 'cornet' of plugged .* cannot be imported"):
            registry().all()


@pytest.mark.usefixtures("brass")
def test_two_entries_of_one_name_are_both_named():
    with pytest.raises(ValueError, match="two horns are named 'tuba': .*brass.tuba.tuba.* and .*Other"):
        registry().all()
        registry()("tuba")(type("Other", (), {}))


@pytest.mark.usefixtures("brass")
def test_what_an_entry_inherits_is_an_option_with_its_documentation():
    from brass.base import Horn

    @record
    class Band:
        size: Count = 5
        horn: Annotated[Horn, Choice(registry(), "tuba")]

    found = {row.path: row.doc for row in rows(Band)}
    assert found["horn.valves"] == "How many valves it has."
    assert found["horn.bore"] == "How wide it is."
    schema = json_schema(Band)
    assert "How many valves it has." in str(schema)
    band = load(Band, words=["horn.valves=4", "horn.bore=12"]).value
    assert (band.horn.valves, band.horn.bore) == (4, 12.0)
    jsonschema.validate(dump(band), schema)
