"""Sphinx configuration: the pages here, and a reference page for each part of the package."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import mlsky

project = "mlsky"
author = "The mlsky developers"
copyright = "2026, the mlsky developers"
version = release = mlsky.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
# Notebooks are shown with the output that `make notebooks` has left in them.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
# Single backticks in docstrings are names, as numpydoc has them.
default_role = "code"

html_theme = "alabaster"
html_theme_options = {
    "description": "Hundreds of correlated, non-Gaussian mock microwave skies",
    "fixed_sidebar": True,
    "page_width": "1100px",
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
# torch's own docstrings are not ours to render.
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_rtype = False
# Attributes of dataclasses are documented under Parameters; no second entry for each.
napoleon_use_ivar = True

#: Reference pages: title, and the modules on it (a package brings all of its modules).
GROUPS = {
    "simulate": (
        "Simulating",
        (
            *("simulation", "signature", "request", "observation", "provenance", "sky"),
            *(
                "operations",
                "bright_sources",
                "subtraction",
                "smoothing",
                "harmonics",
                "averages",
                "edges",
            ),
            *("ensembles", "plotting"),
        ),
    ),
    "fields": ("Fields and seeds", ("components", "seeds")),
    "frequency": ("Frequencies", ("frequency",)),
    "theory": ("Theory", ("theory",)),
    "sphere": ("The sphere", ("sphere",)),
    "haloes": ("Haloes", ("haloes",)),
    "painting": ("Painting", ("painting",)),
    "sources": ("Sources", ("sources",)),
    "networks": ("Networks", ("networks",)),
    "cutting": ("Cutting patches", ("cutting",)),
    "training": ("Training", ("training",)),
    "statistics": ("Statistics", ("statistics",)),
    "validation": ("Validation", ("validation",)),
    "toys": ("Toys", ("toys",)),
    "registry": ("Weights registry", ("registry",)),
    "plugins": ("Plugins", ("component_plugins", "plugins")),
    "errors": (
        "Errors, files and the command line",
        ("errors", "arguments", "io", "processes", "old_names", "cli"),
    ),
}


def _automodule(name: str, is_package: bool) -> str:
    title = f"``{name}``"
    # A package's own page says what is in it; its modules describe their members.
    members = "" if is_package else "   :members:\n   :show-inheritance:\n"
    return f"{title}\n{'-' * len(title)}\n\n.. automodule:: {name}\n{members}\n"


def write_reference(app) -> None:
    """Write reference/generated/*.rst from the modules that there are."""
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    modules = {
        info.name.removeprefix("mlsky."): info.ispkg
        for info in pkgutil.walk_packages(mlsky.__path__, "mlsky.")
        if not info.name.rpartition(".")[2].startswith("_") and info.name != "mlsky.data"
    }
    homeless = {name.split(".")[0] for name in modules}
    wanted = {}
    for page, (title, heads) in GROUPS.items():
        homeless -= set(heads)
        names = [n for head in heads for n in modules if n == head or n.startswith(f"{head}.")]
        sections = [_automodule(f"mlsky.{name}", modules[name]) for name in names]
        if sections:
            wanted[f"{page}.rst"] = f"{title}\n{'=' * len(title)}\n\n" + "\n".join(sections)
    if homeless:
        raise ValueError(f"give these modules a page in GROUPS of docs/conf.py: {sorted(homeless)}")
    for stale in {path.name for path in folder.glob("*.rst")} - set(wanted):
        (folder / stale).unlink()
    for name, text in wanted.items():
        path = folder / name
        # Unchanged pages keep their time, so that Sphinx does not rebuild them.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


#: A bar, or the star of an unpacked shape.
SIGNS = re.compile(r"\||(?<![\w*\\])\*(?=\w[\w. ]*[,)])")


def escape_signs(app, what, name, obj, options, lines) -> None:
    """Let ``|grad|`` and ``(nfreq, *shape)`` be what they look like, not reStructuredText."""
    literal_indent = None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_indent is not None and line.strip() and indent <= literal_indent:
            literal_indent = None
        if literal_indent is None:
            # Pieces between backticks stay: nothing is special there.
            pieces = re.split(r"(``.*?``|`[^`]*`)", line)
            lines[i] = "".join(p if p[:1] == "`" else SIGNS.sub(r"\\\g<0>", p) for p in pieces)
            if line.rstrip().endswith("::") or line.lstrip().startswith(".. "):
                literal_indent = indent


def shorten_types(app, what, name, obj, options, signature, returns):
    """Write array types as the source does, not as numpy spells them out."""
    return tuple(
        text
        and re.sub(
            r"~?[\w.]*ndarray\[tuple\[[~\w.]*Any, \.\.\.\], ~?[\w.]*dtype\[~?([\w.]+)\]\]",
            lambda match: f"NDArray[{match[1].rpartition('.')[2]}]".replace("[_ScalarT]", ""),
            text.replace("TypeAliasForwardRef('ArrayLike')", "ArrayLike"),
        )
        for text in (signature, returns)
    )


def setup(app) -> None:
    app.connect("autodoc-process-signature", shorten_types)
    # After napoleon (500), which reads the docstring's own form.
    app.connect("autodoc-process-docstring", escape_signs, priority=900)
    app.connect("builder-inited", write_reference)
