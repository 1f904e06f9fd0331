"""What the README says, runs: its Python, its recipe, its commands; and both languages say the same."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = ["README.md", "README.zh.md"]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def small(monkeypatch, tmp_path, model_folder, reviews):
    """The demo model and data stand for the tiny ones, and what a run writes goes to a folder of its own."""
    from tunesmith import tuned
    from tunesmith.training import train as line

    monkeypatch.chdir(tmp_path)
    for module in (line, tuned):
        monkeypatch.setattr(module, "locate", lambda path: model_folder)
        monkeypatch.setattr(module, "locate_data", lambda path, sha256=None: reviews)


@pytest.mark.parametrize("readme", READMES)
def test_the_python_runs(readme, small, capsys):
    [code] = blocks(readme, "python")
    assert len([line for line in code.splitlines() if line]) <= 10
    exec(compile(code, readme, "exec"), {})  # noqa: S102 - the block is ours, and running it is the test
    assert re.match(r"[01]\.\d+ -> [01]\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("readme", READMES)
def test_the_recipe_is_the_one_that_ships_and_equals_the_python(readme):
    from tunesmith.config.load import load
    from tunesmith.run import Run

    [recipe] = blocks(readme, "yaml")
    shipped = load(Run, ROOT / "recipes" / "quickstart.yaml").value
    assert load(Run, text=recipe).value == shipped
    [code] = blocks(readme, "python")
    names = {}
    exec(code.partition("result =")[0], names)  # noqa: S102 - the block is ours
    ours = names["run"]
    assert (ours.model, ours.data, ours.method, ours.objective) == (
        shipped.model, shipped.data, shipped.method, shipped.objective,
    )  # fmt: skip
    assert ours.train.learning_rate == shipped.train.learning_rate


def test_every_recipe_that_ships_can_be_loaded():
    from tunesmith.config.load import load
    from tunesmith.run import Run

    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        load(Run, recipe)


@pytest.mark.parametrize("readme", READMES)
def test_the_commands_exist(readme):
    from typer.main import get_command

    from tunesmith.cli import app

    shell = "\n".join([*blocks(readme, "bash"), *blocks(readme, "text")])
    targets = re.findall(r"^make (\w+)", shell, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(re.search(rf"^{target}\b.*:", makefile, re.MULTILINE) for target in targets)
    known = get_command(app).commands
    assert all(command in known for command in re.findall(r"^ *(?:\S+/)?tunesmith (\w+)", shell, re.MULTILINE))


def test_both_languages_say_the_same():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    for kind in ("python", "yaml", "text"):
        assert blocks("README.md", kind) == blocks("README.zh.md", kind)
    assert [line[:2] for line in english.splitlines() if line.startswith("#")] == [
        line[:2] for line in chinese.splitlines() if line.startswith("#")
    ]
    assert re.findall(r"^\| (\d+) \|", english, re.MULTILINE) == re.findall(r"^\| (\d+) \|", chinese, re.MULTILINE)


def test_the_exit_codes_are_those_of_the_errors():
    import tunesmith.errors as errors

    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)}
    assert told == codes | {0}
