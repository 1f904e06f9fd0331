"""The process that sends notices; see follower.py."""

from ..follower import follow
from ._work import work

follow(work)
