"""A run's plan, from its recipe; and when it has been done, how far the plan was right."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import torch

from ..data.batch import branches, pack, share
from ..data.keeping.material import prepare
from ..data.reading.places import places
from ..data.reading.source import read as read_rows
from ..data.rendering.tokens import Tokens
from ..errors import BadEnvironment, DataError, Interrupted, Refusal, Stopped
from ..model.hub import locate_data
from ..model.load import load_tokenizer
from ..objectives._online import Online
from ..objectives.base import Beside
from ..optimizers.adamw import AdamW, FusedAdamW
from ..plan import past
from ..plan.device import here, this_cpu
from ..plan.estimate import Plan, Setting, Subject, estimate
from ..plan.known import Found, find
from ..plan.skills import battery
from ..plan.work import Part, Ranked, Work, rough
from ..rollout.sample import ROWS
from ..run import Run
from .loop import AT_ONCE, in_parts, order, sequences_of, sizes
from .optim import learnt

if TYPE_CHECKING:
    from ..data.batch import Layout
    from ..data.keeping.material import Material
    from ..model.policy import Policy
    from .order import Order
    from .steps import Taken

Say = Callable[[str], None]
SAMPLED = 24
"""Steps that are looked at."""
TELLS = 10.0
"""Seconds of training from which on a run tells how quick a machine is."""


class Rows:
    """What there is to learn from: sequences, which of their tokens are learnt, and what is measured."""

    def __init__(self, sequences: Sequence[Tokens], labels: tuple[str, ...] = ()) -> None:
        self.sequences, self.labels = sequences, labels
        self.learnt: float | None = None  # unless the sequences tell
        self.layout: Layout = share
        self.measured: list[int] = []
        self.ranked: tuple[Ranked, ...] = ()
        self.assumed: tuple[str, ...] = ()


def plan(run: Run, setting: Setting, rows: Rows, found: Found) -> Plan:
    """What a run of these rows will take there, corrected by what earlier runs on this machine took."""
    outputs = run.objective.outputs(rows.labels)
    replaces = () if isinstance(outputs, Beside) else outputs  # one beside the language model's is nothing to it
    subject = Subject(run, found, setting, replaces)
    if rows.layout is share and (drops(subject.policy) or not subject.policy.apart):
        rows.layout = pack
    made = estimate(subject, work(run, setting, rows), remembered(run, subject.policy, subject.assumed))
    made.assumed += [one for one in subject.assumed if one not in made.assumed]
    return past.correct(made, setting.device, key(run, found))


def drops(policy: Policy) -> bool:
    """Whether something is left out at random, so that sequences share no beginning (Policy.layout)."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in policy.model.modules())


def key(run: Run, found: Found) -> dict[str, str]:
    """What makes runs alike, so that one tells of another."""
    return {
        "model": f"{found.config.model_type} {run.model.path}",
        "method": run.method.name,
        "objective": run.objective.name,
    }


# --- rows -------------------------------------------------------------------------------------------------------------


def read(run: Run, found: Found, given: tuple[int | None, int | None], say: Say) -> Rows:
    """The rows that a run would learn from: rendered, if its tokenizer is here; else guessed, or as `given` says: how
    many there are, and how many tokens each has."""
    if all(given):
        return guessed(run, [given[1] or 1] * (given[0] or 1), ("rows and their tokens are as you say",))
    try:
        where = places(run.data, locate_data)
        if found.folder is not None:
            return rendered(run, prepare(run, where, load_tokenizer(found.folder), say))
    except (DataError, BadEnvironment) as error:
        count, tokens = given[0] or 1000, given[1] or run.data.max_length // 2
        why = str(error).split(";")[0].split("\n")[0]
        return guessed(run, [tokens] * count, (f"data: {why}: {count:,} rows of {tokens:,} tokens are assumed",))
    lengths = [rough(row.values) for one in where for row in read_rows(one.files.get("train", []))]
    lengths = lengths[: given[0]] if given[0] else lengths
    said = f"the tokenizer of {run.model.path} is not here: a token is taken for four letters, or for one and a half"
    return guessed(run, [given[1] or length for length in lengths], (f"{said} of Chinese, Japanese and Korean",))


def rendered(run: Run, material: Material) -> Rows:
    """The rows of a run, as it has them."""
    rows = Rows(material.sequences, material.labels)
    if run.eval.enabled:
        render = material.renderer.render
        asked = [one.ids for row in material.test for one in render(row, run.objective.targets)]
        alike = len(commonprefix(asked))  # is read once
        rows.measured = [len(ids) - alike for ids in asked]
        rows.ranked = battery(run.eval.batch_size, material.renderer) if run.eval.retention else ()
    return rows


