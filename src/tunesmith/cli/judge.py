"""judge teach, judge calibrate, judge label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .show import json_out, line, table
from .train import WORDS, Json, WithSettings

T = TypeVar("T")

How = Annotated[
    Path | None,
    typer.Option("--judge", help="A YAML file of the keys below; they may also follow as key=value."),
]


class WithTeaching(WithSettings):
    """A command whose help ends with who is to judge."""

    def settings(self) -> type:
        from ..rollout.judging import Teaching

        return Teaching


class WithJudging(WithSettings):
    """A command whose help ends with what may be said of a judge."""

    def settings(self) -> type:
        from ..rollout.judging import Judging

        return Judging


class WithLabelling(WithSettings):
    """The same, and of its labels."""

    def settings(self) -> type:
        from ..rollout.judging import Labelling

        return Labelling


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Have a model compare answers, once it has earned trust.", no_args_is_help=True)
    group.command("teach", context_settings=WORDS, cls=WithTeaching)(teach)
    group.command("calibrate", context_settings=WORDS, cls=WithJudging)(calibrate)
    group.command("label", context_settings=WORDS, cls=WithLabelling)(label)
    app.add_typer(group, name="judge")


def teach(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="Pairs that people have compared: chosen and rejected.")],
    to: Annotated[Path, typer.Option("--to", help="The .jsonl file to write, in the format messages.")],
    judge: How = None,
    as_json: Json = False,
) -> None:
    """Write what a model learns to judge by (sft): each pair as the judge is asked, in both orders, and the verdict."""
    from ..model.hub import locate_data
    from ..rollout.judging import Teaching
    from ..rollout.label import examples
    from ..rollout.teaching import clear, refuse_teach
    from ..rollout.teaching import teach as taught

    how = settings(Teaching, data, judge, context.args)
    refuse_teach(how.judge, to)
    found = examples(how.data, locate_data)
    agreed = clear(found, how.agreement)
    done = taught(how.judge, agreed, to)
    done.unclear = len(found) - len(agreed)
    if as_json:
        json_out(vars(done) | {"lessons": str(to)})
        return
    left = f"{done.alike} of the same answer twice, {done.repeats} that had been there before, {done.unclear} unclear"
    line(f"{to}: {done.pairs} pairs, {done.rows} rows; left out: {left}")
    line("rows of one pair stand beside each other: hold out none of them, `judge calibrate` measures on other pairs")


def calibrate(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="Pairs that people have compared: chosen and rejected.")],
    judge: How = None,
    to: Annotated[Path, typer.Option("--to", help="The file to write.")] = Path("judge.calibration.json"),
    as_json: Json = False,
) -> None:
    """Hold a judge against people: agreement, bias for the first and for the longer answer, each with its interval."""
    from ..model.hub import locate_data
    from ..rollout.calibration import calibrate as calibrated
    from ..rollout.judge import open_judge
    from ..rollout.judging import Judging
    from ..rollout.label import examples, pairs

    how = settings(Judging, data, judge, context.args)
    found = pairs(examples(how.data, locate_data))
    asked = open_judge(how.judge)
    made = calibrated(asked, found, data)
    made.save(to)
    if as_json:
        json_out(made.as_json() | {"distrust": made.distrust(how.threshold)})
        return
    title = f"{how.judge.model} on {made.pairs} pairs of {data}, each asked in both orders"
    table(title, ["", "", "95% interval", "what it is"], made.lines())
    for why, count in made.reasons.items():
        line(f"not judged: {count}: {why}")
    if made.repeats:
        line(f"{made.repeats} rows are of pairs that had been there before, and left out")
    spent(asked.account.as_json())
    line(f"{to}: " + (f"not to be learnt from: {why}" if (why := made.distrust(how.threshold)) else "may label"))


def label(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="Rows with two answers; or prompts, with write.model or revise.")],
    to: Annotated[Path, typer.Option("--to", help="The .jsonl file to write, in the format preference.")],
    judge: How = None,
    override: Annotated[bool, typer.Option("--override", help="Label all the same; it is noted.")] = False,
    as_json: Json = False,
) -> None:
    """Make preference data: which of two answers a judge prefers in either order. Goes on where it was stopped."""
    from ..errors import RecipeError
    from ..model.hub import locate_data
    from ..rollout.calibration import read_calibration
    from ..rollout.judge import open_judge
    from ..rollout.judging import Labelling
    from ..rollout.label import Trust, examples, note, refuse_label, revised
    from ..rollout.label import label as labelled

    how = settings(Labelling, data, judge, context.args)
    if how.write.model and how.revise:
        raise RecipeError("write.model, revise: two answers come from the one or from the other; leave one out")
    known = read_calibration(Path(how.calibration)) if how.calibration else None
    asked = open_judge(how.judge)
    why = refuse_label(to, asked, known, how.threshold, override)
    found, lost = examples(how.data, locate_data), {}
    if how.write.model:
        from ..rollout.written import answered

        found = answered(found, how.write, telling("written"))
    if how.revise:
        found, lost = revised(asked, found)
    done = labelled(asked, found, to, telling("judged"))
    done.unjudged |= lost
    beside = note(to, asked, Trust(known, how.threshold, why), done)
    if as_json:
        json_out(vars(done) | {"labels": str(to), "calibration": str(beside), "account": asked.account.as_json()})
        return
    left = f"{done.ties} ties, {done.alike} of the same answer twice and {sum(done.unjudged.values())} not judged"
    line(f"{to}: {done.rows} pairs; left out: {left}")
    for reason, count in done.unjudged.items():
        line(f"not judged: {count}: {reason}")
    spent(asked.account.as_json())
    line(f"{beside}: " + (f"overridden, though {why}" if why else "the judge is trusted"))


def settings(kind: type[T], data: str, judge: Path | None, words: Sequence[str]) -> T:
    from ..config.load import load

    return load(kind, judge, [f"data.path={data}", *words]).value


def telling(what: str) -> Callable[[int, int], None]:
    """Say how far it is, every tenth part."""
    import logging

    log = logging.getLogger("tunesmith")
    last = [0]

    def tell(at: int, total: int) -> None:
        if at * 10 // total > last[0] or at == total:
            last[0] = at * 10 // total
            log.info("%s: %s of %s", what, f"{at:,}", f"{total:,}")

    return tell


def spent(account: dict[str, float]) -> None:
    line(
        f"asked {account['asked']:,} times ({account['failed']:,} in vain, {account['kept']:,} known already),"
        f" {account['tokens_in']:,} tokens read, {account['tokens_out']:,} written, cost {account['cost']:.4f}"
    )
