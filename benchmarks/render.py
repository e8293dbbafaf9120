"""Write RESULTS.md from results/*.json: every number there was written by a benchmark.

Usage:  python benchmarks/render.py [--results FOLDER] [-o FILE]

A result is a JSON document of facts by name. A fact is a word or a number; ``{"median", "lowest", "highest"}``, shown
as ``median (lowest to highest)``; a list of numbers, shown by its ends; a table, which is a dictionary of rows by name
or a list of rows; or a dictionary of words and numbers, which becomes a table of two columns, or in a row the range of
its numbers.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure

SUMMARY = {"median", "lowest", "highest"}
HEAD = ("benchmark", "command", "machine")
OPENING = """# What the benchmarks measured

Written by `python benchmarks/render.py` from `benchmarks/results/*.json`. A number with a range is a median and the
lowest and highest of the repetitions; a ratio is that of the medians, with the lowest and highest of the rounds'. The
sides of a comparison took turns in one run on the same inputs; only "shuffled" batches are of other utterances.
"""


def render(documents: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([OPENING, *map(_section, documents)])


def _section(document: Mapping[str, Any]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items() if value not in ("", None))
    opening = f"## {document['benchmark']}\n\n```\n{document['command']}\n```\n\nMachine: {machine}.\n"
    facts = {name: fact for name, fact in document.items() if name not in HEAD}
    single = {name: fact for name, fact in facts.items() if _is_cell(fact)}
    tables = [f"### {name}\n\n{_table(fact)}\n" for name, fact in facts.items() if name not in single]
    return "\n".join([opening, *([_table(single) + "\n"] if single else []), *tables])


def _table(fact: Any) -> str:
    if isinstance(fact, list):
        return _markdown(fact) if fact else "Nothing."
    if all(_is_cell(value) for value in fact.values()):
        return _markdown([{"": name, "value": value} for name, value in fact.items()])
    if all(isinstance(row, dict) and not _is_cell(row) for row in fact.values()):
        return _markdown([{"": name, **row} for name, row in fact.items()])
    raise ValueError(f"neither cells alone nor rows alone: {', '.join(map(str, fact))}")


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = [all(not isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = [columns, ["---:" if right else "---" for right in numeric]]
    lines += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_cell(fact: Any) -> bool:
    if isinstance(fact, list):
        return bool(fact) and all(isinstance(value, float) for value in fact)
    return not isinstance(fact, dict) or fact.keys() == SUMMARY


def _cell(value: Any) -> str:
    match value:
        case None:
            return "not measured"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return _number(value)
        case {"median": median, "lowest": lowest, "highest": highest}:
            return f"{_number(median)} ({_number(lowest)} to {_number(highest)})"
        case dict():
            return f"{_number(min(value.values()))} to {_number(max(value.values()))}"
        case str():
            return value.replace("|", "\\|")
        case [first, *_, last]:
            return f"{_number(first)} to {_number(last)} in {len(value)} steps"
    raise ValueError(f"{value!r}: no cell of a table")


def _number(value: float) -> str:
    """Four digits that count; all digits before the point; what is nearly 1, as a cosine is, with five."""
    if 0.99 < abs(value) < 1:
        return f"{value:.5f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=measure.RESULTS, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=measure.RESULTS.parent / "RESULTS.md")
    args = parser.parse_args(arguments)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.results.glob("*.json"))]
    args.output.write_text(render(documents), encoding="utf-8")


if __name__ == "__main__":
    measure.run(main)
