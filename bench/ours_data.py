"""Our preparation of rows in a process of its own; the first argument is a JSON job."""

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    job = json.loads(sys.argv[1])
    from tunesmith.data.keeping.part import Part
    from tunesmith.data.reading.places import places
    from tunesmith.data.rendering.render import Renderer
    from tunesmith.model.hub import locate, locate_data
    from tunesmith.model.load import load_tokenizer
    from tunesmith.run import Data, Model, Run

    tokenizer = load_tokenizer(locate(job["model"]))
    tokenizer.chat_template = Path(job["template"]).read_text()
    data = Data(path=job["rows"], eval_size=0.0, max_length=job["max_length"])
    run = Run(model=Model(path=job["model"]), data=data)
    began = time.perf_counter()
    [place] = places(data, locate_data)
    stored = Part(run, place, Renderer(tokenizer, data), lambda text: None).stored()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if job["out"]:
        with Path(job["out"]).open("w") as out:
            for tokens in stored:
                out.write(json.dumps([tokens.ids, [False, *tokens.learn[1:]]]) + "\n")
    sys.stdout.write(json.dumps({"seconds": seconds, "peak": peak, "rows": len(stored)}) + "\n")


if __name__ == "__main__":
    main()
