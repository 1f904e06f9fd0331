"""Every name that a tutorial may use is a key here, or is answered by what to do instead."""

import re
from dataclasses import fields

import pytest

from tunesmith.config.describe import rows
from tunesmith.migrate import RENAMED
from tunesmith.run import Run, Train


def test_every_training_argument_is_a_key_or_has_an_answer():
    from transformers import TrainingArguments

    ours = {field.name for field in fields(Train)}
    silent = [field.name for field in fields(TrainingArguments) if field.name not in ours | RENAMED.keys()]
    assert silent == []


@pytest.mark.parametrize("name", RENAMED)
def test_an_answer_names_only_keys_that_there_are(name):
    known = {row.path for row in rows(Run)} | {"data.format.text"}
    named = re.findall(r"\b(?:model|data|method|objective|train|eval)\.\w+", RENAMED[name].replace("config.json", ""))
    assert set(named) <= known
    assert RENAMED[name].startswith("is ")


def test_no_key_of_ours_is_answered_as_if_it_were_foreign():
    own = {row.path for row in rows(Run) if "." in row.path}
    assert not own & RENAMED.keys()
