"""docs/lint.md, made of the rules. `python tests/docs/lint_page.py` writes it."""

from pathlib import Path

from tunesmith.data.lint.base import RARE, Rule, rule
from tunesmith.data.lint.report import ORDER, title

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"
HEAD = f"""# What is looked for in data

`tunesmith data lint RECIPE|FILE` has every rule look at every row; before a training the cheap ones do. A rule has a
code, a severity, and shows its first rows as file:line. In a file, what needs a tokenizer and a template is looked for
with `--model`. Where the user's language is Chinese (`LANG=zh_CN.UTF-8`), it speaks Chinese; `--json` has both.

An **error** makes rows, or what is measured, wrong: exit code 3, and a training does not start unless told so by
`data.on_lint=warn`. In no more than {RARE:.1%} of the rows it is told as a warning: it spoils these rows, not the run.
A **warning** may be meant; a **note** is for you to know.

`--fix OUT` writes a copy of a file or a folder without the rows that have errors, whatever their share; what stays is
copied to the byte, and OUT.removed.jsonl says what went and why. Rules marked ✂ take part in that.

`tunesmith data lint` 用全部规则检查每一行；训练之前会运行其中廉价的规则。**错误**表示数据行或评测结果有误：
退出码为 3，训练不会开始，除非设置 `data.on_lint=warn`；占比不超过 {RARE:.1%} 时按警告处理。
**警告**可能是有意为之，**提示**仅供参考。`--fix OUT` 写出一份去掉错误行的副本（带 ✂ 的规则），原文件不变，
OUT.removed.jsonl 列出删除了什么、为什么。

"""


def page() -> str:
    found = sorted(rule.all().values(), key=lambda each: (ORDER[each.severity], each.name))
    rows = [f"| [{each.name}](#{each.name}) | {each.severity} | {mark(each)} | {title(each)} |" for each in found]
    table = ["| code | severity | | finds |", "|-|-|-|-|", *rows, ""]
    return HEAD + "\n".join(table) + "".join(map(section, found))


def mark(each: type[Rule]) -> str:
    signs = ["✂"] if each.severity == "error" and each.removable else []
    signs += ["`--model`"] if each.reads == "tokens" else []
    return " ".join(signs if each.cheap else [*signs, "not before a training"])


def section(each: type[Rule]) -> str:
    parts = [title(each), fenced(each.explained.en), each.zh, fenced(each.explained.zh)]
    return f"\n## {each.name}\n\n" + "\n\n".join(parts) + "\n"


def fenced(text: str) -> str:
    """A text with its indented lines as a block of code."""
    lines, inside = [], False
    for line in text.split("\n"):
        code = line.startswith("    ")
        if code != inside:
            lines.append("```python" if code else "```")
            inside = code
        lines.append(line.removeprefix("    ") if code else line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
