"""Finished studies as one page: what was run, how to run it again, the scores, and what may be said of them.

Usage:  python benchmarks/results.py STUDY [STUDY...] -o docs/results.md [--keep]

A STUDY is a folder that serein benchmark, ablate, inflation or study made. The figures go to ``figures`` beside the
page. Every number is computed from the runs' predictions. What people wrote above a page's mark stays; with --keep so
does what an earlier call wrote of other studies, told apart by their titles. No path of the machine gets into the page:
where one would, nothing is written.
"""

import argparse
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise
from math import isnan
from pathlib import Path

import measure

from serein.errors import UsageError
from serein.evaluate.comparison import THRESHOLD, in_thousandths
from serein.evaluate.document import Block, Code, Paragraph, Picture, Section, Table, markdown
from serein.evaluate.remarks import share_in_percent
from serein.evaluate.runs import Run
from serein.evaluate.sections import DEFINITIONS
from serein.evaluate.study import Row, Study, load_study
from serein.evaluate.study_curves import Curves, curve_blocks, curve_picture, label_curves
from serein.evaluate.study_page import (
    COST_READING,
    READING,
    SEEDS_HEADER,
    SEEDS_READING,
    banners,
    opening,
    picture,
    table,
)
from serein.files import write_atomically

COPIES = {"emodb": "emodb-2s"}
NOTES = {
    "emodb-2s": "emodb-2s is not EmoDB as it was released: in this copy every recording is cut or padded to 2 seconds.",
    "urdu": (
        "26 of the 29 talkers speak one emotion only: folds of whole talkers leave almost nothing to learn from a "
        "talker about two emotions, and the intervals are wide; where folds share talkers, a voice gives its "
        "emotion away."
    ),
}
PUBLISHED = (
    Table(
        ["EmoBox's system", "", "UA %", "WA %", "Macro F1 %"],
        [
            ["HuBERT-large", "published, not run here", "70.0", "70.3", "69.5"],
            ["Whisper-large-v3", "published, not run here", "75.3", "75.9", "75.2"],
            ["WavLM-large", "published, not run here", "72.0", "72.2", "71.4"],
        ],
        text_columns=2,
    ),
    Paragraph(
        "EmoBox publishes these scores for the same test folds. Its validation part is a random 20 %, of talkers who "
        "also train, and every checkpoint is read on the test part: they are not comparable in strictness with the "
        "scores above."
    ),
)
MARK = "<!-- From here on benchmarks/results.py writes; what stands above is written by hand, and stays. -->"
READING_HEADING = "## How to read the tables"
FIGURE = re.compile(r"\(figures/([^)]+)\.svg\)")
# a backslash stands twice where Markdown escapes it
MACHINE_PATH = re.compile(r"(?<![\w/:<.])~?/\w[^\s\"')]*|\b[A-Za-z]:\\+\w[^\s\"')]*")


def shareable(study: Study) -> Study:
    """The study with each corpus under the name of the copy that was used, and runs without their folders' paths."""
    corpus = study.rows[0].run.corpus
    copy = COPIES.get(corpus, corpus)
    title = re.sub(rf"\b{re.escape(corpus)}\b(?!-2s)", copy, study.title)
    if copy != corpus and copy not in title:
        title = f"{title} ({copy})"
    names: list[str] = []
    for row in study.rows:
        short = re.sub(r"\([^()]*/([^/()]+)\)$", r"(\1)", row.name) if study.kind == "runs" else row.name
        names.append(free_name(short, names))
    rows = [
        replace(row, name=name, run=replace(row.run, corpus=COPIES.get(row.run.corpus, row.run.corpus)))
        for row, name in zip(study.rows, names, strict=True)
    ]
    return replace(study, title=title, rows=tuple(rows))


def free_name(name: str, taken: Collection[str]) -> str:
    """The name itself, or the first of ``name-2``, ``name-3`` and so on that is not taken."""
    others = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in others if other not in taken)


class Places:
    """What the page calls the folders of studies and runs: no two alike, and each the same in all its commands."""

    def __init__(self, studies: Mapping[Path, str]) -> None:
        """Args: studies: the page's own, by their folders."""
        self.names = {folder.resolve(): f"studies/{name}" for folder, name in studies.items()}

    def of_study(self, folder: Path) -> str:
        """Of the study in this folder."""
        return self._name(folder.resolve(), "studies")

    def of_run(self, run: Run) -> str:
        """In its study's folder, if a command made several."""
        folder = run.folder.resolve()
        return self._name(folder, "runs") if _alone(run) else f"{self.of_study(folder.parent)}/{folder.name}"

    def _name(self, folder: Path, room: str) -> str:
        if folder not in self.names:
            self.names[folder] = free_name(f"{room}/{folder.name}", self.names.values())
        return self.names[folder]


