"""Images, videos and audios that rows speak of: whether they are there."""

from pathlib import Path

from ..example import Media
from .source import within

CARRIED = ("https://", "data:")
"""What stands for itself, and is not looked up on this machine."""


def check_media(media: Media, folder: Path) -> None:
    """Refuse paths that lead to no file in the folder; a ValueError says which."""
    for kind, paths in vars(media).items():
        for path in paths:
            if not path.startswith(CARRIED):
                check(kind.removesuffix("s"), path, folder)


def check(kind: str, path: str, folder: Path) -> None:
    if "://" in path:
        raise ValueError(f"the {kind} {path:.200} must be a path, or an address that begins with https://")
    try:
        inside, there = within(folder / path, folder), (folder / path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        inside, there = True, False
    if not inside:
        raise ValueError(f"the {kind} {path} leads out of {folder}; set data.media_dir to the folder that holds it")
    if not there:
        raise ValueError(
            f"the {kind} {path:.200} is not in {folder}; put it there, or set data.media_dir to the folder it is in"
        )
