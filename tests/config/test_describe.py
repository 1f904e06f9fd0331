"""One declaration gives the rows of the help, the schema and the words of the errors."""

from dataclasses import fields

from tunesmith.config.describe import json_schema, rows, words
from tunesmith.config.load import dump, load
from tunesmith.methods.base import method
from tunesmith.run import Run


def test_every_setting_has_a_row_with_its_documentation():
    found = {(row.path, row.when): row for row in rows(Run)}
    assert found["method.r", "method=lora"].doc.startswith("Rank of the update")
    assert found["model.path", ""].default == "needed"
    with_options = {f"method={name}" for name, entry in method.all().items() if fields(entry)}
    assert {name for path, name in found if path.startswith("method.")} == with_options
    assert {"method=lora", "method=freeze"} <= with_options
    assert all(row.doc for row in found.values()), [row.path for row in found.values() if not row.doc]


def test_types_are_put_into_words():
    types = {row.path: words(row.type) for row in rows(Run)}
    assert types["train.seed"] == "a whole number of at least 0"
    assert types["data.eval_size"] == "a number of at least 0 and at most 1"
    assert types["train.bf16"] == "true or false"
    assert types["output"] == "text, or null"
    assert types["method"] == f"one of {', '.join(method.all())}"


def test_the_schema_takes_what_the_loader_takes_and_refuses_what_it_refuses():
    import jsonschema
    import pytest

    schema = json_schema(Run)
    jsonschema.Draft202012Validator.check_schema(schema)
    good = dump(load(Run, words=["model.path=m", "data.path=d", "method=freeze"]).value)
    jsonschema.validate(good, schema)
    jsonschema.validate(good | {"method": "full"}, schema)
    for bad in ({"method": "lorra"}, {"method": {"name": "lora", "rr": 1}}, {"train": {"sed": 1}}, {"model": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | bad, schema)
    assert "Rank of the update" in str(schema)
