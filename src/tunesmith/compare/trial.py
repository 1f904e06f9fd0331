"""A search for a learning rate and a rank on a user's own data, within a budget, and how far it can be believed.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), as Optuna has it (Li et al. 2020, arXiv:1810.05934):
every setting gets a short run, those that are among the best third so far one that is three times as long, and so on.
Each rung is a run of its own from the first step, so that its learning rate has come to its end where it is judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config.load import load
from ..errors import BadEnvironment, RecipeError, Refusal
from ..methods.base import Method
from ..migrate import RENAMED
from ..plan.advise import Advice
from ..run import Run
from ..runs import RunFolder
from .budget import Budget, Spent
from .contest import RATE, Begin, Entrant, Heat, Say, carry_out, here
from .outcome import Outcome, Setting, Tried
from .short import PACE, figure, judging, lighten

RANK = "method.r"
FACTOR = 3
"""By how much a run is longer than one on the rung below, and how many of those it comes from."""
RUNGS = 3
SEARCH = 5
"""As many of the longest runs as a search takes: one of the recipe's own, with the two below it, and the ways up of
about ten other settings. What is left is for seeds."""
RUNS = 22
"""About how many runs that makes."""
MOST = 30
"""Settings, whatever the budget."""


@dataclass(frozen=True)
class Space:
    """Which settings there are."""

    low: float
    high: float
    """Between which learning rates are drawn; the recipe's own may lie beyond."""
    ranks: tuple[int, ...]
    own: Setting
    """The recipe's."""
    wise: Setting
    """The advisor's."""

    @staticmethod
    def of(run: Run, advice: Sequence[Advice]) -> Space:
        """Learning rates and ranks that the advisor has nothing against, and the recipe's own rank."""
        said = {one.key: one for one in advice}
        rate, low, high = run.train.learning_rate, *run.method.suits
        wise = rate
        if about := said.get(RATE):
            low, high, wise = about.low or low, about.high or high, float(about.value)
        rank = getattr(run.method, "r", None)
        own = Setting(rate, rank)
        if rank is None:
            return Space(low, high, (), own, Setting(wise))
        about = said.get(RANK)
        least, most = (about.low or 1, about.high or 1) if about else (rank / 4, rank * 4)
        ranks = {2**n for n in range(12) if least <= 2**n <= most} | {rank}
        named = int(about.value) if about and about.value in ranks else rank
        return Space(low, high, tuple(sorted(ranks)), own, Setting(wise, named))

    def params(self, setting: Setting) -> dict[str, Any]:
        """A setting as Optuna has it; a rate beyond these is the nearest of them."""
        found: dict[str, Any] = {"rate": min(max(setting.rate, self.low), self.high)}
        return found | ({"rank": setting.rank} if self.ranks else {})

    def distributions(self) -> dict[str, Any]:
        """The same, as Optuna says it."""
        from optuna.distributions import (  # pyright: ignore[reportMissingImports] - an extra
            CategoricalDistribution,
            FloatDistribution,
        )

        found: dict[str, Any] = {"rate": FloatDistribution(self.low, self.high, log=True)}
        return found | ({"rank": CategoricalDistribution(self.ranks)} if self.ranks else {})


@dataclass(frozen=True)
class Asked:
    """What a trial is of."""

    recipe: Path
    words: tuple[str, ...]
    budget: Budget
    out: Path
    seeds: int = 3
    """How many the settings that are compared at last run under."""
    steps: float | None = None
    """How many steps the recipe's own run has, if that is known: no run of a trial is longer."""


