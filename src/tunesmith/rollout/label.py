"""From prompts, or pairs that nobody has compared, to preference data: by a judge that has earned trust."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config.load import dump
from ..data.dataset import Pass
from ..data.example import Example, Media
from ..data.formats.preference import Preference
from ..data.reading.places import Place, places
from ..data.reading.source import Where
from ..data.writing.writers import line
from ..errors import DataError, RecipeError
from ..files import sha256, whole, write
from ..rewards.base import Reward, Unscored
from ..rewards.judge import JudgeReward
from ..run import Data, Source
from ..runs import RunFolder
from .calibration import Calibration, read_calibration
from .judge import AT_ONCE, AtWork, Pair
from .turns import answer, text, turns

MARK = ".calibration.json"


@dataclass
class Labelled:
    """What became of the rows."""

    rows: int = 0
    """Pairs written."""
    ties: int = 0
    """Pairs of which neither answer is better; they are left out."""
    alike: int = 0
    """Pairs of the same answer twice; they are left out, and not asked about."""
    unjudged: dict[str, int] = field(default_factory=dict)
    """Pairs that the judge did not judge, by the reason; they are left out."""


def examples(source: Source, locate: Callable[[str, str | None], Where]) -> list[Example]:
    """What the rows to train on mean."""
    [place] = places(Data(**vars(source), eval_size=0.0), locate)
    reading = Pass(place, None, "answers", 0, 0)
    found: list[Example] = []
    for split, row in reading.rows():
        if isinstance(row, str):
            raise DataError(row)
        if split != "train":
            continue
        made = reading.meant(row)
        if isinstance(made, str):
            raise DataError(made)
        found += made
    if blind := next((one for one in found if one.media != Media()), None):
        raise DataError(f"{blind.origin}: holds images, videos or audios, which the judge does not see; leave it out")
    return found


def pairs(found: Sequence[Example]) -> list[Pair]:
    """The two answers of each example."""
    for example in found:
        if len(example.answers) != 2:
            raise DataError(
                f"{example.origin}: has {len(example.answers)} answers where two are compared; name the columns with"
                " data.format.name=preference data.format.chosen=... data.format.rejected=..., or have answers written"
                " with write.model=..., or rewritten with revise=true"
            )
    return [Pair(turns(one.prompt), *map(text, one.answers)) for one in found]


def label(judge: AtWork, found: Sequence[Example], out: Path, tell: Callable[[int, int], None]) -> Labelled:
    """Write the pairs that the judge has an opinion of, the better answer first."""
    asked, done, reasons = pairs(found), Labelled(), Counter[str]()
    plain = all(short(example) for example in found)
    with whole(out) as beside, beside.open("w", encoding="utf-8", newline="\n") as opened:
        for at in range(0, len(found), AT_ONCE):
            part = [
                n for n in range(at, min(at + AT_ONCE, len(found))) if asked[n].one.strip() != asked[n].other.strip()
            ]
            done.alike += min(AT_ONCE, len(found) - at) - len(part)
            for n, verdict in zip(part, judge.compare([asked[n] for n in part]), strict=True):
                if not verdict.there:
                    reasons[verdict.why] += 1
                elif verdict.better is None:
                    done.ties += 1
                else:
                    row = Preference().write(preferred(found[n], verdict.better), as_turns=not plain)
                    opened.write(line(row) + "\n")
                    done.rows += 1
            tell(min(at + AT_ONCE, len(found)), len(found))
        done.unjudged = dict(reasons)
        if not done.rows:
            why = f"; {next(iter(reasons))}" if reasons else ""
            raise DataError(f"{out}: nothing was written: the judge preferred no answer of {len(found)} pairs{why}")
    return done


def preferred(example: Example, better: int) -> Example:
    """The example with the better answer first, and nothing of what people said of the two: labels are a judge's."""
    answers = example.answers[:: -1 if better else 1]
    return replace(example, answers=answers, ratings=(), margin=None, agreement=None)


def short(example: Example) -> bool:
    """Whether an example can be written as three texts."""
    return isinstance(Preference().write(example)["prompt"], str)


def revised(judge: AtWork, found: Sequence[Example]) -> tuple[list[Example], dict[str, int]]:
    """Each example with its answer and the judge's revision of it; and why some have none."""
    for example in found:
        if len(example.answers) != 1:
            raise DataError(f"{example.origin}: has {len(example.answers)} answers, and revise=true rewrites one")
    made: list[Example] = []
    reasons = Counter[str]()
    for at in range(0, len(found), AT_ONCE):
        part = found[at : at + AT_ONCE]
        new = judge.revise([(turns(one.prompt), text(one.answers[0])) for one in part])
        for example, one in zip(part, new, strict=True):
            if isinstance(one, Unscored):
                reasons[str(one)] += 1
            else:
                made.append(replace(example, answers=(example.answers[0], answer(one))))
    return made, dict(reasons)


