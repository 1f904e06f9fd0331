"""In which writing is asked, and in which answered."""

import re

from ...script import script
from .base import Item, Rule, Said, Simple, rule

ZH = {"Chinese": "中文", "Japanese": "日文", "Korean": "韩文", "Cyrillic": "西里尔字母", "Greek": "希腊文"}
ZH |= {"Hebrew": "希伯来文", "Arabic": "阿拉伯文", "Devanagari": "天城文", "Thai": "泰文", "Latin": "拉丁字母"}
ABOUT = re.compile(
    r"transl|language|in (english|chinese|japanese|korean|russian|arabic|hindi|greek|thai|hebrew|mandarin)"
    r"|[翻訳译]|英文|英语|中文|汉语|日语|日文|韩语|俄语|번역|영어|перев|англ|ترجم|अनुवाद",
    re.IGNORECASE,
)


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
