"""What a run is: everything that decides its result, and nothing else."""

from typing import Annotated, Literal

from annotated_types import Ge

from .attn.base import Attention, attn
from .attn.kinds import Auto as AutoAttention
from .config.choice import Choice
from .config.record import Beta, Count, Fraction, Natural, NonNegative, Positive, record
from .data.formats.auto import Auto
from .data.formats.base import Format, format_
from .methods.base import Method, method
from .methods.lora import LoRA
from .notices.base import Notice, notice
from .objectives.base import Objective, objective
from .objectives.sft import SFT
from .optimizers.adamw import FusedAdamW
from .optimizers.base import Optim, optimizer
from .precision.base import Precision, precision
from .precision.plain import Auto as AutoPrecision
from .rewards.base import Reward, reward
from .rope.base import RopeScaling, rope_scaling
from .rope.kinds import Unchanged
from .schedules.base import Schedule, schedule
from .schedules.falling import Linear
from .trackers.base import Tracker, tracker

AnyMethod = Annotated[Method, Choice(method, "lora")]
AnyObjective = Annotated[Objective, Choice(objective, "sft")]
AnyPrecision = Annotated[Precision, Choice(precision, "auto")]
AnyRope = Annotated[RopeScaling, Choice(rope_scaling, "unchanged")]
AnyAttention = Annotated[Attention, Choice(attn, "auto")]
AnyOptim = Annotated[Optim, Choice(optimizer, "adamw_torch_fused")]
AnySchedule = Annotated[Schedule, Choice(schedule, "linear")]
AnyFormat = Annotated[Format, Choice(format_, "auto")]
AnyReward = Annotated[Reward, Choice(reward, "")]
AnyTracker = Annotated[Tracker, Choice(tracker, "")]
AnyNotice = Annotated[Notice, Choice(notice, "")]
Strategy = Literal["no", "steps", "epoch"]


@record
class Model:
    """Which model to start from, and how to hold it in memory."""

    path: str
    """A folder, a .gguf file, org/name on Hugging Face, modelscope:org/name, or demo/NAME."""
    adapters: tuple[str, ...] = ()
    """Adapters that are merged into its weights first, in this order: their folders, or those of the runs that made
    them. What is trained then stands on top of them."""
    precision: AnyPrecision = AutoPrecision()
    """How the weights are held: in full, or in few bits under an adapter that learns."""
    rope_scaling: AnyRope = Unchanged()
    """How positions are stretched to texts longer than the model was made for."""
    attn: AnyAttention = AutoAttention()
    """Which program computes attention."""
    liger: Literal["auto", "on", "off"] = "auto"
    """Norms and gates by Liger's kernels; auto is on where there is a GPU and they are installed."""
    max_memory: Positive | None = None
    """Gigabytes of weights that stay where they are computed with, in training; those of further blocks wait on the
    disk, or in main memory beside a GPU, and are fetched for each use. For methods that leave weights as they are."""

    @property
    def changes(self) -> tuple[RopeScaling | Attention, ...]:
        """What changes the config that the model is made by."""
        return self.rope_scaling, self.attn


@record
class Source:
    """Where rows come from."""

    path: str
    """A file, a folder, a pattern such as data/*.jsonl, FOLDER/NAME of a dataset_info.json, an https:// address,
    org/name on the Hub, modelscope:org/name, demo/NAME."""
    subset: str | None = None
    """Which of the configs that the README.md of a dataset's folder lists; needed where there are several."""
    split: str | None = None
    """Which of its splits to train on, if not train: train_sft, and test_sft is held out."""
    format: AnyFormat = Auto()
    """How a row is read; detected from the columns unless given."""
    max_samples: Count | None = None
    """Train on this many of its rows only, drawn by the seed."""
    task: str | None = None
    """Which task its rows are of, where several are learnt at once: each has a part of the head by itself, and figures
    of its own. Sources with the same task are one."""
    weight: Positive = 1.0
    """Its share of what is trained on, beside those of other sources; counts where these are interleaved."""
    sha256: str | None = None
    """What an https:// file must hash to; needed for one."""
    media_dir: str | None = None
    """Folder that the paths of images, videos and audios start from; the folder of the data unless given."""


