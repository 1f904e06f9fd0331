"""TRL's preparation of rows, run by the Python of its own environment; the first argument is a JSON job."""

import json
import os
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    job = json.loads(sys.argv[1])
    from datasets import Dataset, disable_caching
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    tokenizer.chat_template = Path(job["template"]).read_text()
    rows = [{"messages": messages(json.loads(line))} for line in Path(job["rows"]).read_text().splitlines()]
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    with TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=job["max_length"],
            assistant_only_loss=True,
            dataset_num_proc=job["processes"],
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        )
        first = Dataset.from_list(rows[:8])
        trainer = SFTTrainer(model, args=config, train_dataset=first, processing_class=tokenizer)
        dataset = Dataset.from_list(rows)
        began, busy = time.perf_counter(), sum(os.times()[:4])
        made = trainer._prepare_dataset(dataset, tokenizer, config, False, None, "train")
        took = {"seconds": time.perf_counter() - began, "cpu": sum(os.times()[:4]) - busy}
        with Path(job["out"]).open("w") as out:
            for row in made:
                out.write(json.dumps([row["input_ids"], [label != -100 for label in row["labels"]]]) + "\n")
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    sys.stdout.write(json.dumps(took | {"peak": peak}) + "\n")


def messages(row: dict) -> list[dict]:
    asked = "\n".join(text for text in (row["instruction"], row.get("input")) if text)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


if __name__ == "__main__":
    main()
