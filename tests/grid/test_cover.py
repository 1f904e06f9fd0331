"""A choice of cells in which all that goes together is tried, whatever is refused."""

from itertools import product

import pytest

from tunesmith.errors import RecipeError
from tunesmith.grid.cells import Cell, Cover, cells, known, refused_ones
from tunesmith.methods.base import method
from tunesmith.objectives.base import objective

ALL = [Cell(*one) for one in product("abcdefg", "klm", "uvwxyz", ("packed", "padded"))]
REFUSED = {
    "nothing": lambda cell: False,
    "a method with a precision": lambda cell: cell.method in "ab" and cell.precision in "uv",
    "a precision": lambda cell: cell.precision == "z",
    "an objective with a batch": lambda cell: cell.objective == "k" and cell.batch == "padded",
    "three together": lambda cell: (cell.method, cell.objective, cell.precision) == ("a", "k", "u"),
    "one cell": lambda cell: cell == ALL[0],
    "everything": lambda cell: True,
}


def taken(every, size, refused):
    cover, found = Cover(every, size), {}
    for cell in cover:
        assert cell not in found
        found[cell] = refused(cell)
        cover.settle(cell, found[cell])
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_all_that_goes_together_is_tried_together(refused, size):
    found = taken(ALL, size, refused)
    possible = {part for cell in ALL if not refused(cell) for part in cell.parts(size)}
    assert {part for cell, no in found.items() if not no for part in cell.parts(size)} == possible
    seen = {part for cell in found for part in cell.parts(size)}
    assert seen == {part for cell in ALL for part in cell.parts(size)}


def test_a_choice_is_small():
    assert len(taken(ALL, 1, REFUSED["nothing"])) == 7
    assert len(taken(ALL, 2, REFUSED["nothing"])) <= 7 * 6 + 3
    refused = [no for no in taken(ALL, 2, REFUSED["a method with a precision"]).values() if no]
    assert 4 <= len(refused) <= 12  # a few for each of the four pairs, of six that there are


def test_what_is_refused_beforehand_is_shown_once_for_each_pair():
    no = [cell for cell in ALL if cell.method in "ab" and cell.precision in "uv"]
    tried = Cover((cell for cell in ALL if cell not in no), 2).having
    assert sorted((cell.method, cell.precision) for cell in refused_ones(no, 2, tried)) == sorted(product("ab", "uv"))


def test_the_cells_are_what_the_registries_hold(monkeypatch):
    assert {cell.method for cell in cells({})} == set(method.all())
    monkeypatch.setitem(objective.entries, "new", objective["sft"])
    assert "new" in known()["objective"] and any(cell.objective == "new" for cell in cells({"method": ["lora"]}))


def test_a_name_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="--method: no method 'lorra'; did you mean 'lora'?"):
        cells({"method": ["lorra"]})
