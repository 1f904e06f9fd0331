"""TRL's GRPOTrainer, or transformers' generate, as a worker of the environment that TRL has for itself."""

import json
import re
import sys
import time
from tempfile import TemporaryDirectory

from gate import Left, OnlineGate, answer, own_stdout, peak_mb


def main() -> None:
    answers, job = own_stdout(), json.loads(sys.stdin.readline())
    if job["do"] == "generate":
        generate(job, answers)
        return
    with TemporaryDirectory() as folder:
        trainer = build(job, OnlineGate(answers), folder)
        try:
            trainer.train()
        except Left:
            return


def generate(job: dict, answers) -> None:
    """All answers in one batch, as TRL asks for them: each prompt as often as it has answers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, trust_remote_code=False).eval()
    rows = [prompt for prompt in job["prompts"] for _ in range(job["group"])]
    width, ends = max(map(len, rows)), set(job["ends"])
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    there = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": job["length"]}
    for line in sys.stdin:
        torch.manual_seed(int(line))
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            said = model.generate(ids, attention_mask=there, eos_token_id=job["ends"], pad_token_id=0, **how)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        said = said[:, width:].tolist()
        lengths = [next((at + 1 for at, one in enumerate(row) if one in ends), len(row)) for row in said]
        answer(answers, wall=wall, cpu=cpu, tokens=sum(lengths), peak=peak_mb())


def build(job: dict, gate: OnlineGate, folder: str):
    """TRL's defaults, but for what makes its step ours: as many answers, as long, fp32, a constant rate."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    def paid(completions, **rest):
        return [float(bool(re.search(job["pattern"], one[0]["content"]))) for one in completions]

    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=job["batch"] * job["group"],
        num_generations=job["group"],
        max_completion_length=job["length"],
        temperature=1.0,
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        max_steps=1_000_000,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    asked = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in job["prompts"]])
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return GRPOTrainer(job["model"], paid, config, asked, peft_config=lora, callbacks=[gate])


if __name__ == "__main__":
    main()
