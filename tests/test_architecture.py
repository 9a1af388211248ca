"""The rules of the layout, read off the source: who may import whom, and what no module does.

The table of layers is the one of docs/architecture.rst.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlsky

PACKAGE = Path(mlsky.__file__).parent
REPOSITORY = Path(__file__).parents[1]

#: From the ground up. A module imports from rows below its own, or from its own unit: the longest
#: of these names that its own begins with.
LAYERS = (
    ("_version", "errors", "arguments", "signature", "data", "old_names"),
    ("seeds", "components", "processes"),
    ("sphere",),
    ("io",),
    ("registry",),
    ("frequency",),
    ("component_plugins",),
    ("plugins.camb", "plugins.ccl"),
    ("theory",),
    ("networks",),
    ("sources",),
    ("haloes",),
    ("painting",),
    ("harmonics", "smoothing", "subtraction", "bright_sources"),
    ("operations",),
    ("sky",),
    ("request",),
    ("observation", "provenance", "averages", "edges"),
    ("simulation",),
    ("ensembles",),
    ("statistics", "cutting"),
    ("validation",),
    ("toys",),
    ("training",),
    ("plotting",),
    ("cli", "plugins"),
    ("__main__",),
)
LEVEL = {unit: level for level, row in enumerate(LAYERS) for unit in row}

#: The units that may import torch; the rest of the package works on arrays.
TORCH_UNITS = {
    "networks",
    "haloes",
    "painting",
    "validation",
    "toys",
    "training",
    "sphere.charts",
    "sphere.noise",
}

LINES_LISTED, LINES_MAX = 400, 450

#: What `import mlsky` may not load.
HEAVY = set(
    "astropy camb ducc0 h5py healpy lenspyx matplotlib pixell pooch pyccl pysm3 scipy torch".split()
)

#: What training machines need not have.
ABSENT_IN_TRAINING = (
    "astropy camb click ducc0 healpy lenspyx matplotlib pixell pooch pyccl pysm3 scipy"
).split()

#: The only names of numpy.random that carry no state of their own: `seeds` makes the streams.
RANDOM_ALLOWED = {"BitGenerator", "Generator", "Philox", "SeedSequence"}

#: torch's drawing functions use the global generator unless they are given `generator=` ...
TORCH_DRAWS = {
    "bernoulli",
    "multinomial",
    "normal",
    "poisson",
    "rand",
    "randint",
    "randn",
    "randperm",
}
#: ... and these always do.
TORCH_GLOBAL = {"manual_seed", "seed", "set_rng_state", "rand_like", "randn_like", "randint_like"}
TORCH_GLOBAL |= {"manual_seed_all"}

MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home|Users|scratch|global)/")


@dataclass(frozen=True)
class Import:
    """One import statement: of which mlsky module or outside package, and where it stands."""

    target: str
    line: int
    in_function: bool


@dataclass(frozen=True)
class Module:
    """One source file, by its name inside the package ("" for mlsky itself)."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def unit(self) -> str:
        return _unit(self.name)

    @property
    def dotted(self) -> str:
        return f"mlsky.{self.name}" if self.name else "mlsky"


def _unit(name: str) -> str:
    parts = name.split(".")
    heads = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((head for head in heads if head in LEVEL), parts[0])


def _module(path: Path) -> Module:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


MODULES = {m.name: m for m in map(_module, sorted(PACKAGE.rglob("*.py")))}
EACH = [pytest.param(m, id=m.dotted) for m in MODULES.values()]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _inside(base: str, name: str | None = None) -> str:
    """Name inside the package of ``from base import name``; a lazy name counts as its home."""
    inner = base.removeprefix("mlsky").lstrip(".")
    if name is None:
        return inner
    child = f"{inner}.{name}".lstrip(".")
    if child in MODULES:
        return child
    if not inner:
        return mlsky._LAZY.get(name, "mlsky._version").removeprefix("mlsky.")
    return inner


