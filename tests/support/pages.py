"""Reading the documentation as a program: the code blocks of a page in order, and its links.

    for block in blocks(ROOT / "README.md"):
        block.language, block.title, block.content, block.line

A block that no test can run says so above it, for readers of the source: <!-- not run: needs a GPU -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    "Of the fence, from 1."
    language: str
    title: str | None
    "Name of the file that the block is."
    content: str
    not_run: str | None
    "Why no test can run it."

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, those inside lists too."""
    found, reason = [], None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := NOT_RUN.search(token.content)):
            reason = match[1]
        elif token.type == "fence":
            title = TITLE.search(token.info)
            language = token.info.split()[0] if token.info.strip() else ""
            line = (token.map or [0])[0] + 1
            found.append(Block(page, line, language, title[1] if title else None, token.content, reason))
            reason = None
    return found


def links(page: Path) -> Iterator[str]:
    """Yield where the links and images of a page lead."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them from plain words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, comments and line continuations resolved."""
    lines = block.content.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
