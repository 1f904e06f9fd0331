"""Images that clients send: within the request, or by an address of a host that is allowed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from .answers import part_text, turn
from .fault import Fault, bad
from .fetch import fetched
from .settings import Serving
from .wire import Any_

if TYPE_CHECKING:
    from PIL.Image import Image

DATA = re.compile(r"data:(?:image/[\w.+-]{1,40})?;base64,")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def laid_out(messages: Sequence[Any_], settings: Serving) -> tuple[list[Any_], list[list[Any_]], list[str]]:
    """Turns without their images; their parts, as templates of models that see read them; and the images' addresses.

    Raises Fault.
    """
    turns: list[Any_] = []
    parts: list[list[Any_]] = []
    addresses: list[str] = []
    for number, message in enumerate(messages):
        content, found = message.get("content"), []
        where = f"messages.{number}.content"
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "image_url":
                addresses.append(address_in(part, message, where))
                found.append({"type": "image"})
            else:
                found.append({"type": "text", "text": part_text(part, f"messages.{number}")})
        texts = [{"type": "text", "text": one["text"]} for one in found if one["type"] == "text"]
        turns.append(turn({**message, "content": texts} if isinstance(content, list) else message, number))
        parts.append(found if isinstance(content, list) else [{"type": "text", "text": turns[-1]["content"]}])
    if len(addresses) > settings.max_images:
        raise bad(f"'messages': at most {settings.max_images} images here (got {len(addresses)})", "messages")
    return turns, parts, addresses


def address_in(part: Any_, message: Any_, where: str) -> str:
    """The address of an image part. Raises Fault."""
    said = part.get("image_url")
    if message.get("role") != "user":
        raise bad(f"'{where}': images are taken in a user's turn alone", where)
    if part.keys() - {"type", "image_url"} or not isinstance(said, dict) or said.keys() - {"url", "detail"}:
        raise bad(f"'{where}': an image must be {{type: image_url, image_url: {{url: ...}}}}", where)
    if said.get("detail") not in (None, "auto"):
        raise bad(f"'{where}': detail is as the model has it; leave it out, or say auto", where)
    if not isinstance(said.get("url"), str):
        raise bad(f"'{where}': image_url.url must be a text", where)
    return said["url"]


async def pictures(addresses: Sequence[str], settings: Serving) -> list[Image]:
    """The images at these addresses, one after another. Raises Fault."""
    return [await asyncio.to_thread(picture, one, settings) for one in addresses]


def picture(address: str, settings: Serving) -> Image:
    """The image at an address. Raises Fault."""
    if address[:5].lower() == "data:":
        return opened(sent(address, settings.max_image), settings.max_pixels)
    return opened(fetched(address, settings), settings.max_pixels)


def sent(address: str, most: int) -> bytes:
    """What a data URL holds. Raises Fault."""
    start = DATA.match(address)
    if not start:
        raise bad("'image_url': a data URL must be data:image/...;base64,...", "messages")
    if (len(address) - start.end()) * 3 // 4 > most + 2:  # as much as it may be filled up by
        raise large(most)
    try:
        data = base64.b64decode(address[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise bad("'image_url': is no base64", "messages") from None
    if len(data) > most:
        raise large(most)
    return data


def opened(data: bytes, most: int) -> Image:
    """An image; how many pixels it has is looked at before they are unpacked. Raises Fault."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            wide, high = image.size
            if wide * high > most:
                raise bad(f"'image_url': {wide} by {high} pixels; at most {most} here", "messages")
            return image.convert("RGB")  # of one that moves, the first
    except Fault:
        raise
    except MemoryError:
        raise Fault(503, "out of memory; ask for less, or later", code="overloaded") from None
    except Exception as error:  # noqa: BLE001 - broken files break decoders in many ways
        what = "" if "cannot identify" in str(error) else f" ({type(error).__name__})"
        raise bad(f"'image_url': is no image of {', '.join(FORMATS)}{what}", "messages") from None


def large(most: int) -> Fault:
    return bad(f"'image_url': more than {most} bytes; send a smaller image", "messages")
