"""In which writing a text is: Latin, Chinese, Cyrillic and others, told by its letters alone."""

import re
from collections import Counter

SCRIPTS = {
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff",
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7af",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}
OTHERS = re.compile(f"[{''.join(SCRIPTS.values())}]")
EACH = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
LATIN = re.compile("[A-Za-z\u00c0-\u024f]+")
LEAST = 10
"""Fewer letters than this tell nothing."""
MOST = 4000
"""Characters that are looked at."""
CODE = re.compile(r"```.*?(```|$)|https?://\S+|\$[^$\n]*\$", re.DOTALL)


ASCII = bytes(range(128))


def beyond_ascii(text: str) -> str:
    """What of a text is no ASCII, one character after another: little, in most languages, and quick to look through."""
    if text.isascii():
        return ""
    return text.encode("utf-8", "surrogatepass").translate(None, ASCII).decode("utf-8", "surrogatepass")


def letters(text: str) -> Counter[str]:
    """How much of a text is in each writing; a word of Latin counts as two characters of Chinese."""
    text = text[:MOST]
    if "```" in text or "http" in text or "$" in text:
        text = CODE.sub(" ", text)
    counts = Counter({name: len(letters.findall(text)) for name, letters in EACH.items()})
    if counts["Japanese"] * 10 > counts["Chinese"]:  # kana tell Japanese from Chinese
        counts["Japanese"] += counts.pop("Chinese")
    counts["Latin"] = len(LATIN.findall(text)) * 2
    return counts


def script(text: str) -> str | None:
    """The writing that a text is almost all in; None if it is in several, or says too little."""
    text = text[:MOST]
    if text.isascii() or not OTHERS.search(text):
        return "Latin" if sum(map(len, LATIN.findall(text))) >= LEAST else None
    counts = letters(text)
    total = counts.total()
    name, most = counts.most_common(1)[0]
    return name if total >= LEAST and most >= 0.9 * total else None
