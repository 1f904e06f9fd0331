"""Who judges what, and what it is for: the settings of `tunesmith judge`."""

from ..config.record import Count, Fraction, Natural, Positive, record
from ..rewards._settings import Judge
from ..run import Source

THRESHOLD = 0.4
"""Moderate agreement, as Landis and Koch (1977) call it."""


@record
class Teaching:
    """Who is to judge, and what people have compared."""

    judge: Judge
    data: Source
    """The rows."""
    agreement: Fraction | None = None
    """Teach by those pairs alone on which raters agree so far, from 0.5 to 1; of rows that say how far they do."""


@record
class Judging:
    """Who judges what."""

    judge: Judge
    data: Source
    """The rows."""
    threshold: Fraction = THRESHOLD
    """Labels are refused where Cohen's kappa with people may be below this: at the lower end of its 95% interval. Where
    it is set lower than it is by itself, labels that this lets through take --override."""


@record
class Writing:
    """How answers are written that are then compared."""

    model: str | None = None
    """Have this model write two answers to each prompt: a run's folder, a model's, org/name or demo/NAME."""
    temperature: Positive = 1.0
    """How freely it writes."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    seed: Natural = 0
    """Seed of what it writes."""


@record
class Labelling(Judging):
    """Who labels what, and by which trust."""

    calibration: str | None = None
    """What `tunesmith judge calibrate` wrote of this judge."""
    write: Writing = Writing()
    revise: bool = False
    """Have the judge rewrite each row's one answer by judge.principles, and compare the two."""
