"""Imports point one way: catalogue <- engine <- wire <- doors <- app <- serving, and only app knows the losses."""

import ast
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service"
MODULES = sorted(SERVICE.rglob("*.py"))
MAY_IMPORT = {
    "problems": set[str](),
    "settings": set[str](),
    "catalogue": {"problems"},
    "losses": {"catalogue"},
    "engine": {"problems", "catalogue"},
    "wire": {"problems", "catalogue", "engine"},
    "routes": set[str](),
    "telemetry": {"problems", "catalogue", "engine", "wire", "settings", "routes"},
    "admission": {"problems", "engine", "wire", "settings", "routes", "telemetry"},
    "doors": {"problems", "catalogue", "engine", "wire", "settings", "telemetry", "admission"},
    "document": {"problems", "catalogue", "engine", "wire", "settings", "telemetry", "admission"},
    "pages": {"problems", "catalogue", "admission"},
    "serving": {"problems", "settings", "routes", "telemetry", "admission", "app"},
    "app": {
        *("problems", "catalogue", "engine", "wire", "settings", "telemetry"),
        *("admission", "doors", "document", "pages", "losses"),
    },
    "cli": {"settings", "engine", "admission", "telemetry", "document", "losses", "app", "serving"},
    "__main__": {"cli"},
}
FOREIGN = {
    "catalogue": {"torch", "annotated_types"},
    "losses": {"torch", "scipy", "annotated_types", "numpy"},
    "engine": {"torch"},
    "wire": {
        "torch",
        "numpy",
        "orjson",
        "pybase64",
        "simdjson",
        "pydantic",
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