def _imports(module: Module) -> list[Import]:
    """Every import that runs, function-level ones included; ``mlsky.`` is kept in the target."""
    found = []

    def visit(node: ast.AST, in_function: bool) -> None:
        if _is_type_checking(node):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name
                if target.split(".")[0] == "mlsky":
                    target = "mlsky." + (_inside(target) or "_version")
                found.append(Import(target, node.lineno, in_function))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.dotted
                if module.path.name != "__init__.py":
                    package = package.rpartition(".")[0]
                base = importlib.util.resolve_name("." * node.level + base, package)
            for alias in node.names:
                target = base
                if base.split(".")[0] == "mlsky":
                    target = f"mlsky.{_inside(base, alias.name)}"
                found.append(Import(target, node.lineno, in_function))
        deeper = in_function or isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        )
        for child in ast.iter_child_nodes(node):
            visit(child, deeper)

    visit(module.tree, False)
    return found


def _inner_imports(module: Module) -> list[Import]:
    return [
        Import(i.target.removeprefix("mlsky."), i.line, i.in_function)
        for i in _imports(module)
        if i.target.startswith("mlsky.")
    ]


def _allowed(module: Module, imported: Import) -> bool:
    if imported.target.startswith("plugins.") and not imported.in_function:
        return module.unit == "plugins"  # what they adapt need not be installed, or takes seconds
    if _unit(imported.target) == module.unit:
        return True
    return LEVEL[_unit(imported.target)] < LEVEL[module.unit]


def _where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(PACKAGE.parent)}:{line}"


