"""The building blocks of a report and how each is written in HTML and in Markdown; every text is escaped."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from string import Template


@dataclass(frozen=True)
class Title:
    """The heading of it all."""

    text: str


@dataclass(frozen=True)
class Section:
    """A heading; what follows belongs to it until the next one."""

    title: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Banner:
    """What nobody may overlook."""

    title: str
    text: str


@dataclass(frozen=True)
class Cards:
    """Headline numbers: (name, number, remark) each."""

    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; columns after the first ``text_columns`` hold numbers, set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass(frozen=True)
class Picture:
    """An SVG under a name fit for a file; ``text`` says what it shows, also to people who cannot see it."""

    name: str
    svg: str = field(repr=False)
    text: str


@dataclass(frozen=True)
class Clips:
    """Sounds to listen to: (name fit for a file, text, bytes of a WAV file) each."""

    clips: Sequence[tuple[str, str, bytes]] = field(repr=False)


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks folded away until asked for."""

    title: str
    blocks: Sequence["Block"]


Block = Title | Section | Paragraph | Banner | Cards | Table | Picture | Clips | Code | Details


def page(title: str, blocks: Sequence[Block], footer: str) -> str:
    """A whole HTML page, which needs no network."""
    template = files("serein.evaluate").joinpath("report.html.template").read_text(encoding="utf-8")
    return Template(template).substitute(title=escape(title), body=html(blocks), footer=footer)


def html(blocks: Sequence[Block]) -> str:
    """The blocks as HTML elements; pictures and sounds stand inline."""
    return "\n".join(map(_html, blocks))


def markdown(blocks: Sequence[Block]) -> str:
    """The blocks as GitHub's Markdown; pictures are links to ``figures/NAME.svg``, sounds to ``clips/NAME.wav``."""
    return "\n\n".join(map(_markdown, blocks))


def _html(block: Block) -> str:
    match block:
        case Title(text):
            return f"<h1>{escape(text)}</h1>"
        case Section(title):
            return f"<h2>{escape(title)}</h2>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Banner(title, text):
            return f'<p class="banner" role="note"><strong>{escape(title)}</strong> {escape(text)}</p>'
        case Cards(cards):
            inner = "".join(
                f"<div><dt>{escape(name)}</dt><dd>{escape(number)}</dd><dd>{escape(remark)}</dd></div>"
                for name, number, remark in cards
            )
            return f'<dl class="cards">{inner}</dl>'
        case Table(header, rows, text_columns):
            head = _html_row(header, "th", text_columns)
            body = "\n".join(_html_row(row, "td", text_columns) for row in rows)
            return f'<div class="table"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'
        case Picture(_, svg, text):
            picture = f'<div class="picture" role="img" aria-label="{escape(text)}">{_inline_svg(svg)}</div>'
            return f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>"
        case Clips(clips):
            body = "\n".join(
                f'<tr><td><audio controls preload="none" src="data:audio/wav;base64,{b64encode(wav).decode()}"></audio>'
                f"</td><td>{escape(text)}</td></tr>"
                for _, text, wav in clips
            )
            return f'<div class="table"><table><tbody>\n{body}\n</tbody></table></div>'
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Details(title, inner_blocks):
            return f"<details><summary>{escape(title)}</summary>\n{html(inner_blocks)}\n</details>"


def _html_row(cells: Sequence[str], tag: str, text_columns: int) -> str:
    kinds = [' class="number"' if column >= text_columns else "" for column in range(len(cells))]
    return (
        "<tr>"
        + "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        + "</tr>"
    )


def _inline_svg(svg: str) -> str:
    # matplotlib numbers its groups anew in each figure: in one page the ids would clash, and nothing uses them
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])


def _markdown(block: Block) -> str:
    match block:
        case Title(text):
            return f"# {_plain(text)}"
        case Section(title):
            return f"## {_plain(title)}"
        case Paragraph(text):
            return _plain(text)
        case Banner(title, text):
            return f"> [!WARNING]\n> **{_plain(title)}** {_plain(text)}"
        case Cards(cards):
            return "\n".join(
                f"- **{_plain(name)}** {_plain(number)} ({_plain(remark)})" for name, number, remark in cards
            )
        case Table(header, rows, text_columns):
            rules = ["---" if column < text_columns else "---:" for column in range(len(header))]
            lines = [map(_plain, header), rules, *(map(_plain, row) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(name, _, text):
            return f"![{_plain(text)}](figures/{name}.svg)"
        case Clips(clips):
            return "\n".join(f"- [{_plain(text)}](clips/{name}.wav)" for name, text, _ in clips)
        case Code(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return f"{fence}\n{text.rstrip()}\n{fence}"
        case Details(title, inner_blocks):
            return f"<details><summary>{escape(title)}</summary>\n\n{markdown(inner_blocks)}\n\n</details>"


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, on one line."""
    # an underscore within a word means nothing
    marked = re.sub(r"([\\`*~\[\]|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", escape(" ".join(text.split()), quote=False))
    return re.sub(r"^(\d{0,9})([-+.)]|#+|---+$)(?=\s|$)", r"\1\\\2", marked)  # what begins a list or a title
