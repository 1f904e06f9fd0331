"""A tracker's process; see follower.py."""

from ..follower import follow
from ._work import work

follow(work)
