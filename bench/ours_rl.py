"""Tunesmith's sampler as a worker: the first line on stdin says what is asked, each number after it is a seed."""

import json
import sys
import time
from types import SimpleNamespace

from gate import answer, own_stdout, peak_mb

from tunesmith.start import begin_again


def main() -> None:
    from tunesmith.machine import settle_in
    from tunesmith.model.attention import keep_apart
    from tunesmith.model.engine import Engine
    from tunesmith.model.hub import locate
    from tunesmith.model.load import load_model, load_tokenizer
    from tunesmith.rollout.sample import sample

    answers, job = own_stdout(), json.loads(sys.stdin.readline())
    settle_in()
    base = locate(job["model"])
    model, tokenizer = load_model(base)[0].eval(), load_tokenizer(base)
    asked = [[{"role": "user", "content": text}] for text in job["prompts"]]
    prompts = [tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False) for one in asked]
    model.generation_config.eos_token_id = ends = [tokenizer.eos_token_id, *sentence_ends(tokenizer)]
    keep_apart(model)
    engine = Engine(model, tokenizer)
    answer(answers, model=str(base), prompts=prompts, ends=ends)
    how = {"max_completion_length": job["length"], "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    how = SimpleNamespace(stop=(), sampler=job["sampler"], **how)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        drawn = sample(engine, prompts, how, int(line), job["group"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        lengths = [len(one.ids) for one in drawn]
        answer(answers, wall=wall, cpu=cpu, tokens=sum(lengths), peak=peak_mb())


def sentence_ends(tokenizer) -> list[int]:
    """Tokens after which an answer of one sentence is at its end: answers are then of very unequal length."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if text.strip().endswith((".", "!", "?"))]


if __name__ == "__main__":
    begin_again()  # as the command line does
    main()
