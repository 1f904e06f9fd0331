"""data convert."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .show import json_out, line
from .train import Json


def convert(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A file, org/name, or demo/NAME.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .json, .jsonl, .csv, .tsv or .parquet.")],
    to: Annotated[str, typer.Option("--to", help="The format to write; target.KEY=value sets its options.")],
    told: Annotated[
        str, typer.Option("--from", help="The format to read; source.KEY=value sets its options.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write data in another format, or in another kind of file. What was written is read back and compared."""
    from ..config.load import load
    from ..data.reading.configs import chosen
    from ..data.reading.source import Named
    from ..data.writing.convert import Conversion
    from ..data.writing.convert import convert as converted
    from ..errors import DataError
    from ..model.hub import locate_data

    how = load(Conversion, None, [f"source.name={told}", f"target.name={to}", *context.args]).value
    where = locate_data(source)
    if isinstance(where, Named) and told == "auto":
        how = replace(how, source=where.format)
    found = chosen(where)
    if len(found) > 1:
        parts = "; ".join(f"{split}: {', '.join(map(str, files))}" for split, files in found.items())
        raise DataError(
            f"{source}: has several splits, which are not to be mixed; convert their files one by one: {parts}"
        )
    done = converted(found["train"], out, how)
    if as_json:
        json_out({"rows": done.rows, "read": done.reading, "written": how.target.name, "not carried": [*done.unread]})
        return
    line(f"{source}: {done.reading}")
    if done.unread:
        line(f"not carried over, as the format does not read them: {', '.join(done.unread)}")
    if done.moved:
        line(f"paths of media are as they were: to read {out}, set data.media_dir={done.moved}")
    line(f"{out}: {done.rows:,} rows as {how.target.name}, read back and found the same")
