"""In which writing is asked, and in which answered."""

import re
from collections import Counter

from .base import Item, Rule, Said, Simple, rule

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
ZH = {"Chinese": "中文", "Japanese": "日文", "Korean": "韩文", "Cyrillic": "西里尔字母", "Greek": "希腊文"}
ZH |= {"Hebrew": "希伯来文", "Arabic": "阿拉伯文", "Devanagari": "天城文", "Thai": "泰文", "Latin": "拉丁字母"}
OTHERS = re.compile(f"[{''.join(SCRIPTS.values())}]")
EACH = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
LATIN = re.compile("[A-Za-z\u00c0-\u024f]+")
LEAST = 10
"""Fewer letters than this tell nothing."""
MOST = 4000
"""Characters that are looked at."""
CODE = re.compile(r"```.*?(```|$)|https?://\S+|\$[^$\n]*\$", re.DOTALL)
ABOUT = re.compile(
    r"transl|language|in (english|chinese|japanese|korean|russian|arabic|hindi|greek|thai|hebrew|mandarin)"
    r"|[翻訳译]|英文|英语|中文|汉语|日语|日文|韩语|俄语|번역|영어|перев|англ|ترجم|अनुवाद",
    re.IGNORECASE,
)


def script(text: str) -> str | None:
    """The writing that a text is almost all in; None if it is in several, or says too little."""
    text = text[:MOST]
    if text.isascii() or not OTHERS.search(text):
        return "Latin" if sum(map(len, LATIN.findall(text))) >= LEAST else None
    if "```" in text or "http" in text or "$" in text:
        text = CODE.sub(" ", text)
    counts = Counter({name: len(letters.findall(text)) for name, letters in EACH.items()})
    if counts["Japanese"] * 10 > counts["Chinese"]:  # kana tell Japanese from Chinese
        counts["Japanese"] += counts.pop("Chinese")
    counts["Latin"] = len(LATIN.findall(text)) * 2  # a word is about two characters of Chinese
    total = counts.total()
    name, most = counts.most_common(1)[0]
    return name if total >= LEAST and most >= 0.9 * total else None


@rule("language-mix")
class LanguageMix(Rule):
    """The answer is in another writing than the last question, which does not speak of languages."""

    severity = "note"
    zh = "答案与最后一个问题使用的文字不同，而问题并未提到语言或翻译。"
    explained = Said(
        "A few such rows teach the model to answer in the wrong language now and then. If you do not mean it,"
        " translate"
        " them or take them out.",
        "少量这样的行会让模型时不时用错语言回答。若非有意，请翻译或删除。",
    )

    def watch(self, renderer, targets):
        return Simple(self.look)

    def look(self, item: Item, number: int = 0) -> Said | None:
        example = item.example
        if example is None or not example.answers or item.latin:
            return None
        asked = next((message.content for message in reversed(example.prompt) if message.role == "user"), "")
        for answer in example.answers:
            said = answer.messages[-1].content if answer.messages else ""
            if asked.isascii() and said.isascii():
                continue
            one, other = script(asked), script(said)
            if one and other and one != other and not ABOUT.search(asked):
                return Said(f"asked in {one}, answered in {other}", f"用{ZH[one]}提问，用{ZH[other]}回答")
        return None