def refuse_label(out: Path, judge: AtWork, known: Calibration | None, threshold: float, override: bool) -> str | None:
    """Why the labels are not to be trusted; raised unless it is overridden, None if they may be."""
    if out.exists():
        raise RecipeError(f"--to: {out} is there already; name another file, or remove it")
    if out.suffix != ".jsonl":
        raise RecipeError(f"--to: {out} must end with .jsonl")
    why = known.distrust(threshold) if known else "nobody has held it against people"
    if known and known.fingerprint != judge.fingerprint:
        why = "the calibration is of another judge: its model, address, rubric or settings differ"
    if why and not override:
        raise RecipeError(
            f"judge: {judge.settings.model} is not to be learnt from: {why}; calibrate it with `tunesmith judge"
            " calibrate` on pairs that people have compared, mend its rubric or take a better one, or say --override"
        )
    return why


@dataclass(frozen=True)
class Trust:
    """By what a judge's labels were let through."""

    known: Calibration | None
    threshold: float
    overridden: str | None
    """Why they would not have been."""


def note(out: Path, judge: AtWork, trust: Trust, done: Labelled) -> Path:
    """Write beside labels who made them, and whether that one was trusted."""
    file, known = out.with_name(out.name + MARK), trust.known
    facts: dict[str, Any] = {"labels": out.name, "sha256": sha256(out), "overridden": trust.overridden}
    facts |= {"label": vars(done), "threshold": trust.threshold}
    facts |= {"judge": judge.settings.model, "fingerprint": judge.fingerprint, "account": judge.account.as_json()}
    facts["calibration"] = known.as_json() if known else None
    write(file, json.dumps(facts, indent=1, ensure_ascii=False))
    return file


def noted(found: Sequence[Place]) -> list[dict[str, Any]]:
    """What stands beside the files of a run's data of who made their labels, and whether these are still the same."""
    made: list[dict[str, Any]] = []
    for place in found:
        for name, file in place.named():
            beside = file.with_name(file.name + MARK)
            if not beside.is_file():
                continue
            try:
                facts = dict(json.loads(beside.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise DataError(f"{beside}: is not what `tunesmith judge label` writes; mend or remove it") from None
            facts |= {"file": str(file), "unchanged": facts.get("sha256") == place.read_through[name][0]}
            made.append(facts | {"said": trusted(facts)})
    return made


def note_judges(
    folder: RunFolder, found: Sequence[Place], rewards: Sequence[Reward], say: Callable[[str], None]
) -> None:
    """Write into a run who made the labels of its data, and who judges its answers, and say it."""
    if judges := [*noted(found), *judging(rewards)]:
        folder.note(judges=judges)
        for one in judges:
            say(one["said"])


def judging(rewards: Sequence[Reward]) -> list[dict[str, Any]]:
    """Who judges answers while a model learns, and how far that one agrees with people on pairs. Raises RecipeError for
    the calibration of another judge."""
    made: list[dict[str, Any]] = []
    asked: list[tuple[int, Any]] = [(n, one) for n, one in enumerate(rewards) if isinstance(one, JudgeReward)]
    for number, one in asked:
        known = read_calibration(Path(one.calibration)) if one.calibration else None
        mine = dump(one.judge)
        differ = [name for name in DECIDING if known and known.judge.get(name) != mine.get(name)]
        if differ:
            raise RecipeError(
                f"rewards.{number}.calibration: {one.calibration} is of another judge: its {', '.join(differ)} differ;"
                " calibrate this one with `tunesmith judge calibrate`, or leave it out"
            )
        said = f"rewards.{number}: answers are rated by the judge {one.judge.model}, {agreement(known)}"
        if known and (why := known.distrust()):
            said += f"; not to be trusted: {why}"
        made.append({"judge": one.judge.model, "calibration": known.as_json() if known else None, "said": said})
    return made


DECIDING = ("model", "url", "rubric", "reason", "temperature", "max_tokens")
"""Settings that make another judge of a judge."""


def on_card(saved: Path, folder: RunFolder) -> None:
    """Say on a model's card, where it has one, who judged what it learnt from."""
    card, judges = saved / "README.md", folder.facts.get("judges", ())
    if judges and card.is_file():
        told = "".join(f"- {one['said']}\n" for one in judges)
        write(card, f"{card.read_text(encoding='utf-8').rstrip()}\n\n## Judged by a model\n\n{told}")


def trusted(facts: dict[str, Any]) -> str:
    """In a sentence, who made the labels of a file, and how far that one agrees with people."""
    over = f"; overridden, though {facts['overridden']}" if facts.get("overridden") else ""
    changed = "" if facts["unchanged"] else "; the file has changed since"
    known = agreement(facts.get("calibration"))
    return f"{facts['file']}: labels of the judge {facts.get('judge')}, {known}{over}{changed}"


def agreement(known: Calibration | dict[str, Any] | None) -> str:
    """How far a judge agrees with people, in words."""
    facts = known.as_json() if isinstance(known, Calibration) else known
    kappa = ((facts or {}).get("figures") or {}).get("kappa") or {}
    low, high = kappa.get("interval") or (None, None)
    if low is None:
        return "never calibrated"
    return f"kappa with people {kappa['value']:.2f} ({low:.2f} to {high:.2f})"