def shareable_command(command: str, output: str, members: Mapping[str, str] | None = None) -> str:
    """The command with ``output`` as its output, and no other path than that of a recipe within the project.

    Args:
        command: as it was typed.
        output: what stands after -o.
        members: what the page calls the runs that a committee was made of, by the paths that were typed.
    """
    words = [
        part for word in shlex.split(command) for part in (word.split("=", 1) if word.startswith("--") else [word])
    ]
    known = members or {}
    return shlex.join(
        known.get(word) or _shareable_word(before, word, output) for before, word in pairwise(["", *words])
    )


def _shareable_word(before: str, word: str, output: str) -> str:
    if before == "--folds-file":
        return "FOLDS"
    if before in ("-o", "--output"):
        return output
    if word.endswith(".toml"):
        parts = Path(word).parts
        return "/".join(parts[parts.index("recipes") :]) if "recipes" in parts else parts[-1]
    is_argument = not before.startswith("-") and not word.startswith("-")
    return Path(word).name if is_argument or before in ("--view", "--unlabelled", "--beside", "--like") else word


def commands(study: Study, places: Places) -> list[str]:
    """What makes the study's runs and the study."""
    runs = [row.run for row in study.rows]
    if study.kind != "runs":
        made = [shareable_command(run.command, places.of_study(study.folder)) for run in runs]
        return list(dict.fromkeys(filter(None, made)))
    named = {run.folder.resolve(): places.of_run(run) for run in runs}
    made = []
    for run in runs:
        output = named[run.folder.resolve()] if _alone(run) else places.of_study(run.folder.parent)
        made.append(shareable_command(run.command, output, _members(run, named)))
    words = ["serein", "study", places.of_study(study.folder), *named.values(), "--title", study.title]
    return [*dict.fromkeys(filter(None, made)), shlex.join(words)]


def _members(run: Run, named: Mapping[Path, str]) -> dict[str, str]:
    """The runs that a committee was made of, if they are in the study too."""
    words = shlex.split(run.command)
    if words[1:2] != ["ensemble"]:
        return {}
    found = {word: [folder for folder in named if _ends_with(folder, word)] for word in words[2:]}
    return {word: named[folders[0]] for word, folders in found.items() if len(folders) == 1}


def _ends_with(folder: Path, word: str) -> bool:
    parts = Path(word).parts
    return folder.parts[-len(parts) :] == parts


def _alone(run: Run) -> bool:
    """Whether the run was made by itself, or as one of a study's."""
    words = [word for word in shlex.split(run.command)[1:] if not word.startswith("-")]
    return words[:1] not in (["benchmark"], ["ablate"], ["inflation"])


def encoders(run: Run) -> list[str]:
    """Of each its name on the Hub, or that of its folder, and the layers."""
    return [
        f"Encoder {each['name'] if each['revision'] else Path(each['name']).name}, "
        f"layers {', '.join(map(str, each['layers']))}, {each['frame_rate']:g} frames a second."
        for each in run.encoder.get("members", [run.encoder])
        if each  # nothing is known of what was imported
    ]


def verdict(row: Row, first: str, holm_p: str, *, inflation: bool = False) -> str:
    """What may be said of a variant and the first one, in a sentence.

    In a study of inflation both are one system, which no choice makes better: only its score is higher.
    """
    found = row.minus_first
    if found is None:
        return f"{row.name} was run under another protocol than {first}: the two are not compared."
    if isnan(found.holm_p):
        return f"Of {row.name} and {first} nothing can be said: one talker tells nothing of others."
    numbers = f"{100 * found.ua:+.1f} points of UA, p after Holm {holm_p}"
    if found.holm_p >= THRESHOLD:
        return f"{row.name} and {first} cannot be told apart ({numbers})."
    if inflation:
        return f"{row.name} scores {'higher' if found.ua > 0 else 'lower'} than {first} ({numbers})."
    return f"{row.name} is {'better' if found.ua > 0 else 'worse'} than {first}, which stands after Holm ({numbers})."


def verdicts(study: Study, curves: Curves | None) -> list[str]:
    """A sentence a difference: to the first variant, or in a study of fewer labels to the first series with as many."""
    if curves:
        differences = [
            (
                replace(
                    point.row,
                    name=f"With {share_in_percent(point.share)} of the labels {point.series}",
                    minus_first=point.minus_reference,
                ),
                curves.series[0],
            )
            for point in curves.points
            if point.reference
        ]
    else:
        differences = [(row, study.rows[0].name) for row in study.rows[1:]]
    return [
        verdict(
            row,
            first,
            in_thousandths(row.minus_first.holm_p) if row.minus_first else "",
            inflation=study.kind == "inflation",
        )
        for row, first in differences
    ]


