"""What could tell who somebody is."""

import re
from collections.abc import Iterator
from datetime import date

from .base import Item, Rule, Said, Simple, rule

EMAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24})\b")
NOBODYS = re.compile(
    r"(^|\.)(example|test|invalid|localhost|domain|email|company|yourcompany|yourdomain|mail|abc|xyz|website)(\.|$)"
    r"|(^|\.)git(hub|lab)\.com$",
    re.IGNORECASE,
)
"""Domains that stand for any, and `git@github.com`."""
DIGITS = re.compile(r"[0-9](?:[ ().-]{0,2}[0-9]){7,17}[Xx]?(?!\w|[.@/=-][0-9])")
BEFORE = re.compile(r"(?<![\w.@/=#-])[+(]{0,2}$")
CN_MOBILE = re.compile(r"(?:\+?86)?1[3-9]\d{9}")
INTERNATIONAL = re.compile(r"\+[1-9]\d{8,14}")
AMERICAN = re.compile(r"\(?([2-9]\d\d)\)?[ .-]{1,2}([2-9]\d\d)[ .-](\d{4})")
FREE = {"800", "888", "877", "866", "855", "844", "833"}
ALIKE = bytes.maketrans(b"123456789", b"000000000")
SHORTEST = b"0" * 9
"""What no number is shorter than, once its digits are alike and what stands between them is gone."""
FACTORS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@rule("personal-data")
class PersonalData(Rule):
    """The text holds what looks like an e-mail address, a phone number or a Chinese ID number."""

    zh = "文本中含有形似电子邮箱、电话号码或中国身份证号的内容。"
    explained = Said(
        "A model can give out again what it has learnt by heart. Replace it unless you have the right to use it so."
        " Addresses at example.com, numbers of 555 and toll-free ones are not counted; an ID number must have a real"
        " date"
        " and its check digit.",
        "模型可能把背下来的内容原样说出。除非你有权这样使用，请替换掉。example.com 之类的地址、555"
        " 号段与免费电话不计；"
        "身份证号须日期有效且校验位正确。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        text = item.text
        if "@" in text:
            for found in EMAIL.finditer(text):
                if not NOBODYS.search(found[1]):
                    shown = f"{found[0][0]}…@{found[1]}"
                    return Said(f"holds an e-mail address ({shown})", f"含有电子邮箱（{shown}）")
        if SHORTEST not in item.utf8.translate(ALIKE, b" ().-"):
            return None
        return next(numbers(text), None)


def numbers(text: str) -> Iterator[Said]:
    """What the long numbers of a text may be."""
    for found in DIGITS.finditer(text):
        before = BEFORE.search(text, max(0, found.start() - 3), found.start())
        if not before:
            continue
        written = before[0] + found[0]
        bare = re.sub(r"[ ().-]", "", written)
        shown = f"{written[:3]}…{written[-2:]}"
        if identity(written):
            yield Said(f"holds a Chinese ID number ({shown})", f"含有身份证号（{shown}）")
        elif phone(written, bare):
            yield Said(f"holds a phone number ({shown})", f"含有电话号码（{shown}）")


def phone(written: str, bare: str) -> bool:
    """Whether a number is written as phone numbers are."""
    if CN_MOBILE.fullmatch(bare):
        return len(set(bare[-8:])) > 2 and re.fullmatch(r"(\+?86[ -]?)?\d{3}[ -]?\d{4}[ -]?\d{4}", written) is not None
    american = AMERICAN.fullmatch(re.sub(r"^\+?1[ .-]", "", written))
    if american:
        return "555" not in american.groups() and american[1] not in FREE
    return INTERNATIONAL.fullmatch(bare) is not None and len(set(bare)) > 4 and not bare.startswith("+1")


def identity(number: str) -> bool:
    """Whether a number is a Chinese ID number: of a province, with a date and the check digit of ISO 7064."""
    if not re.fullmatch(r"[1-8]\d{16}[\dXx]", number):
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * factor for digit, factor in zip(number, FACTORS, strict=False))
    return born.year >= 1900 and number[17].upper() == "10X98765432"[total % 11]
