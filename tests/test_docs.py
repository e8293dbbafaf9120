"""What the pages say is held against the code: functions, tests, commands, links, examples."""

import ast
import csv
import doctest
import importlib
import json
import re
import shlex
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path

import pytest
import typer

from serein import EmotionRecognizer, errors
from serein.cli import SOME_FAILED, app
from serein.corpus.splits import make_protocol
from serein.recipe import Recipe
from serein.serve.limits import BOUNDS, Limits
from serein.serve.live import CLOSINGS
from serein.serve.refusals import REASONS
from serein.streaming import EmotionStream
from serein.train.crossval import cross_validate

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
EQUATION_ROW = re.compile(
    r"\| (?P<equation>.+) \| .+ "
    r"\| \[(?P<module>serein[\w.]+):(?P<function>[\w.]+)\]\((?P<source>\S+)\) "
    r"\| \[(?P<file>\w+\.py)::(?P<test>\w+)\]\((?P<tests>\S+)\) \|"
)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", read(page))


def fenced(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(read(page)) if found == language]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def table_after(heading: str, text: str) -> list[str]:
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


METHOD, SERVING = ROOT / "docs" / "method.md", ROOT / "docs" / "serving.md"
ARCHITECTURE, SOURCE = ROOT / "docs" / "architecture.md", ROOT / "src" / "serein"
KINDS = {"recognizer": EmotionRecognizer, "stream": EmotionStream}
"""Of names on the pages: what they have is looked up."""
EQUATIONS = table_after("The equations", read(METHOD))


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: cells(row)[0])
def test_the_function_and_the_test_of_an_equation_exist(row):
    said = EQUATION_ROW.fullmatch(row)
    assert said, "a row is: equation, what it says, [module:function](source), [file::test](source)"
    module = importlib.import_module(said["module"])
    assert callable(reduce(getattr, said["function"].split("."), module))
    assert Path(str(module.__file__)).resolve() == (METHOD.parent / said["source"]).resolve()
    tests = METHOD.parent / said["tests"]
    assert tests.name == said["file"]
    assert said["test"] in {node.name for node in ast.parse(read(tests)).body if isinstance(node, ast.FunctionDef)}


def test_every_equation_of_the_paper_has_a_row():
    assert set(re.findall(r"^\| Eq\. (\d)", "\n".join(EQUATIONS), re.MULTILINE)) == set("1234567")


def test_the_columns_of_history_are_those_that_training_writes(tone_store, tiny_recipe, tmp_path):
    said: dict[str, set[str]] = {}
    for columns, stages, _ in map(cells, table_after("What `history.csv` says", read(METHOD))):
        for stage in ("adapt", "finetune", "tried", "refit") if stages == "all" else stages.split(", "):
            said.setdefault(stage, set()).update(re.findall(r"`(\w+)`", columns))
    corpus = tone_store.corpus()
    sessions = make_protocol("sessions", corpus)
    one = replace(sessions, folds=sessions.folds[:1])
    changes = ["adapt.epochs=1", "finetune.epochs=1", "finetune.baseline_learning_rates=[1e-2, 1e-3]"]
    once = Recipe.from_toml(tiny_recipe.to_toml(), changes)
    written: dict[str, set[str]] = {}
    for system in ("adapter", "superb"):
        run = cross_validate(tone_store, corpus, one, tmp_path / system, once, system=system)
        (table,) = run.rglob("history.csv")
        for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
            written.setdefault(row.pop("stage"), set()).update(name for name, value in row.items() if value)
    assert said == written


