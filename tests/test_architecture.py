"""Imports point one way: catalogue <- engine <- wire <- doors <- app <- serving, and only app knows the losses.

Functions fit on a screen, and no public name is given twice.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from typing_extensions import TypeIs

MOST_LINES = 40
"""Longest body of a function, except for the arithmetic of losses and metrics."""
SERVICE = Path(__file__).parents[1] / "service"
MODULES = sorted(SERVICE.rglob("*.py"))
MAY_IMPORT = {
    "problems": set[str](),
    "settings": set[str](),
    "catalogue": {"problems"},
    "losses": {"catalogue"},
    "metrics": {"catalogue"},
    "engine": {"problems", "catalogue"},
    "evaluations": {"problems", "catalogue", "engine"},
    "wire": {"problems", "catalogue", "engine", "evaluations"},
    "routes": set[str](),
    "telemetry": {"problems", "catalogue", "engine", "wire", "settings", "routes"},
    "admission": {"problems", "engine", "wire", "settings", "routes", "telemetry"},
    "doors": {
        *("problems", "catalogue", "engine", "evaluations", "wire"),
        *("settings", "routes", "telemetry", "admission"),
    },
    "document": {"problems", "catalogue", "engine", "wire", "settings", "telemetry", "admission"},
    "pages": {"problems", "catalogue", "admission"},
    "serving": {"problems", "settings", "routes", "telemetry", "admission", "app"},
    "app": {
        *("problems", "catalogue", "engine", "evaluations", "wire", "settings", "telemetry"),
        *("admission", "doors", "document", "pages", "losses", "metrics"),
    },
    "cli": {
        "settings",
        "engine",
        "admission",
        "telemetry",
        "document",
        "losses",
        "metrics",
        "app",
        "serving",
    },
    "__main__": {"cli"},
}
FOREIGN = {
    "catalogue": {"torch", "annotated_types", "numpy"},
    "losses": {"torch", "scipy", "annotated_types", "numpy"},
    "metrics": {"torch", "scipy", "annotated_types", "numpy", "typing_extensions"},
    "engine": {"torch", "numpy"},
    "evaluations": {"numpy", "orjson", "isal", "sqlalchemy"},
    "wire": {
        "torch",
        "numpy",
        "orjson",
        "pybase64",
        "simdjson",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
        "annotated_types",
    },
}


def layer(path: Path) -> str:
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_imports_point_one_way(path: Path) -> None:
    here = layer(path)
    if here == "__init__":
        return
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "service" and rest and rest != "VERSION":
            imported = rest.partition(".")[0]
            assert imported == here or imported in MAY_IMPORT[here], f"{here} imports {name}"
        elif here in FOREIGN:
            assert top in FOREIGN[here] or top in _standard(), f"{here} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_every_module_says_why_it_exists(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if layer(path) not in ("losses", "metrics")],
    ids=lambda path: str(path.relative_to(SERVICE)),
)
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    lengths = {
        node.name: _lines(node) for node in ast.walk(ast.parse(path.read_text())) if _is_function(node)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_public_name_is_given_twice() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if (_is_function(node) or isinstance(node, ast.ClassDef)) and not node.name.startswith("_"):
                # a metric may have the name of a loss: mse
                kind = "metric " if layer(path) == "metrics" else ""
                homes[kind + node.name].append(str(path.relative_to(SERVICE)))
    assert len(homes) > 500
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def _is_function(node: ast.AST) -> TypeIs[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines in the body of a function, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _imports(path: Path) -> list[str]:
    """Return the modules that a module imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _standard() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names
