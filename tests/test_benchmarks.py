"""Every name that the benchmarks and examples take from the package exists."""

from __future__ import annotations

import ast
import importlib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for folder in ("benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py")
)


def imported(tree: ast.AST) -> Iterator[tuple[str, object]]:
    """Names that a script binds by its imports from mlsky, and what they are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlsky":
            for alias in node.names:
                module = importlib.import_module(node.module)
                try:
                    found = getattr(module, alias.name)
                except AttributeError:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                yield alias.asname or alias.name, found
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mlsky":
                    module = importlib.import_module(alias.name)
                    yield (
                        alias.asname or "mlsky",
                        module if alias.asname else importlib.import_module("mlsky"),
                    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_names_of_the_package_exist(path):
    tree = ast.parse(path.read_text())
    modules = {name: found for name, found in imported(tree) if isinstance(found, types.ModuleType)}
    missing = [
        f"line {node.lineno}: {node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
        and not hasattr(modules[node.value.id], node.attr)
    ]
    assert not missing