def commands() -> list[tuple[str, str]]:
    """Every command line of the pages, and the examples of ``--help``, with where each stands."""
    found = []
    for page in PAGES:
        lines = [line for _, code in FENCE.findall(read(page)) for line in code.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`(serein [^`]+)`", prose(page))
        found += [(named(page), line) for line in lines if line.startswith("serein ")]
    for name, command in COMMANDS.items():
        found += [(f"{name} --help", line) for line in re.findall(r"`(serein [^`]+)`", command.help)]
    return found


@pytest.mark.parametrize(("place", "line"), commands(), ids=lambda text: text)
def test_every_command_line_parses(place, line):
    _, name, *arguments = shlex.split(line, comments=True)
    assert name in COMMANDS
    if not arguments:  # a command that is only mentioned
        return
    given = COMMANDS[name].make_context(name, arguments).params  # raises what a user would be told
    if recipe := given.get("recipe"):
        Recipe.read(ROOT / recipe, given["changes"] or [])


def test_the_command_lines_of_the_container_parse():
    dockerfile = read(ROOT / "Dockerfile")
    entry, command = (json.loads(re.search(rf"^{word} (.*)$", dockerfile, re.MULTILINE)[1])
                      for word in ("ENTRYPOINT", "CMD"))  # fmt: skip
    assert entry == ["serein"]
    (image_and_command,) = re.findall(r"docker run --gpus all \.\.\. (.*)$", dockerfile, re.MULTILINE)
    image, *given = shlex.split(image_and_command)
    assert image == "serein"
    for name, *arguments in (command, given):
        assert COMMANDS[name].make_context(name, arguments).params["host"] == "0.0.0.0"


def test_the_readme_shows_every_step_of_the_way():
    shown = {shlex.split(line)[1] for place, line in commands() if place == "README.md"}
    assert {"corpus", "extract", "crossval", "report", "train", "predict"} <= shown


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_into_the_project_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(target), re.MULTILINE)}, link


PYTHON = [(named(page), code) for page in PAGES for code in fenced(page, "python")]


@pytest.mark.parametrize(("place", "code"), PYTHON, ids=lambda text: text.split("\n")[0])
def test_python_of_the_pages_compiles_and_its_names_resolve(place, code):
    tree = ast.parse(code)
    compile(tree, place, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in KINDS:
            assert hasattr(KINDS[node.value.id], node.attr), ast.unparse(node)


def test_the_pages_for_users_show_python():
    assert {"README.md", "docs/serving.md"} <= {place for place, _ in PYTHON}


def test_the_statuses_and_codes_of_the_server_are_all_there():
    rows = [cells(row) for row in table_after("A server and its page", read(SERVING))]
    listed = {(int(row[0]), code) for row in rows if row[0].isdecimal() for code in re.findall(r"`([a-z_]+)`", row[1])}
    assert listed == {(reason.status, code) for code, reason in REASONS.items()}


def test_the_limits_of_the_server_and_their_options_are_as_it_has_them():
    rows = [cells(row) for row in table_after("A server and its page", read(SERVING))]
    limits = {row[0].strip("`"): row for row in rows if len(row) == 4 and row[0].startswith("`")}
    assert {name: float(row[2].replace(",", "")) for name, row in limits.items()} == asdict(Limits())
    options = {option.opts[0]: option.default for option in COMMANDS["serve"].params}
    shown = {row[3].strip("`"): float(row[2].replace(",", "")) for row in limits.values() if row[3]}
    megabytes = {"--max-megabytes": options["--max-megabytes"] * 1e6}
    assert shown == {name: (options | megabytes)[name] for name in shown}
    others = {"model", "--host", "--port", "--encoder", "--revision", "--device"}
    assert shown.keys() == options.keys() - others


def test_the_bounds_of_windows_and_the_ends_of_streams_are_as_the_server_has_them():
    rows = [cells(row) for row in table_after("A server and its page", read(SERVING))]
    bounds = {row[0].split("`")[1]: float(row[1]) for row in rows if len(row) == 2 and row[0].startswith("`")}
    assert bounds == BOUNDS
    closings = {row[0].strip("`"): int(row[1]) for row in rows if len(row) == 3 and row[1].isdecimal()}
    assert closings == CLOSINGS


def test_every_module_has_its_word_in_the_table_of_rooms():
    rows = [cells(row) for row in table_after("The rooms", read(ARCHITECTURE))]
    said = {room.strip("`/"): set(re.findall(r"`(\w+)/?`", text)) for room, text in rows}
    there: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        room, *below = path.relative_to(SOURCE).parts
        if not path.stem.startswith("__"):
            there.setdefault(room if below else "beside them", set()).add(below[0] if below else room)
    assert said.keys() == there.keys()
    for room, modules in there.items():
        assert {name.removesuffix(".py") for name in modules} <= said[room], room


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "pycon")], ids=named)
def test_examples_on_the_pages_run(page):
    examples = doctest.DocTestParser().get_doctest("\n".join(fenced(page, "pycon")), {}, named(page), None, 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=report.append)
    assert tried
    assert not failed, "".join(report)


def test_the_readme_lists_every_exit_code():
    listed = {int(cells(row)[0]) for row in table_after("Exit codes", read(ROOT / "README.md"))}
    typed = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    assert listed == typed | {0, SOME_FAILED, 130}
