"""Print the mutants of a module that no test notices: ``python -m tests.mutation service/admission/account.py``.

cosmic-ray makes the mutants. A seeded sample is tried in a copy of the working tree, each by a process forked from one that
has already imported torch, so a mutant takes a second or two instead of ten.
"""

import argparse
import difflib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TESTS = {
    "service/admission": ["tests/admission", "tests/doors/test_refusals.py"],
    "service/engine": ["tests/engine", "tests/doors/test_losses.py", "tests/doors/test_batch.py"],
    "service/wire": ["tests/wire", "tests/doors/test_losses.py", "tests/doors/test_batch.py"],
}
"""The tests for the mutants of a package: its own first, then those of the doors that use it."""
COPIED = ("service", "tests", "benchmarks", "openapi", "docs", "pyproject.toml", "README.md")
PRELOADED = ("torch", "fastapi", "httpx", "hypothesis", "orjson", "pytest", "simdjson", "service.losses")
"""Modules that do not import any of the mutated packages."""
OPTIONS = (
    *("-x", "-q", "-n", "0", "-m", "not server", "-p", "no:cacheprovider"),
    # pytest warns about plugins that are imported already
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
LEFT_OUT = ("BitOr",)
"""Operators whose mutants mostly change annotations, and so break the import."""


def main() -> int:
    """Try mutants of each module; return 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, default=25, help="mutants of a module (25)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=60, help="after which a mutant counts as noticed (60)"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as copy:
        _copy(Path(copy))
        os.chdir(copy)
        sys.path[0] = copy
        sys.dont_write_bytecode = True
        for name in PRELOADED:
            importlib.import_module(name)
        survived = [_try_module(module, asked) for module in asked.modules]
        return int(any(survived))


def _copy(to: Path) -> None:
    """Copy the files that the tests read."""
    for name in map(Path, COPIED):
        if name.is_dir():
            shutil.copytree(name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(name, to / name)


def _try_module(module: Path, asked: argparse.Namespace) -> bool:
    """Try a sample of a module's mutants and print the survivors; return whether there are any."""
    source = module.read_text()
    tests = TESTS[str(Path(*module.parts[:2]))]
    nearest = f"{tests[0]}/test_{module.stem}.py"
    tests = [nearest, *tests] if Path(nearest).exists() else tests
    if not _passes(tests, 10 * asked.seconds):
        raise SystemExit(f"{' '.join(tests)} fail without a mutant")
    mutants = sorted(set(_mutants(source)) - {source})
    chosen = random.Random(asked.seed).sample(mutants, min(asked.sample, len(mutants)))
    survivors = 0
    for mutant in chosen:
        module.write_text(mutant)
        if _passes(tests, asked.seconds):
            survivors += 1
            print("".join(_difference(source, mutant, module)), flush=True)
    module.write_text(source)
    print(
        f"{module}: {len(chosen) - survivors} of {len(chosen)} noticed ({len(mutants)} there are)", flush=True
    )
    return survivors > 0


def _mutants(source: str) -> Iterator[str]:
    """Yield the module once for each change that cosmic-ray would make."""
    plugins: Any = importlib.import_module("cosmic_ray.plugins")
    trees: Any = importlib.import_module("cosmic_ray.ast")
    mutating: Any = importlib.import_module("cosmic_ray.mutating")
    for name in plugins.operator_names():
        made = plugins.get_operator(name)
        if made.arguments() or any(left in name for left in LEFT_OUT):
            continue
        tree = trees.get_ast(source)
        places = sum(1 for node in trees.ast_nodes(tree) for _ in made().mutation_positions(node))
        for occurrence in range(places):
            if mutant := mutating.mutate_code(source, made(), occurrence):
                yield mutant


def _passes(tests: Sequence[str], seconds: float) -> bool:
    """Run tests in a separate process, up to the first failure; return False also if they take too long."""
    child = os.fork()
    if not child:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        pytest: Any = importlib.import_module("pytest")
        os._exit(pytest.main([*OPTIONS, *tests]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _difference(source: str, mutant: str, module: Path) -> Iterator[str]:
    """Yield the lines in which a mutant differs."""
    lines = difflib.unified_diff(
        source.splitlines(keepends=True), mutant.splitlines(keepends=True), str(module), "survives", n=1
    )
    yield from list(lines)[1:]


if __name__ == "__main__":
    sys.exit(main())