def guessed(run: Run, lengths: list[int], assumed: tuple[str, ...]) -> Rows:
    """Rows of these lengths."""
    most, each = run.data.max_length, run.objective.rendered
    cut = [max(4, min(length, most)) for length in lengths[: run.data.max_samples]]
    made = {length: Tokens([0] * length, [True] * length) for length in set(cut)}  # one for all of a length
    rows = Rows([made[length] for length in cut for _ in range(each)], ("A", "B"))
    rows.layout, rows.assumed, rows.learnt = pack, assumed, 1.0 if run.objective.targets == "text" else 0.5
    rows.measured = sorted(cut)[-run.eval.max_samples :][: max(1, len(cut) // 10)]
    rows.ranked = battery(run.eval.batch_size) if run.eval.enabled and run.eval.retention else ()
    return rows


# --- work -------------------------------------------------------------------------------------------------------------


def work(run: Run, setting: Setting, rows: Rows) -> Work:
    """The steps of a run over these rows."""
    whole = order(run.train, run.objective, rows.sequences, run.data.max_length, (0, setting.devices))
    online = run.objective if isinstance(run.objective, Online) else None
    at = sorted({round(n * (whole.total - 1) / SAMPLED) for n in range(SAMPLED + 1)})
    chosen = [list(parts_of(run, setting, rows, whole, step)) for step in at]
    sampled = tuple(tuple(laid(run, part, rows.layout) for part in step) for step in chosen)
    done = Work(
        steps=whole.total,
        tokens=statistics.fmean(sum(part.tokens for part in step) for step in sampled) * whole.total,
        sampled=sampled,
        learnt=rows.learnt or share_learnt(chosen, sampled),
        measured=batches(run, rows),
        ranked=rows.ranked,
        written=run.eval.max_new_tokens if run.eval.enabled and run.objective.targets in ("answers", "text") else 0,
        assumed=rows.assumed,
    )
    if online is None:
        return done
    answers, longest = sum(map(len, whole.batches(0))) * online.num_generations, online.max_completion_length
    said = f"answers are as long as they may be, {longest:,} tokens; what rewards take is not counted"
    return replace(
        done,
        learnt=min(1.0, longest * len(done.largest.own) / done.largest.tokens),
        answers=answers,
        completion=longest,
        writing=min(ROWS, answers),
        written=longest * -(-len(rows.measured) // ROWS) if run.eval.enabled else 0,
        rollouts=1 / online.repeats,
        looks=0.0 if online.at_once else (1 + ("reference" in online.before())) / online.num_iterations,
        assumed=(*rows.assumed, said),
    )


def parts_of(run: Run, setting: Setting, rows: Rows, whole: Order, step: int) -> Iterator[list[Tokens]]:
    """What is computed together in a step, as the loop has it (Loop.parts)."""
    sequences, batches = seen(run, rows, whole, step)
    for examples in batches:
        all_of = [sequences[n] for n in sequences_of(examples, run.objective)]
        lengths = dict(enumerate(sizes(all_of, rows.layout, run.objective)))
        on_cpu = setting.device.kind == "cpu" and not run.train.optimizer_in_backward
        for part in in_parts(lengths, -(-sum(lengths.values()) // AT_ONCE) if on_cpu else 1):
            yield [sequences[n] for n in sequences_of([examples[at] for at in part], run.objective)]


def share_learnt(chosen: Sequence[Sequence[Sequence[Tokens]]], sampled: Sequence[Sequence[Part]]) -> float:
    """The share of tokens that are learnt, of those that are computed: what sequences have in common counts once."""
    learnt = sum(sum(tokens.learn[1:]) for step in chosen for part in step for tokens in part)
    return min(1.0, learnt / max(1, sum(part.tokens for step in sampled for part in step)))


def seen(run: Run, rows: Rows, whole: Order, step: int) -> tuple[Sequence[Tokens], list[list[int]]]:
    """The sequences that a step is of, and its batches of examples: those of the data, or answers to their prompts that
    are yet to be written (Buffer.batches)."""
    online = run.objective
    if not isinstance(online, Online):
        return rows.sequences, whole.batches(step)
    prompts = [rows.sequences[n].ids for batch in whole.batches(step) for n in batch]
    length, size = online.max_completion_length, online.num_generations
    answers = [
        Tokens(ids + [-1 - at] * length, [False] * len(ids) + [True] * length) for ids in prompts for at in range(size)
    ]
    mine = range(step % online.num_mini_batches, len(prompts), online.num_mini_batches)
    parts = run.train.gradient_accumulation_steps
    return answers, [list(mine[at::parts]) for at in range(parts) if mine[at::parts]]


def laid(run: Run, sequences: Sequence[Tokens], layout: Layout) -> Part:
    """The lengths that sequences have in a batch; a plan may ask for shorter ones than they were rendered for."""
    most = run.data.max_length + getattr(run.objective, "max_completion_length", 0)
    lengths = [min(most, len(tokens.ids)) for tokens in sequences]
    if layout is share and max(borrowed := branches(sequences)):
        pairs = zip(lengths, borrowed, strict=True)
        return Part(tuple(max(1, length - first) for length, first in pairs), tuple(borrowed))
    return Part(tuple(lengths) if layout in (share, pack) else (max(lengths),) * len(lengths))


def batches(run: Run, rows: Rows) -> tuple[Part, ...]:
    """The batches in which held-out rows are measured, the largest first."""
    if not run.eval.enabled or isinstance(run.objective, Online):
        return ()
    size = run.eval.batch_size * run.objective.rendered
    lengths = sorted(rows.measured, reverse=True)
    return tuple(Part(tuple(lengths[at : at + size])) for at in range(0, len(lengths), size))


# --- optimizer --------------------------------------------------------------------------------------------------------

STATES = {"AdamW": 2, "Lion": 1, "AdEMAMix": 3, "RMSprop": 1}
"""Numbers that bitsandbytes' optimizers keep for each weight."""


def remembered(run: Run, policy: Policy, assumed: list[str]) -> float:
    """Bytes that the optimizer will remember: what it has made on a model without weights, once it took a step."""
    entry: Any = run.train.optim
    weights = learnt(run.train, policy, run.method)
    if hasattr(entry, "bits"):
        counts = [one.weight.numel() for one in weights]
        small = getattr(entry, "min_8bit_size", 0)
        each = STATES[entry.kind]
        return float(sum(each * n * ((1 + 4 / 256) if entry.bits == 8 and n >= small else 4) for n in counts))
    entry = AdamW() if isinstance(entry, FusedAdamW) else entry  # which takes no weights that are nowhere
    try:
        made = entry.make(weights, run.train)
        with entry.learning(made):
            for one in weights:
                one.weight.grad = torch.empty_like(one.weight) if one.weight.requires_grad else None
        made.step()
    except (RuntimeError, NotImplementedError, TypeError, ImportError, BadEnvironment) as error:
        assumed.append(
            f"{entry.name} cannot be tried without weights ({str(error)[:60]}): two numbers a weight assumed"
        )
        return 8.0 * sum(one.weight.numel() for one in weights)
    finally:
        for one in weights:
            one.weight.grad = None
    kept = [made.state.get(one.weight, {}) for one in weights]
    return float(sum(tensor.nbytes for state in kept for tensor in state.values() if isinstance(tensor, torch.Tensor)))


# --- afterwards -------------------------------------------------------------------------------------------------------


def hold_against(
    run: Run, device: torch.device, material: Material, taken: Taken, peak: tuple[float, bool], say: Say
) -> dict[str, Any]:
    """The plan of a run that has been done, as `tunesmith plan` shows it, beside what it took: shown, and kept for the
    plans to come. `peak` is in MB, and whether it is the run's own.

    A run of a few seconds tells nothing of a machine. A plan that fails must not cost a run that is done: it is said.
    A signal is obeyed.
    """
    if taken.seconds < TELLS:
        return {}
    try:
        found, setting = find(run.model.path), Setting(here() if device.type == "cuda" else this_cpu())
        made = plan(run, setting, rendered(run, material), found)
    except (Stopped, Interrupted):
        raise
    except (Refusal, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        say(f"plan: cannot be made of this run ({str(error).splitlines()[0][:100]})")
        return {}
    mb, own = peak
    held = mb / 1024 + (setting.device.framework if setting.device.kind == "gpu" else 0.0)
    told = past.note(made, setting.device, key(run, found), held if own else None, taken.seconds / max(1, taken.step))
    words = (f"{what} {one['planned']:.3g} planned, {one['measured']:.3g} measured" for what, one in told.items())
    say(f"plan: {', '.join(words)} (GB, seconds a step); the next plan knows it")
    return told


def asked(run: Run, setting: Setting, given: tuple[int | None, int | None], say: Say) -> tuple[Plan, Rows, Found]:
    """The plan that a recipe alone makes."""
    found = find(run.model.path)
    if found.folder is None and run.objective.targets == "label" and not given[1]:
        say("classes: two are assumed")
    rows = read(run, found, given, say)
    return plan(run, setting, rows, found), rows, found
