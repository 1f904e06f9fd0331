"""TRL's SFTTrainer as a worker, run by the Python of its own environment; the first line on stdin says how."""

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
    """TRL's defaults, but for what makes its numbers ours: the rows and their order, fp32, and a constant rate."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    sequences = json.loads(Path(job["sequences"]).read_text())
    labels = [
        [token if learn else -100 for token, learn in zip(sequence["ids"], sequence["learn"], strict=True)]
        for sequence in sequences
    ]
    rows = Dataset.from_dict({"input_ids": [sequence["ids"] for sequence in sequences], "labels": labels})
    config = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=job["batch"],
        packing=job["packing"],
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
    )
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if job["lora"] else None
    return SFTTrainer(job["model"], args=config, train_dataset=rows, peft_config=lora, callbacks=[gate])


if __name__ == "__main__":
    main()