def _on_emobox_folds(study: Study) -> bool:
    first = study.rows[0].run
    return (first.corpus, first.protocol.name) == ("ravdess", "emobox")


def section(study: Study, name: str, places: Places, published: Sequence[Block]) -> tuple[str, Picture]:
    """A study's part of the page as Markdown, with what others published of its folds, and its figure."""
    study = shareable(study)
    first = study.rows[0]
    curves = label_curves(study)
    drawn = replace(curve_picture(curves), name=name) if curves else replace(picture(study), name=name)
    blocks: list[Block] = [
        Section(study.title),
        opening(study),
        *map(Paragraph, dict.fromkeys(said for row in study.rows for said in encoders(row.run))),
        *([Paragraph(NOTES[first.run.corpus])] if first.run.corpus in NOTES else []),
        *([Code("\n".join(made))] if (made := commands(study, places)) else []),
        *banners(study),
        *(curve_blocks(curves, drawn) if curves else [drawn]),
        table(study),
        *published,
    ]
    listed = "\n".join(f"- {markdown([Paragraph(sentence)])}" for sentence in verdicts(study, curves))
    return "\n\n".join(filter(None, [markdown(blocks), listed])), drawn


def by_hand(page: Path) -> str:
    """What stands above the mark of a page that is there already, else a title.

    Raises:
        UsageError: the page there has no mark, so that nothing says what may be written over.
    """
    if not page.exists():
        return "# Results"
    above, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise UsageError(f"{page} would be written over; put this line below what is to stay:\n{MARK}")
    return above.strip()


def earlier_sections(page: Path) -> dict[str, str]:
    """What an earlier call wrote of each study, by its heading."""
    below = page.read_text(encoding="utf-8").partition(MARK)[2] if page.exists() else ""
    parts = [part.strip() for part in re.split(r"^(?=## )", below, flags=re.MULTILINE)[1:]]
    _check_headings([part.splitlines()[0] for part in parts])
    return {heading: part for part in parts if (heading := part.splitlines()[0]) != READING_HEADING}


def _check_headings(headings: Sequence[str]) -> None:
    if twice := [heading for heading in headings if headings.count(heading) > 1]:
        raise UsageError(f"--keep tells studies apart by their titles, and two have {twice[0]!r}: title one otherwise")


def write_page(folders: Sequence[Path], output: Path, *, keep: bool = False) -> None:
    """Write the page and its figures.

    Args:
        folders: the studies.
        output: the page.
        keep: leave what stands of other studies on a page that is there already; a study of a title that is there
            comes in its place, others behind.

    Raises:
        UsageError: a path of the machine would get into them, two studies to tell apart have one title, or see
            `by_hand`; nothing is written then.
        CorpusError: see `serein.evaluate.study.load_study`.
    """
    above = by_hand(output)
    loaded = {folder: load_study(folder) for folder in dict.fromkeys(folders)}
    headings = {folder: markdown([Section(shareable(study).title)]) for folder, study in loaded.items()}
    if keep:
        _check_headings(list(headings.values()))
    sections = earlier_sections(output) if keep else {}
    others = "\n".join(text for heading, text in sections.items() if heading not in headings.values())
    names: dict[Path, str] = {}
    for folder in loaded:
        names[folder] = free_name(folder.resolve().name, [*names.values(), *FIGURE.findall(others)])
    places = Places(names)
    texts: dict[Path, str] = {}
    comparable = next((folder for folder, study in loaded.items() if _on_emobox_folds(study)), None)
    if markdown([PUBLISHED[0]]) in others:
        comparable = None  # once a page is enough
    for folder, name in names.items():
        text, drawn = section(loaded[folder], name, places, PUBLISHED if folder == comparable else ())
        sections[headings[folder] if keep else str(folder)] = text
        texts[output.parent / "figures" / f"{drawn.name}.svg"] = drawn.svg
    seeds = (SEEDS_READING,) if any(SEEDS_HEADER[0] in text for text in sections.values()) else ()
    reading = markdown([*map(Paragraph, (READING, *seeds, COST_READING, *DEFINITIONS))])
    texts[output] = "\n\n".join([above, MARK, *sections.values(), READING_HEADING, reading]) + "\n"
    for path, text in texts.items():
        if found := MACHINE_PATH.search(text):
            raise UsageError(f"{path} would hold a path of this machine, {found[0]}; take it out of the title or name")
    for path, text in texts.items():
        write_atomically(path, text.encode())


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="leave what stands of other studies on the page")
    args = parser.parse_args(arguments)
    write_page(args.studies, args.output, keep=args.keep)


if __name__ == "__main__":
    measure.run(main)
