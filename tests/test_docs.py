"""What the pages say is held against the code: functions, tests, commands, links, examples."""

import ast
import doctest
import importlib
import re
import shlex
from functools import reduce
from pathlib import Path

import pytest
import typer

from serein import errors
from serein.cli import SOME_FAILED, app
from serein.recipe import Recipe

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


METHOD = ROOT / "docs" / "method.md"
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


def test_the_columns_of_history_are_those_that_training_writes():
    rows = map(cells, table_after("What `history.csv` says", read(METHOD)))
    said = {column for first, *_ in rows for column in re.findall(r"`(\w+)`", first)}
    trees = [ast.parse(read(ROOT / "src/serein/train" / name)) for name in ("adapt.py", "finetune.py")]
    written = [
        {key.value for key in node.keys if isinstance(key, ast.Constant)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
    ]
    rows_of_history = [keys for keys in written if keys & {"step", "validation_ua"}]
    assert said == set.union(*rows_of_history) - {"stage"}


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


@pytest.mark.parametrize("code", fenced(ROOT / "README.md", "python"))
def test_python_of_the_readme_compiles_and_its_imports_resolve(code):
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert all(hasattr(module, alias.name) for alias in node.names)


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