@record
class Data(Source):
    """What to learn from."""

    also: tuple[Source, ...] = ()
    """More sources, each with a path, a format, max_samples and a weight of its own."""
    mixing: Literal["concatenate", "interleave_under", "interleave_over"] = "concatenate"
    """concatenate takes every row once; the others take of each source its share, until the first is used up (under),
    or until each is (over), rows of the others coming again."""
    temperature: Positive | None = None
    """Interleaved, the shares are the weights times the sources' sizes to the power of 1/temperature; unless it is
    given, the weights alone."""
    eval_path: str | None = None
    """Held-out rows to measure on, of this source's task; else its own test split, else a share of the rows."""
    eval_size: Fraction = 0.1
    """Share of the rows held out, by a hash of their content, where the source has no test split."""
    validation_size: Fraction = 0.0
    """Share of the rows held out beside these, in the same way, for what is measured while training; else these are
    measured then too. Where the source has no validation split."""
    max_length: Count = 2048
    """Longest sequence in tokens; what becomes of a longer one says truncation."""
    truncation: Literal["right", "left", "split", "drop"] = "right"
    """Cut a longer sequence at its end or at its beginning, make several of a text, or leave it out; all is counted.
    Texts of pretrain are always split, unless they are to be left out."""
    train_on: tuple[Literal["assistant", "last", "system", "user", "tool", "all"], ...] = ("assistant",)
    """Whose turns are learnt: by role, the last turn alone, or all of the text; weights in the data go before."""
    thinking: Literal["keep", "drop"] = "keep"
    """What becomes of what the assistant thinks before it answers."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row does that cannot be read or has nothing to learn: stop the run, or be left out and counted."""
    on_lint: Literal["stop", "warn"] = "stop"
    """What the checks of the data do that find an error: stop the run before it starts, or only say so."""


