"""The architecture is a test: imports go down only, and the stages never meet."""

import ast
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fasthook"

LAYERS: list[set[str]] = [  # a module imports from rows below its own; names of one row never meet
    {"testing"},
    {"cli"},
    {"expecting"},
    {"supervisor"},
    {"worker"},
    {"service"},
    {"line", "control", "drifting"},
    {"pausing"},
    {"recall", "pairing", "fetching", "watching", "stored", "saying"},
    {"accounts"},
    {"plan"},
    {"verifying", "sharing"},
    {"handler_options", "fetch_plan", "alert_events", "doubts"},
    {"routing"},
    {"admin"},
    {"wire", "intake", "spool", "dispatch", "handlers", "config", "notify", "remote", "alerts"},
    {"logs", "redacting", "recordings", "shapes", "converting"},
    {"values", "conditions", "handling"},
    {"model"},
    {"transit"},
    {"reply"},
    {"inbox"},
    {"errors"},
]
DEPTH = {name: row for row, names in enumerate(LAYERS) for name in names}
#: What the build compiles; see pyproject.toml.
COMPILED = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["hooks"]["mypyc"]["include"]
MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 50


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def top_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path):
    """Top names of what a module imports of fasthook; in functions and TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative imports hide where things come from"
            if node.module == "fasthook":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("fasthook."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("fasthook."))


def test_imports_go_down():
    for path in modules():
        importer = top_name(path)
        for imported in imports_of(path):
            if imported == "__version__" or imported == importer:
                continue
            assert imported in DEPTH, f"{path} imports {imported}, which has no layer"
            assert DEPTH[imported] > DEPTH[importer], f"{path} imports {imported}"


def test_every_module_has_a_layer_and_a_contract():
    for path in modules():
        assert top_name(path) in DEPTH, path
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_modules_and_functions_are_small():
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= MAX_MODULE_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= MAX_FUNCTION_LINES, f"{path}: {node.name} has {length} lines"


def test_httptools_is_never_made_lenient():
    for path in modules():
        assert "set_dangerous_leniencies" not in path.read_text(), path


def test_compiled_structs_ask_for_nothing_that_they_do_not_get():
    """mypyc leaves out a class's keywords: `frozen` counts in tests then, all others nowhere."""
    for path in COMPILED:
        for node in ast.walk(ast.parse((PACKAGE.parent / path).read_text())):
            if isinstance(node, ast.ClassDef):
                lost = {keyword.arg for keyword in node.keywords} - {"frozen"}
                assert not lost, f"{path}: {node.name} would lose {lost}"