def _names(tree: ast.AST):
    """(dotted name, node) of every attribute chain such as ``np.random.seed``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, value = [node.attr], node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if isinstance(value, ast.Name):
                yield ".".join([value.id, *reversed(parts)]), node


def test_every_module_has_a_layer():
    units = {m.unit for m in MODULES.values()} - {"", "_version"}
    homeless = units - set(LEVEL)
    assert not homeless, f"give these a row in LAYERS and docs/architecture.rst: {homeless}"
    page = (REPOSITORY / "docs" / "architecture.rst").read_text(encoding="utf-8")
    unknown = {unit for unit in units if f"``{unit}``" not in page}
    assert not unknown, f"docs/architecture.rst does not tell of {unknown}"


@pytest.mark.parametrize("module", EACH)
def test_imports_go_downward(module):
    if not module.name:
        allowed = {"_version", "errors"}
        wrong = [i for i in _inner_imports(module) if i.target not in allowed]
    else:
        wrong = [i for i in _inner_imports(module) if not _allowed(module, i)]
    assert not wrong, [f"{_where(module, i.line)} imports {i.target}" for i in wrong]


@pytest.mark.parametrize(
    ("name", "source", "allowed"),
    [
        ("frequency.bands", "from mlsky import components", True),
        ("frequency.bands", "from mlsky.sky import Sky", False),
        ("frequency.bands", "from mlsky import simulate", False),
        ("frequency.bands", "def f():\n    import mlsky.sky", False),
        ("seeds", "from mlsky import components", False),
        ("sphere.noise", "from . import charts", True),
        ("sphere.noise", "from ..sky import Sky", False),
        ("painting.regions", "from mlsky.statistics import bandpower", False),
        ("simulation", "from mlsky.training import data", False),
        ("validation.scores", "from mlsky.training import data", False),
        ("training.selection", "from mlsky.validation import scores", True),
        ("theory.spectra", "def f():\n    from mlsky.plugins import camb", True),
        ("theory.spectra", "from mlsky.plugins import camb", False),
        ("frequency.bands", "def f():\n    from mlsky.plugins import camb", False),
        ("plugins.pysm", "from mlsky.simulation import simulate", True),
        ("plugins.camb", "from mlsky.theory import cosmology", False),
    ],
)
def test_the_layer_rule_itself(name, source, allowed, monkeypatch):
    for known in ("sky", "sphere.charts", "plugins.camb", "components", "statistics.bandpower"):
        monkeypatch.setitem(MODULES, known, MODULES["seeds"])
    module = Module(name, PACKAGE / f"{name.replace('.', '/')}.py", ast.parse(source))
    (imported,) = _inner_imports(module)
    assert _allowed(module, imported) is allowed


def test_there_are_no_cycles():
    graph = {
        name: {i.target for i in _inner_imports(module)} - {name}
        for name, module in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            visit(target, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", EACH)
def test_torch_stays_in_its_units(module):
    if module.unit in TORCH_UNITS or module.name in TORCH_UNITS:
        return
    uses = [i.line for i in _imports(module) if i.target.split(".")[0] == "torch"]
    assert not uses, f"{_where(module, uses[0])}: only {sorted(TORCH_UNITS)} import torch"


def test_modules_are_short(capsys):
    lines = {m: len(m.path.read_text(encoding="utf-8").splitlines()) for m in MODULES.values()}
    with capsys.disabled():
        for module, n in lines.items():
            if LINES_LISTED < n <= LINES_MAX:
                print(f"\nlong module: {module.dotted}, {n} lines")
    too_long = {m.dotted: n for m, n in lines.items() if n > LINES_MAX}
    assert not too_long, f"split these (at most {LINES_MAX} lines): {too_long}"


@pytest.mark.parametrize("module", EACH)
def test_no_bare_except_and_no_assert(module):
    for node in ast.walk(module.tree):
        assert not isinstance(node, ast.Assert), f"{_where(module, node.lineno)}: raise instead"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{_where(module, node.lineno)}: name the exception"


@pytest.mark.parametrize("module", EACH)
def test_no_global_random_state(module):
    calls = {id(n.func): n for n in ast.walk(module.tree) if isinstance(n, ast.Call)}
    for name, node in _names(module.tree):
        where = f"{_where(module, node.lineno)}: {name}"
        owner, _, last = name.rpartition(".")
        if owner in ("np.random", "numpy.random"):
            assert last in RANDOM_ALLOWED, f"{where}: take a stream from mlsky.seeds"
        if name.startswith("torch."):
            assert last not in TORCH_GLOBAL, f"{where}: pass a torch.Generator"
            if owner == "torch" and last in TORCH_DRAWS and id(node) in calls:
                keywords = {k.arg for k in calls[id(node)].keywords}
                assert keywords & {"generator", None}, f"{where}: pass generator="


@pytest.mark.parametrize("module", EACH)
def test_nothing_is_unpickled(module):
    for imported in _imports(module):
        root = imported.target.split(".")[0]
        assert root not in ("pickle", "dill", "joblib", "shelve"), _where(module, imported.line)
    for name, node in _names(module.tree):
        assert name not in ("torch.load", "torch.save"), _where(module, node.lineno)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", _where(module, node.value.lineno)


@pytest.mark.parametrize("module", EACH)
def test_only_the_command_line_prints(module):
    if module.unit == "cli":
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != "print":
            continue
        if "file" not in {keyword.arg for keyword in node.keywords}:  # a file is not the screen
            pytest.fail(f"{_where(module, node.lineno)}: use logging.getLogger('mlsky')")


def _shipped_texts() -> list[Path]:
    texts = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "docs").rglob("*.rst")]
    texts += [*(REPOSITORY / "data").rglob("*.yaml"), *REPOSITORY.glob("*.md")]
    texts += [*(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "docs").glob("*.py")]
    return sorted(t for t in texts if "generated" not in t.parts and "_build" not in t.parts)


def test_no_path_of_one_machine():
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in _shipped_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, found


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )


def test_import_mlsky_is_light():
    code = "import sys, mlsky; print(*{name.split('.')[0] for name in sys.modules})"
    result = _run(code)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split()) & HEAVY
    assert not loaded, f"import mlsky loads {sorted(loaded)}: import them inside functions"


def _training_modules() -> list[str]:
    names = [n for n in MODULES if n.split(".")[0] in ("networks", "training", "registry")]
    names += ["haloes.painter"]
    return sorted(f"mlsky.{n}" for n in names)


def test_training_needs_only_torch():
    """Networks, training and the painter import on a bare GPU machine."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT_IN_TRAINING!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Absent())
import importlib
for name in {_training_modules()!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        sys.exit(f"{{name}}: {{error}}")
"""
    result = _run(code)
    assert result.returncode == 0, result.stderr


def test_public_names_resolve():
    for name in mlsky.__all__:
        assert getattr(mlsky, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = mlsky.no_such_name
