"""TRL's DPO, KTO and reward trainers as workers, run by the Python of their own environment."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gate import Gate, Left, own_stdout


def main() -> None:
    gate = Gate(own_stdout())
    job = json.loads(sys.stdin.readline())
    with TemporaryDirectory() as folder:
        trainer = build(job, gate, folder)
        try:
            trainer.train()
        except Left:
            return


def build(job: dict, gate: Gate, folder: str):
    """TRL's defaults, but for what makes its numbers ours: tokens and their order, fp32, a constant rate, the start."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig

    config, base, rows, task = KINDS[job["kind"]]()

    class Given(base):
        """Trains on tokens, as ours does: what a template writes, and where an answer begins, is then the same."""

        def _prepare_dataset(self, dataset, *settings):
            return dataset

    sequences = json.loads(Path(job["sequences"]).read_text(encoding="utf-8"))
    more = {"precompute_ref_log_probs": True} if job.get("ahead") else {}
    settings = config(
        output_dir=folder,
        per_device_train_batch_size=job["batch"],
        max_length=job["max_length"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        max_steps=1_000_000,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=job["seed"],
        **more,
    )
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=task)
    torch.manual_seed(job["seed"])  # a new head and new adapters are then those of our side
    given = Dataset.from_list(rows(sequences))
    return Given(job["model"], args=settings, train_dataset=given, peft_config=lora, callbacks=[gate])


def pairs(sequences: list[dict]) -> list[dict]:
    """Prompt and two answers each; what stands behind an answer's last token to be learnt changes nothing."""
    made = []
    for better, worse in zip(sequences[::2], sequences[1::2], strict=True):
        (prompt, chosen), (_, rejected) = answered(better), answered(worse)
        made.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return made


def liked(sequences: list[dict]) -> list[dict]:
    """Prompt, answer, verdict, and beside it the answer to the next prompt that is another, on which our baseline is
    measured too."""
    parts = [answered(sequence) for sequence in sequences]
    behind = [[*parts[n + 1 :], *parts[: n + 1]] for n in range(len(parts))]
    others = [
        next((answer for asked, answer in after[:16] if asked != prompt), after[0][1])
        for (prompt, _), after in zip(parts, behind, strict=True)
    ]
    return [
        {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": other, "label": bool(sequence["label"])}
        for (prompt, answer), other, sequence in zip(parts, others, sequences, strict=True)
    ]


def scored(sequences: list[dict]) -> list[dict]:
    """Two whole texts each."""
    both = zip(sequences[::2], sequences[1::2], strict=True)
    return [{"chosen_ids": better["ids"], "rejected_ids": worse["ids"]} for better, worse in both]


def answered(sequence: dict) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and of its answer."""
    learnt = [at for at, learn in enumerate(sequence["learn"]) if learn]
    return sequence["ids"][: learnt[0]], sequence["ids"][learnt[0] : learnt[-1] + 1]


def dpo():
    from trl import DPOConfig, DPOTrainer

    return DPOConfig, DPOTrainer, pairs, "CAUSAL_LM"


def kto():
    from trl import KTOConfig, KTOTrainer

    return KTOConfig, KTOTrainer, liked, "CAUSAL_LM"


def reward():
    from trl import RewardConfig, RewardTrainer

    return RewardConfig, RewardTrainer, scored, "SEQ_CLS"


KINDS = {"dpo": dpo, "kto": kto, "reward": reward}

if __name__ == "__main__":
    main()
