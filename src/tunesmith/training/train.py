"""The line itself: load, read, render, measure, train, save, measure again, report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import passport
from ..config.layers import values
from ..config.load import dump
from ..data.keeping.material import Material, prepare
from ..data.keeping.store import highest_token
from ..data.reading.places import places, sums
from ..data.rendering.answers import RATED
from ..errors import BadEnvironment, OutOfMemory, RecipeError
from ..evaluate.evaluate import Examiner
from ..evaluate.report import write_report
from ..files import full
from ..machine import Peak
from ..methods.mixture_of_depths import KIND
from ..model.another import beside
from ..model.away import place
from ..model.compiled import compile_blocks
from ..model.hub import locate, locate_data
from ..model.kept import keep
from ..model.lean import remaking
from ..model.liger import make_liger, wanted
from ..model.load import attach, load_model, load_tokenizer, memory_error, pad_as, save_tuned
from ..model.offload import elsewhere, refuse_offload
from ..model.policy import Policy
from ..model.teacher import find, load_teacher, models
from ..owner import hold
from ..rollout.label import note_judges, on_card
from ..rollout.score import code as reward_code
from ..rollout.score import refuse_rewards
from ..run import Run
from ..runs import RunFolder, claim, create, now
from ..secret import holds_secret
from . import checkpoint
from .before import ask_another, before_learning, begin_among, measured, own_oracle, recorded, ways
from .callbacks import Callbacks
from .loop import Loop
from .measured import forget_after, measure, measure_before, refuse_retention
from .online import answers, drawing, refuse_online, refuse_sampler
from .order import refuse_order
from .planned import hold_against
from .progress import Progress
from .quantised import refuse_quantised
from .signals import Signals
from .steps import Between, going_on
from .watched import refuse_watchers, watching

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    before: dict[str, Any] | None
    """accuracy, interval, n, macro_f1, loss and perplexity before training; None if nothing was measured."""
    after: dict[str, Any] | None
    """The same after it."""
    train_seconds: float
    tokens_per_second: float
    """Real tokens, padding aside."""
    peak_memory_mb: float
    """The most memory held at once: of the GPU, where one computes, else of the process."""
    run: str
    """The run folder."""


def train(
    run: Run,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    origins: Mapping[str, str] | None = None,
    name: str = "run",
    quiet: bool = False,
) -> Result:
    """Train as `run` says, and measure before and after.

    `callbacks` are any `transformers.TrainerCallback`. `origins` says where each value of the run came from, and
    `name` names its folder under runs/ unless `run.output` does. Raises a `Refusal` with one sentence where the
    run cannot be done, and `Stopped` after a signal.
    """
    refuse(run)
    progress = Progress(quiet)
    with claim(run, name, progress.say) as folder:
        return follow(run, folder, callbacks, progress, origins or {})


def resume(folder: Path, callbacks: Sequence[TrainerCallback] = (), *, quiet: bool = False) -> Result:
    """Go on with a run that was stopped, exactly as if it had not been.

    A finished run says what it came to, unless its recipe now asks for more steps: it then goes on from its last
    checkpoint, with the learning rate where a run of that length has it. Raises CheckpointError where the folder is no
    run's, or another process runs it.
    """
    opened, progress = RunFolder(folder), Progress(quiet)
    opened.recipe()  # nothing is written into a folder that is no run's
    with hold(folder, progress.say):
        recipe, facts = opened.recipe(), opened.facts
        run = recipe.value
        if facts["status"] == "finished" and facts["length"] != length(run):
            forget_after(opened)  # it will be another model
        elif facts["status"] == "finished":
            progress.say(f"{folder} is finished; this is what it came to")
            return Result(**facts["result"])
        return follow(run, opened, callbacks, progress, recipe.origins)


def follow(
    run: Run, folder: RunFolder, callbacks: Sequence[TrainerCallback], progress: Progress, origins: Mapping[str, str]
) -> Result:
    """The line, from the recipe or from the newest checkpoint to the report."""
    with (
        watching(run, folder, progress.say) as watched,
        ending(folder, progress),
        Signals() as signals,
        ExitStack() as held,
    ):
        peak, hooks, base = Peak(), Callbacks(callbacks, run.train, folder.path), locate(run.model.path)
        others = beside(run, base) | models(run)  # those that are not there are said before anything is read
        refuse_base(run, base)
        tokenizer = load_tokenizer(base)
        found = places(run.data, locate_data)
        material = prepare(run, found, tokenizer, progress.say)
        held_out = measured(run, material.test, material.validation, bool(callbacks))
        memory = ask_another(run, material, held_out, progress.say)
        loop = build(run, base, material, progress)
        if loop.answers:
            held.enter_context(drawing(run, base, loop.answers, folder.path))
        create(folder, run, origins)
        note_judges(folder, found, run.rewards, progress.say)
        signals.resume = going_on(folder)
        if not loop.answers:
            loop.kept = keep(loop.policy, material.sequences, loop.order.epochs, folder.path, progress.say)
        loop.policy.saving = elsewhere(run.train.activation_offload, loop.policy.model, folder.path) or remaking
        inputs = passport.inputs(base, sums(found) | reward_code(run.rewards), progress.say, others)
        said = folder.recipe().value  # as it loads back: in Python 1 may stand for 1.0
        rows = {passport.SEQUENCES: material.fingerprint, passport.MEASURED: material.measured}
        mine = passport.make(said, origins, inputs, rows, surroundings(loop, callbacks))
        passport.keep(folder.path, mine, progress.say)
        outputs = run.objective.outputs(material.labels)
        folder.note(status="running", counts=material.counts, labels=outputs, **recorded(loop, material))

        parts = material, run.objective, run.eval, loop.layout
        tried = loop.answers.tried if loop.answers else None
        examiner, watch = (Examiner(*parts, rows, tried) for rows in (material.test, material.validation))
        oracle = memory or own_oracle(run, loop, mine["hashes"]["base"], progress.say)
        asked = measured(run, examiner, watch, bool(callbacks))
        before_learning(run, loop, asked, oracle, progress.say)
        before = measure_before(examiner, loop.policy, run.method, folder, progress)
        facts = {"data": material.fingerprint, "base": mine["hashes"]["base"]} | checkpoint.deciding(run)
        facts["processes"] = loop.accelerator.num_processes
        around = watch, progress, watched, facts, passport.made_by(mine)
        taken = Between(loop, folder, hooks, *around).take_steps(signals)
        let_go(loop)
        told = called(run, base), run.model.precision
        saved = save_tuned(loop.policy.model, run.method, tokenizer, folder.path, *told)
        on_card(saved, folder)
        passport.complete(folder.path, saved, loop.weights, loop.cuts)
        after = measure(examiner, loop.policy, "after", folder, progress)
        watched.measured(taken.step, {"before": before, "after": after})
        held = peak.read(device := loop.accelerator.device)
        result = Result(before, after, taken.seconds, taken.speed, held[0], str(folder.path))
        planned = hold_against(run, device, material, taken, held, progress.say)
        folder.note(status="finished", ended=now(), result=asdict(result), length=length(run), plan=planned)
        write_report(folder.path)
        progress.say(f"saved {saved} and {folder.path / 'report.html'}")
        return result


def let_go(loop: Loop) -> None:
    """Remove the states that were kept for the steps."""
    if loop.kept:
        loop.kept.close()
        loop.kept = None


def refuse(run: Run) -> None:
    """What cannot be, said before anything is read."""
    import torch

    said = {key: str(value) for key, value in values(dump(run))}
    if holds_secret("\n".join(said.values())):  # which of them is seldom asked, and takes as long for each
        key = next(key for key, value in said.items() if holds_secret(value))
        raise RecipeError(
            f"{'.'.join(key)}: holds a password or a token, and every file of the run would show it; leave it out"
            " and keep it in the environment, such as HF_TOKEN, or download first and name the local folder"
        )
    refuse_quantised(run)
    run.objective.refuse()
    refuse_rewards(run.rewards)
    refuse_online(run)
    refuse_offload(run.train.activation_offload)
    refuse_order(run)
    refuse_retention(run)
    refuse_watchers(run)
    run.train.optim.refuse(run.train)
    run.train.lr_scheduler_type.refuse(run.train)
    train, processes = run.train, int(os.environ.get("WORLD_SIZE", "1"))
    alone = "several processes are not supported yet; start tunesmith by itself, not by torchrun"
    early = "train.optimizer_in_backward changes weights before all of the gradient is known"
    clashes = {
        f"runs of {alone}": processes > 1,
        "train.fp16: float16 needs a GPU; on a CPU leave it off": train.fp16 and not torch.cuda.is_available(),
        f"model.max_memory: {run.method.name} trains or changes weights, which must be there; take lora": (
            run.model.max_memory is not None and not run.method.detachable
        ),
        "train.torch_compile: cannot translate weights that are elsewhere; leave model.max_memory out": (
            train.torch_compile and run.model.max_memory is not None
        ),
        f"train.torch_compile: {run.method.name} takes other tokens each time; set it to false": train.torch_compile
        and run.method.name == KIND,
        f"data.train_on: all learns what is asked too, and {run.objective.name} judges answers; leave it out": (
            "all" in run.data.train_on and run.objective.targets in RATED
        ),
        "train.bf16 and train.fp16 exclude each other; set one of them": train.fp16 and train.bf16,
        "train.fp16 needs weights in fp32 to scale the loss; set model.precision=fp32": train.fp16
        and run.model.precision.name == "fp16",
        f"train.optim: {train.optim.name} spoils gradients, and {run.method.name} looks at them; take adamw_torch": (
            train.optim.spoils_gradients and run.method.reads_gradients
        ),
        f"{early}: it cannot be cut; set train.max_grad_norm=0": train.max_grad_norm > 0,
        f"{early}: it cannot be added up; set train.gradient_accumulation_steps=1": train.gradient_accumulation_steps
        > 1,
        f"{early}: a step cannot be left out; set train.on_nan=stop": train.on_nan == "skip",
        f"{early}: it cannot be cut into parts; set train.auto_batch=false": train.auto_batch,
        f"{early}: its overflow cannot be seen; set train.fp16=false": train.fp16,
        f"{early}: {run.method.name} looks at gradients; set it to false": run.method.reads_gradients,
    }
    for sentence, clash in clashes.items():
        if clash and (train.optimizer_in_backward or not sentence.startswith(early)):
            raise RecipeError(sentence)


def refuse_base(run: Run, base: Path) -> None:
    """What the files of the model rule out, said before its weights are read."""
    refuse_quantised(run, base)
    refuse_sampler(run, base)
    find(run, base)  # a teacher that is not there, or of other words


@contextmanager
def ending(folder: RunFolder, progress: Progress) -> Iterator[None]:
    """However a run ends, its folder says so; running out of memory or disk becomes a sentence."""
    try:
        yield
    except Exception as error:
        refusal = worded(error)
        if (folder.path / "run.json").exists():
            with suppress(OSError):  # on a full disk there is no room for this either
                folder.note(status=type(refusal).__name__.lower(), reason=str(refusal), ended=now())
        if refusal is error:
            raise
        raise refusal from None
    finally:
        progress.end()


def worded(error: Exception) -> Exception:
    if memory_error(error):
        return OutOfMemory(TOO_LARGE)
    if full(error):
        return BadEnvironment("the disk is full; nothing half-written was kept. Make room, then go on with --resume")
    return error


TOO_LARGE = (
    "out of memory: make a batch smaller (train.per_device_train_batch_size, with train.gradient_accumulation_steps"
    " larger to learn the same), data.max_length smaller, set train.gradient_checkpointing=true, or train less of the"
    " model (method=lora)"
)


def build(run: Run, base: Path, material: Material, progress: Progress) -> Loop:
    """The model under its method, on its device, and the loop around it."""
    import torch

    from ..machine import accelerator, settle_in

    settle_in()
    torch.manual_seed(run.train.seed)
    computing = accelerator(run.train)
    outputs = run.objective.outputs(material.labels)
    model, heads = load_model(base, run.model.precision, outputs, run.model.adapters, run.model.changes)
    run.model.rope_scaling.check(model.config, run.data.max_length)
    words: Any = model.get_input_embeddings()
    known, highest = len(words.weight), highest_token(material.sequences)
    if highest >= known:
        raise RecipeError(
            f"model.path: the tokenizer in {base} writes token {highest}, but the model knows {known} tokens;"
            " take the tokenizer that belongs to it"
        )
    tokenizer = material.renderer.tokenizer
    model = attach(model, run.method, heads, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    if run.train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model = place(model, run.model.max_memory, computing.device, progress.say)
    if wanted(run.model.liger):
        progress.say(f"liger: its kernels compute {make_liger(model)} norms and gates")
    policy = Policy(model)
    policy.noise = run.train.neftune_noise_alpha or 0.0
    if outputs:
        pad_as(tokenizer, policy.bare)
    policy.teacher = load_teacher(run, base, computing.device)
    layout = policy.layout()
    begin_among(run, policy, material.sequences, layout, progress.say)
    parts = {"cutoff": run.data.max_length, "method": run.method}
    parts["answers"] = answers(run, material, policy, layout, progress.say)
    loop = Loop(policy, run.objective, run.train, material.sequences, layout, computing, **parts)
    for fact in ways(loop):
        progress.say(fact)
    if run.train.torch_compile:
        progress.say(f"torch.compile: the blocks were translated in {compile_blocks(policy, layout):.0f} s")
    return loop


def surroundings(loop: Loop, callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    """What decides the last bits of a result and stands in no recipe: the machine, states kept, callbacks of Python."""
    from ..machine import facts

    names = [f"{type(one).__module__}.{type(one).__qualname__}" for one in callbacks]
    told = facts(loop.accelerator.device) | {"states kept": loop.kept is not None}
    return told | ({"callbacks": names} if names else {})


def length(run: Run) -> list[float | None]:
    """How long a run goes on, as its recipe says it."""
    return [getattr(run.train, key) for key in checkpoint.LENGTH]


def called(run: Run, base: Path) -> str:
    """The base model, as an adapter names it."""
    return run.model.path if remote(run.model.path) else str(base)


def remote(path: str) -> bool:
    """Whether the model's name means the same to others: it is a name on a hub, and not one of our demo models."""
    return not Path(path).exists() and not path.startswith("demo/")
