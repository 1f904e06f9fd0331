"""Characters that nobody has typed."""

import re
from codecs import getincrementaldecoder

from .base import Item, Rule, Said, Simple, rule

USUAL = b"\t\n\r" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\ufeff\ufffe\uffff\ud800-\udfff]")


@rule("control-characters")
class ControlCharacters(Rule):
    """The text holds control characters, such as terminal escapes, null bytes, or marks that turn its direction."""

    zh = "文本中含有控制字符，例如终端转义、空字节或改变书写方向的标记。"
    explained = Said(
        "They come from terminals, PDF files and broken exports, cost tokens and teach the model to write them. Some"
        " can"
        " hide text from a reader. Remove them.",
        "它们来自终端、PDF 或损坏的导出文件，既耗词元，又会让模型学着输出；有的还能对读者隐藏文字。请删除。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        if not item.utf8.translate(None, USUAL) and item.beyond.isprintable():
            return None  # quicker than looking for what it is
        found = CONTROL.search(item.text)
        if found is None:
            return None
        name = f"U+{ord(found[0]):04X}"
        return Said(f"holds the control character {name}", f"含有控制字符 {name}")


# Bytes of UTF-8 shown as the letters that Windows-1252, or Latin-1, has for them.
LATIN = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
SUSPECT = re.compile(f"(?<![A-ZÀ-Þ])[ÂÃ][{LATIN}]|[à-ï][{LATIN}]{{2}}|ð[{LATIN}]{{3}}|(?:[ÎÏÐÑ][{LATIN}]){{2,}}")
FIRST = re.compile("[\xc2\xc3\xce-\xd1\xe0-\xf0]")
LOST = ("\ufffd", "锟斤拷", "烫烫烫", "屯屯屯")
WIDE = re.compile("[^\x00-\x7f]{6,24}")
CHINESE = re.compile("[\u2010-\u2026\u3000-\u303f\u3400-\u9fff\uff00-\uffef]{3,}")
BACK = {letter: bytes([code]) for code in range(0x80, 0xA0) if (letter := bytes([code]).decode("cp1252", "ignore"))}


@rule("mojibake")
class Mojibake(Rule):
    """The text was once decoded with the wrong encoding."""

    zh = "文本曾以错误的编码解码（乱码）。"
    explained = Said(
        "Ã© stands where é should, or 锟斤拷, or the replacement character. The model learns to write it. Read the"
        " source"
        " again with its own encoding (UTF-8, GB18030); what has become a replacement character is lost.",
        "é 变成了 Ã©，或出现锟斤拷、替换字符；模型会学着输出它们。请用原文件的编码（UTF-8、GB18030）重新读取，"
        "已成为替换字符的内容无法恢复。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        text, beyond = item.text, item.beyond
        if not beyond:
            return None
        for lost in LOST:
            if lost in beyond and lost in text:
                return Said(f"holds {lost!r}, the trace of a character that is lost", f"含有 {lost!r}，原字符已丢失")
        for suspect in SUSPECT.finditer(text) if FIRST.search(beyond) else ():
            if meant := decoded(suspect[0]):
                return meaning(suspect[0], meant)
        if not item.latin and (run := WIDE.search(text)) and (meant := from_gbk(run[0])):
            return meaning(run[0], meant)
        return None


def meaning(shown: str, meant: str) -> Said:
    return Said(f"holds {shown!r}, probably {meant!r}", f"含有 {shown!r}，应为 {meant!r}")


def decoded(letters: str) -> str | None:
    """What letters say, if they are the bytes of UTF-8 shown as Windows-1252."""
    try:
        return b"".join(BACK.get(letter) or letter.encode("latin-1") for letter in letters).decode("utf-8")
    except ValueError:
        return None


def from_gbk(run: str) -> str | None:
    """What characters say, if they are Chinese in UTF-8 that was read as GBK; real Chinese is no valid UTF-8 so."""
    try:
        meant = getincrementaldecoder("utf-8")().decode(run.encode("gbk"))
    except ValueError:
        return None
    return meant if CHINESE.fullmatch(meant) else None
