"""The house's rules (docs/architecture.md), held against the source text."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import serein

SOURCE = Path(serein.__file__).parent
MODULES = {
    ".".join(("serein", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
FOUNDATION = {"errors", "files", "progress"}
# What a room, or a module outside the rooms, may import of serein beside itself and the foundation.
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "files": set(),
    "recipe": set(),
    "answers": set(),
    "corpus": set(),
    "nn": set(),
    "baselines": {"nn"},
    "frames": {"corpus"},
    "evaluate": {"corpus"},
    "model": {"baselines", "nn", "recipe"},
    "hub": {"model"},
    "timeline": {"frames"},
    "streaming": {"frames", "timeline"},
    "recognizer": {"answers", "frames", "nn", "model", "hub", "streaming", "timeline"},
    "onnx_recognizer": {"answers", "frames"},
    "export": {"baselines", "frames", "nn", "model", "hub", "recognizer", "onnx_recognizer"},
    "serve": {"answers", "frames", "recognizer", "streaming", "timeline"},
    "train": {"corpus", "frames", "nn", "baselines", "evaluate", "hub", "model", "recipe", "timeline"},
    "terminal": {"corpus", "evaluate", "frames"},
    "arguments": {"corpus", "frames", "recipe", "terminal"},
}
DOORS = {
    "cli",
    "cli_errors",
    "cli_export",
    "cli_judge",
    "cli_look",
    "cli_recipe",
    "cli_serve",
    "cli_share",
    "cli_study",
    "cli_use",
    "arguments",
    "demo",
    "terminal",
    "__main__",
    "",
}  # stand on top; "" is the package, which names the public things
WITHOUT_TORCH = (
    "corpus",
    "evaluate",
    "errors",
    "files",
    "progress",
    "recipe",
    "terminal",
    "arguments",
    "cli",
    "cli_errors",
    "cli_export",
    "cli_judge",
    "cli_look",
    "cli_recipe",
    "cli_serve",
    "cli_share",
    "cli_study",
    "cli_use",
    "answers",
    "timeline",
    "streaming",
    "onnx_recognizer",
)
UNPICKLERS = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions; what is imported from a package is its module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {str(node.module)}
    return found


def place(module: str) -> str:
    """``serein.frames.store`` is at ``frames.store``; the package itself is at ``""``."""
    return module.removeprefix("serein").removeprefix(".")


IMPORTS = {module: imports(path) for module, path in MODULES.items()}


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if place(m).split(".")[0] not in DOORS - {"arguments", "terminal"}],
)
def test_each_room_imports_only_the_rooms_it_may(module):
    room = place(module).split(".")[0]
    allowed = MAY_IMPORT[room] | FOUNDATION | {room}
    for imported in {place(name) for name in IMPORTS[module] if name in MODULES}:
        assert any(imported == name or imported.startswith(f"{name}.") for name in allowed), f"imports {imported}"


def test_nothing_below_imports_the_doors():
    for module in MODULES:
        if place(module) not in DOORS:
            assert not {place(name) for name in IMPORTS[module] if name in MODULES} & DOORS, module


def test_the_network_needs_torch_and_nothing_else():
    allowed = sys.stdlib_module_names | {"torch", "jaxtyping", "serein"}
    for module in MODULES:
        if place(module).split(".")[0] in ("nn", "baselines"):
            assert {name.split(".")[0] for name in IMPORTS[module]} <= allowed, module


def test_tables_protocols_and_scores_need_no_torch():
    for module in MODULES:
        if place(module).split(".")[0] in WITHOUT_TORCH:
            assert not {name.split(".")[0] for name in IMPORTS[module]} & {"torch", "transformers"}, module


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {name for name in IMPORTS[module] if name in MODULES} for module in MODULES if place(module)}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()  # a circle raises CycleError


def test_modules_are_small_and_named_for_what_they_hold():
    for path in MODULES.values():
        assert path.stem not in {"utils", "util", "common", "helpers", "misc", "base"}, path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


@pytest.mark.parametrize("module", MODULES)
def test_nothing_ever_unpickles_or_evaluates_text(module):
    assert not {name.split(".")[0] for name in IMPORTS[module]} & UNPICKLERS
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"eval", "exec", "torch.load"}
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}


def test_importing_serein_is_light():
    code = "import sys, serein; print(*{'torch', 'transformers', 'matplotlib', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_the_same_for_people_and_for_type_checkers():
    tree = ast.parse(Path(serein.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {alias.name: node.module for node in checked.body for alias in node.names}
    assert told == {name: f"serein.{module}" for name, module in serein._MODULES.items()}
    assert serein.__all__ == [*told, "__version__"]
    assert dir(serein) == sorted(serein.__all__)
    for name, module in told.items():
        assert getattr(serein, name).__module__ == module
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = serein.Trainer
