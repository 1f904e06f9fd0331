"""The report stands alone, shows what anybody wrote as text, and is there whatever is missing."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tunesmith.evaluate.chart import thin, ticks
from tunesmith.evaluate.metrics import measure
from tunesmith.evaluate.report import Facts, Sample, doubt, headline, page, summary, write_report

BARE = Facts(title="bare", run="runs/bare", model="some/model", method="full", objective="pretrain")
HOSTILE = "<script>alert('x')</script>\"' onload=x &amp; \x00\x1b[31m\u202e\ud800\x85 电影\u3000好看 "
FULL = replace(
    BARE,
    title="quickstart",
    before=measure(["good", "bad"] * 50, ["good"] * 100, 2.0),
    after=measure(["good", "bad"] * 50, ["good", "bad"] * 45 + ["good", "?"] * 5, 0.1),
    samples=[Sample(f"row {n}", "good", "no idea", "Good.") for n in range(10)],
    losses=[(step, 3.0 / step) for step in range(1, 33)],
    evals=[(16, 0.3), (32, 0.2)],
    counts={"trained rows": 1256, "sequences cut": 3},
    settings=[("train.seed", 42, "default"), ("train.learning_rate", 1e-3, "command line")],
    versions={"torch": "2.13.0"},
    trainable=10,
    total=1000,
)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Every element and all text of a page; fails where a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.mark.parametrize("facts", [BARE, FULL], ids=["bare", "full"])
def test_the_page_is_whole_and_needs_no_other_file(facts):
    html = page(facts)
    found = Page(html)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == len(found.all("title")) == 1
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.elements}
    for _, attrs in found.elements:
        assert not {"src", "href", "srcset"} & attrs.keys()
    assert len(found.all("caption")) == len(found.all("table"))
    names = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(names) == len(set(names))
    assert {attrs["aria-labelledby"] for attrs in found.all("div") if "aria-labelledby" in attrs} == set(names)


def test_the_page_tells_the_whole_run():
    text = Page(page(FULL)).text
    for part in (
        "Accuracy 50.0% → 95.0% on 100 held-out rows (95% interval",
        "1,256",
        "1.00% of 1,000",
        "✓ right",
        "command line",
        "1 settings left at their default",
        "2.13.0",
        "tunesmith chat runs/bare",
        "tunesmith eval runs/bare",
        "tunesmith runs show runs/bare",
    ):
        assert part in text
    assert text.index("train.learning_rate") < text.index("train.seed")
    assert page(FULL).count('<path class="curve s') == 4  # two lines, two in the legend


def test_whatever_a_user_wrote_is_shown_as_text(tmp_path):
    facts = Facts(
        title=HOSTILE,
        run=HOSTILE,
        model=HOSTILE,
        method=HOSTILE,
        objective=HOSTILE,
        data=HOSTILE,
        when=HOSTILE,
        counts={HOSTILE: 1},
        after=measure([HOSTILE, "b"], [HOSTILE, HOSTILE], 1.0),
        samples=[Sample(HOSTILE, HOSTILE, HOSTILE * 10_000, HOSTILE)] * 10,
        settings=[(HOSTILE, [HOSTILE], HOSTILE), (HOSTILE, HOSTILE, "default")],
        versions={HOSTILE: HOSTILE},
    )
    write_report(tmp_path, facts)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    assert not found.all("script")
    assert not any("onload" in attrs for _, attrs in found.elements)
    assert not {"\x00", "\x1b", "\x85", "\u202e", "\ud800"} & set(html)
    assert "<script>alert('x')</script>\"' onload=x &amp; " in found.text, "escaped once, not twice"
    assert "电影\u3000好看" in html, "the wide space is a space, not a control character"
    assert len(html) < 200_000


def test_the_commands_can_be_pasted():
    assert "tunesmith chat 'runs/my run'" in Page(page(replace(BARE, run="runs/my run"))).text


@pytest.mark.parametrize(
    "losses",
    [[], [(1, 2.0)], [(0, 2.0)], [(1, 0.0), (2, 0.0)], [(1, float("nan"))], [(1, 2.0), (2, float("inf")), (3, 1.0)]],
    ids=["none", "one", "at step 0", "flat", "no number", "a hole"],
)
def test_any_losses_make_a_page_and_a_picture(tmp_path, losses):
    from PIL import Image

    write_report(tmp_path, replace(BARE, losses=losses))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    Page(html)
    assert "nan" not in html
    with Image.open(tmp_path / "loss.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert (picture.width, picture.height) > (600, 300)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "report.html"]


@pytest.mark.parametrize("name", ["report.html", "loss.png"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, name):
    write_report(tmp_path, BARE)
    old = (tmp_path / name).read_bytes()

    def full(path):
        if name in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunesmith.files.sync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, FULL)
    assert (tmp_path / name).read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "report.html"]


def test_a_long_run_makes_a_small_page_and_keeps_its_spikes():
    losses = [(step, 1.0 + step % 7 / 100) for step in range(1, 100_001)]
    losses[54_321] = (54_322, 99.0)
    kept = thin(losses)
    assert len(kept) <= 520
    assert kept == sorted(kept)
    assert (54_322, 99.0) in kept
    assert len(page(replace(BARE, losses=losses))) < 40_000


@pytest.mark.parametrize("low", [-3.0, 0.0, 1e-9, 0.12, 7.0, 12345.0])
@pytest.mark.parametrize("span", [0.0, 1e-6, 0.3, 1.0, 99.0, 1e6])
def test_ticks_are_few_and_hold_the_range(low, span):
    marks = ticks(low, low + span)
    assert 2 <= len(marks) <= 8
    slack = 1e-6 * max(span, abs(low))
    assert marks[0] <= low + slack
    assert marks[-1] >= low + span - slack
    assert marks == sorted(set(marks))


def test_the_result_is_worded_by_what_was_measured():
    right, loss = measure(["a"] * 4, ["a"] * 4, 0.5), measure([], [], 0.5, 1200)
    assert headline(None, None) == "This run was not measured"
    assert headline(loss, replace(loss, loss=0.25)) == "Loss 0.500 → 0.250 on 1,200 held-out rows"
    assert headline(None, right) == "Accuracy 100.0% on 4 held-out rows (95% interval 100.0 to 100.0)"
    assert summary(None, None) == []
    assert [name for name, *_ in summary(loss, loss)] == ["loss", "perplexity", "rows"]
    assert summary(None, right)[0] == ("accuracy", "", "100.0% (100.0 to 100.0)")


def test_a_run_that_has_not_made_things_better_for_certain_says_so():
    gold = ["a", "b"] * 50

    def scores(wrong):
        return measure(gold, ["?"] * wrong + gold[wrong:], 0.5)

    assert doubt(scores(50), scores(10)) == doubt(None, scores(10)) == doubt(scores(10), None) == ""
    assert "accuracy did not rise: 90.0% before, 80.0% after; train longer" in doubt(scores(10), scores(20))
    assert "accuracy did not rise" in doubt(scores(10), scores(10))
    assert "rose by no more than chance may: 80.0% before, 82.0% after (" in doubt(scores(20), scores(18))
    loss = measure([], [], 0.5, 1200)
    assert doubt(loss, replace(loss, loss=0.4)) == ""
    assert "the loss did not fall: 0.5000 before, 0.6000 after" in doubt(loss, replace(loss, loss=0.6))


def test_a_run_made_in_python_tells_what_was_set():
    from tunesmith.evaluate.report import settings
    from tunesmith.methods.full import Full
    from tunesmith.methods.lora import LoRA
    from tunesmith.run import Data, Model, Run, Train

    def given(origins=(), **parts):
        run = Run(model=Model(path="some/model"), data=Data(path="rows.jsonl"), **parts)
        return {key: origin for key, _, origin in settings(run, dict(origins)) if origin != "default"}

    paths = {"model.path": "Python", "data.path": "Python"}
    assert given() == paths
    assert given(train=Train(learning_rate=1e-3)) == paths | {"train.learning_rate": "Python"}
    assert given(method=Full()) == paths | {"method": "Python"}
    assert given(method=LoRA(r=3)) == paths | {"method.r": "Python"}
    assert given({"model.path": "a.yaml:1"}) == paths | {"model.path": "a.yaml:1"}


def test_a_run_folder_tells_its_own_facts(tmp_path):
    from tunesmith.config.load import to_yaml
    from tunesmith.passport import put
    from tunesmith.run import Data, Model, Run
    from tunesmith.runs import RunFolder

    folder, origins = RunFolder(tmp_path / "one"), {"model.path": "recipe.yaml:1"}
    folder.path.mkdir()
    recipe = to_yaml(Run(model=Model(path="some/model"), data=Data(path="rows.jsonl")), origins)
    (folder.path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    lines = [{"step": 1, "loss": 2.5}, {"step": 1, "eval_loss": 2.0}]
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    sample = {"prompt": "asked?", "gold": "yes", "before": None, "after": "no"}
    put(folder.path, {"options": {"model.path": {"value": "some/model", "origin": "recipe.yaml:1"}}, "versions": {}})
    folder.note(name="one", before=None, after=FULL.after.as_json(), samples=[sample])
    write_report(folder.path)
    html = (folder.path / "report.html").read_text(encoding="utf-8")
    for part in ("Accuracy 95.0%", "sft by lora of some/model on rows.jsonl", "recipe.yaml:1", "asked?", "nothing"):
        assert part in Page(html).text
    assert "held out loss 2 at step 1" in html