@record
class Train:
    """How to go about it; the names are those of transformers.TrainingArguments."""

    learning_rate: Positive = 2e-4
    """Peak learning rate; about 2e-4 suits LoRA, 2e-5 full fine-tuning."""
    lr_scheduler_type: AnySchedule = Linear()
    """How the learning rate changes over the run."""
    warmup_steps: NonNegative = 0
    """Steps of rising learning rate at the start; a value below 1 is a share of all steps."""
    num_train_epochs: Positive = 1.0
    """Passes over the data; 0.5 is half of it."""
    max_steps: Annotated[int, Ge(-1)] = -1
    """Optimizer steps, whatever num_train_epochs says; -1 for no limit of its own."""
    num_train_tokens: Count | None = None
    """Train on so many tokens, padding aside, whatever num_train_epochs says: the run, and its learning rate, end with
    the first step that comes to them."""
    max_seconds: Positive | None = None
    """End after the first step by which training has taken so long, measuring and saving aside, wherever the learning
    rate then stands; where the run ends depends on how busy the machine is."""
    per_device_train_batch_size: Count = 8
    """Examples in one forward pass on one device."""
    max_tokens_per_batch: Count | None = None
    """A batch is as many examples as come to this many tokens, instead of per_device_train_batch_size of them."""
    packing: bool = False
    """A batch is per_device_train_batch_size rows, each filled up with examples to max_tokens_per_batch tokens, or
    to data.max_length."""
    gradient_accumulation_steps: Count = 1
    """Forward passes in one optimizer step; the gradient is that of one large batch."""
    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "balanced"] = "random"
    """Order of the examples; group_by_length puts those of like length into one batch; balanced gives every batch the
    same number of examples of each source, by the share that it has of an epoch (data.mixing)."""
    optim: AnyOptim = FusedAdamW()
    """How gradients become steps."""
    adam_beta1: Beta = 0.9
    """Decay of the mean of gradients, in all of Adam's family."""
    adam_beta2: Beta = 0.999
    """Decay of the mean of squared gradients, in all of Adam's family."""
    adam_epsilon: Positive = 1e-8
    """Added to the denominator, in all of Adam's family."""
    optimizer_in_backward: bool = False
    """Change each weight as soon as its gradient is known, and drop the gradient: less memory where all weights learn.
    Needs max_grad_norm: 0 and gradient_accumulation_steps: 1."""
    weight_decay: NonNegative = 0.0
    """Shrinks every matrix by this times the learning rate a step; biases and norms are spared."""
    neftune_noise_alpha: Positive | None = None
    """Adds noise to the embeddings in training, uniform within this over the root of a sequence's length times the
    model's width; 5 is usual (NEFTune, arXiv:2310.05914)."""
    max_grad_norm: NonNegative = 1.0
    """A longer gradient is scaled down to this length; 0 never does."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do when a loss or gradient is no number: stop, or leave the step out and count it."""
    max_skipped_steps: Natural = 10
    """Steps that may be left out so before the run stops, with on_nan: skip."""
    auto_batch: bool = False
    """Compute a batch that does not fit into memory in smaller parts: its gradient is the same, and takes longer."""
    bf16: bool = False
    """Compute in bfloat16 while the weights stay as they are."""
    fp16: bool = False
    """Compute in float16 with loss scaling; needs a GPU."""
    torch_compile: bool = False
    """Let torch.compile translate the model's blocks before training; takes a minute or more and a C++ compiler."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    activation_offload: Literal["no", "cpu", "disk"] = "no"
    """Where activations wait for the backward pass: in a file of the run's folder (disk), or those of a GPU in main
    memory (cpu); with gradient_checkpointing, the few that it keeps."""
    logging_steps: Count = 10
    """Steps between two lines of metrics."""
    eval_strategy: Strategy = "no"
    """When the loss on held-out rows is measured while training."""
    eval_steps: Count = 100
    """Steps between two such measures, with eval_strategy: steps."""
    save_strategy: Strategy = "steps"
    """When a checkpoint is written; unless it is no, one more is written at the end."""
    save_steps: Count = 500
    """Steps between two checkpoints, with save_strategy: steps."""
    save_total_limit: Count | None = 2
    """Checkpoints kept; older ones are removed."""
    seed: Natural = 42
    """Seed of every random choice."""
    report_to: tuple[AnyTracker, ...] = ()
    """Where metrics also go, beside the run's own metrics.jsonl."""


@record
class Eval:
    """How the model is measured before and after, on held-out rows."""

    enabled: bool = True
    """Measure before and after; off, the run only trains."""
    task: Literal["auto", "choice", "exact_match", "loss"] = "auto"
    """choice ranks the answers that occur, exact_match writes freely, loss does neither; auto looks at the answers."""
    max_samples: Count = 500
    """Held-out rows measured; always the same ones of a source, so that runs can be compared."""
    batch_size: Count = 32
    """Rows in one forward pass."""
    max_new_tokens: Count = 64
    """Longest answer written, in tokens."""
    retention: bool = False
    """Measure too what is left of what the model knew before: 200 questions of general skills, and general text. Takes
    a minute or two on a CPU, before and after; for models that write."""


@record
class Run:
    """One training run."""

    model: Model
    data: Data
    method: AnyMethod = LoRA()
    """Which parameters learn."""
    objective: AnyObjective = SFT()
    """What they learn to do."""
    rewards: tuple[AnyReward, ...] = ()
    """What answers are worth that the model writes while it learns; the scores are added up by their weights."""
    train: Train = Train()
    eval: Eval = Eval()
    notify: tuple[AnyNotice, ...] = ()
    """Who is told by webhook when the run has ended."""
    output: str | None = None
    """Folder of the run; runs/NAME with the recipe's name unless given."""