class Trial:
    """The runs of a trial."""

    def __init__(self, asked: Asked, advice: Sequence[Advice], say: Say, begin: Begin = here) -> None:
        if find_spec("optuna") is None:
            raise BadEnvironment("--trial: needs optuna, which is not installed; pip install 'tunesmith[trial]'")
        self.asked, self.say, self.begin = asked, say, begin
        self.run = load(Run, asked.recipe, asked.words, renamed=RENAMED).value
        if asked.budget.kind == "tokens" and self.run.objective.targets == "prompts":
            raise RecipeError("--budget: nobody knows the tokens of answers before; name steps or time, such as 10m")
        self.space = Space.of(self.run, advice)
        self.spent, self.training = Spent(), Spent()
        self.counted: set[Path] = set()
        self.rungs: list[int] = []
        self.tried: dict[Setting, Tried] = {}

    # --- what it takes ---

    def price(self, steps: int) -> float:
        """About how much of the budget a run of these steps takes, by what runs took."""
        kind, done = self.asked.budget.kind, self.training
        if kind == "steps":
            return float(steps)
        if kind == "tokens":
            return steps * done.tokens / max(1, done.steps)
        return self.overhead + steps * done.seconds / max(1, done.steps)

    @property
    def overhead(self) -> float:
        """Seconds of a run that are no training, on average."""
        return (self.spent.seconds - self.training.seconds) / max(1, len(self.counted))

    @property
    def left(self) -> float:
        return self.asked.budget.amount - self.asked.budget.of(self.spent)

    def lay_out(self) -> None:
        """Find the lengths of runs. Raises RecipeError where the budget is too small for any."""
        budget = self.asked.budget
        if budget.kind != "steps":
            self.measure(self.space.own, PACE, self.run.train.seed)
            if failed := self.tried[self.space.own].failed:
                raise Refusal(f"--trial: the recipe's own setting does not run: {failed}")
        each = self.price(1) - self.price(0)
        least = FACTOR ** (RUNGS - 1)
        fixed = budget.of(self.spent) + (RUNS * self.overhead if budget.kind == "seconds" else 0.0)
        runs = SEARCH + self.repeats
        longest = (budget.amount - fixed) / (runs * each) if each else 0.0
        if longest < least:
            needed = budget.word(math.ceil(fixed + runs * least * each))
            raise RecipeError(f"--budget: {budget} are too few for a trial, which takes at least {needed}")
        longest = min(longest, max(least, self.asked.steps or longest))
        self.rungs = [int(longest) // FACTOR**n for n in reversed(range(RUNGS))]

    @property
    def repeats(self) -> int:
        """Runs under other seeds, at most: those of the best setting and of the recipe's own."""
        return 2 * (self.asked.seeds - 1)

    def fits(self, steps: int) -> bool:
        """Whether a run leaves enough for those under other seeds, and for a long one that is not the recipe's own."""
        still = 0 if steps == self.rungs[-1] or len(self.finalists) > 1 else 1
        return self.left - (self.repeats + still) * self.price(self.rungs[-1]) >= self.price(steps)

    @property
    def finalists(self) -> list[Tried]:
        """The settings that got to the top."""
        return [one for one in self.tried.values() if self.rungs[-1] in one.rungs]

    # --- runs ---

    def words(self, setting: Setting) -> list[str]:
        """The words that make a recipe one of this setting; its scale stays what it is."""
        words = [f"{RATE}={setting.rate!r}"]
        if setting.rank:
            words.append(f"{RANK}={setting.rank}")
            if alpha := scaled(self.run.method, setting.rank):
                words.append(f"method.lora_alpha={alpha}")
        return words

    def measure(self, setting: Setting, steps: int, seed: int) -> float:
        """The loss of a setting after a run of these steps; infinite where that fails, and the reason is kept."""
        folder = self.asked.out / "runs" / f"{setting.name}-steps-{steps}-seed-{seed}"
        of = self.asked.steps or steps
        own = [*judging(self.run, steps, of), *self.words(setting), f"train.seed={seed}", f"output={folder}"]
        heat = Heat(Entrant("trial"), seed, (*self.asked.words, *own), folder, "")
        began = time.monotonic()
        failed = carry_out(self.asked.recipe, heat, self.say, self.begin, short=True)
        if folder not in self.counted:
            self.counted.add(folder)
            took, wall = self.taken(folder, time.monotonic() - began)
            self.training += took
            self.spent += Spent(took.steps, took.tokens, wall)
        one = self.tried.setdefault(setting, Tried(setting))
        loss = math.inf if failed else figure(RunFolder(folder))
        one.failed = one.failed or failed or ("" if math.isfinite(loss) else "its loss is no number")
        return loss

    def taken(self, place: Path, seconds: float) -> tuple[Spent, float]:
        """What a run took, and how long by the clock; of one that was run before, what it took then."""
        folder = RunFolder(place)
        if not (place / "run.json").is_file():
            return Spent(), seconds
        lighten(folder)
        if "wall" not in folder.facts:
            folder.note(wall=seconds)
        return Spent.of(folder), float(folder.facts["wall"])

    # --- the search ---

    def search(self) -> None:
        """Go through settings, the recipe's own and the advisor's first, until what is left is needed for seeds."""
        import optuna  # pyright: ignore[reportMissingImports] - an extra

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=self.rungs[0], reduction_factor=FACTOR)
        sampler = optuna.samplers.TPESampler(seed=self.run.train.seed, n_startup_trials=6)
        study = optuna.create_study(sampler=sampler, pruner=pruner)
        first = list(dict.fromkeys((self.space.own, self.space.wise)))
        while len(study.trials) < MOST and self.fits(self.rungs[0]):
            named = first.pop(0) if first else None
            if named:
                study.enqueue_trial(self.space.params(named))
            trial = study.ask(self.space.distributions())
            drawn = Setting(float(f"{trial.params['rate']:.3g}"), trial.params.get("rank"))
            self.climb(study, trial, named or drawn)
            if len(self.tried) > 1 and not any(one.rungs for one in self.tried.values()):
                break  # what is wrong is not the setting

    def climb(self, study: Any, trial: Any, setting: Setting) -> None:
        """Take a setting up the rungs, as far as it gets."""
        from optuna.trial import TrialState  # pyright: ignore[reportMissingImports] - an extra

        known = self.tried.get(setting)
        if known and (known.rungs or known.failed):  # what rounds to a setting that was tried teaches nothing
            study.tell(trial, state=TrialState.FAIL)
            return
        for steps in self.rungs:
            if not self.fits(steps):
                break
            loss = self.measure(setting, steps, self.run.train.seed)
            if not math.isfinite(loss):
                break
            self.tried[setting].rungs[steps] = loss
            trial.report(loss, steps)
            if steps == self.rungs[-1]:
                study.tell(trial, loss)
                return
            if trial.should_prune():
                break
        study.tell(trial, state=TrialState.PRUNED)

    def challenge(self) -> None:
        """Where nothing but the recipe's own got to the top, have the best of the others run as long: without one,
        nothing could be said against it."""
        others = [one for one in self.tried.values() if one.rungs and one.setting != self.space.own]
        if len(self.finalists) > 1 or not others:
            return
        one = min(others, key=lambda one: (-max(one.rungs), one.rungs[max(one.rungs)]))
        last = self.rungs[-1]
        if last not in one.rungs and math.isfinite(loss := self.measure(one.setting, last, self.run.train.seed)):
            one.rungs[last] = loss

    def go(self) -> Outcome:
        """All of it. Raises Refusal where no setting came to its end."""
        self.lay_out()
        self.search()
        self.challenge()
        if not self.finalists:
            why = next((one.failed for one in self.tried.values() if one.failed), "the budget was used up")
            raise Refusal(f"--trial: no setting came to its end: {why}")
        best = min(self.finalists, key=lambda one: one.rungs[self.rungs[-1]])
        own = next((one for one in self.finalists if one.setting == self.space.own), None)
        for number in range(1, self.asked.seeds):
            for one in [best] if own in (best, None) else [best, own]:
                if math.isfinite(loss := self.measure(one.setting, self.rungs[-1], self.run.train.seed + number)):
                    one.again.append(loss)
        return Outcome(tuple(self.tried.values()), best, own, tuple(self.rungs), self.spent, self.asked.budget)


def scaled(method: Method, rank: int) -> int | None:
    """A lora_alpha by which an update of this rank is scaled as the recipe's own is; none where the usual one does
    that, or the method has no such thing. With use_rslora it goes by the root of the rank."""
    own, alpha, root = (getattr(method, key, None) for key in ("r", "lora_alpha", "use_rslora"))
    if not own or not (alpha or root):
        return None
    times = rank / own
    return max(1, round((alpha or 2 * own) * (math.sqrt(times) if root else times)))
