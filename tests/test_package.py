"""What a user gets who installs mlsky: version, command, data files, the wheel."""

from __future__ import annotations

import configparser
import email
import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import mlsky

REPOSITORY = Path(__file__).parents[1]

#: What a wheel is built from; the rest of a checkout must not be needed.
SOURCES = ("mlsky", "data", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


#: Bytes of a wheel: what is more is fetched by those who want it.
WHEEL_BYTES = 12_000_000


#: Entries whose weights come with a clone alone: networks of the paper and of the report, which are
#: shown for comparison and as large as all others together.
CLONE_ALONE = r"han2021|blobs-\d+-report"
#: For a nonlinear kappa whose haloes the user cannot list.
PAINTS_CLUSTERS = "convolutional-2arcmin-v3.safetensors"


def _data_files() -> set[str]:
    """Files of the checkout's data/ that a user must receive, relative to data/.

    Of weights the newest version of every entry but those of `CLONE_ALONE`; and the coarse file of
    the last version that paints clusters itself.
    """
    root = REPOSITORY / "data"
    files = [*root.glob("*.yaml"), *root.glob("weights/*.json")]
    files += [p for p in root.glob("tables/*") if p.is_file()]
    entries = yaml.safe_load((root / "registry.yaml").read_text(encoding="utf-8"))
    for name, entry in entries.items():
        if not re.fullmatch(CLONE_ALONE, name):
            versions = entry["versions"]
            newest = versions[max(versions, key=lambda version: int(version[1:]))]
            files += [root / "weights" / item["file"] for item in newest["files"]]
    files += [root / "weights" / PAINTS_CLUSTERS]
    return {p.relative_to(root).as_posix() for p in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a clean copy of the sources, offline."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_version_has_one_source(wheel):
    declared = re.search(
        r'__version__ = "(.+)"', (REPOSITORY / "mlsky/_version.py").read_text(encoding="utf-8")
    )
    assert mlsky.__version__ == declared.group(1)
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        message = email.message_from_bytes(archive.read(metadata))
    assert message["Version"] == mlsky.__version__
    assert (message["License-Expression"] or message["License"]) == "BSD-3-Clause"
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mlsky.__version__


def test_the_command_is_installed():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="mlsky")
    assert entry.value == "mlsky.cli:main"
    assert callable(entry.load())


def test_every_package_is_declared():
    """A subpackage missing from setup.cfg works in a checkout and fails for users."""
    declared = set(_setup_cfg()["options"]["packages"].split())
    found = {
        ".".join(p.parent.relative_to(REPOSITORY).parts)
        for p in (REPOSITORY / "mlsky").rglob("__init__.py")
    }
    assert declared == found | {"mlsky.data"}


def test_every_requirement_is_pinned():
    """`make` installs nothing that constraints.txt does not name."""
    options = _setup_cfg()
    texts = [options["options"]["install_requires"], *options["options.extras_require"].values()]
    required = {re.split(r"[<>=!~\[]", line)[0] for line in "\n".join(texts).split()}
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(equals for _, equals, _ in pins)
    assert not any("+" in version for _, _, version in pins), "no local version: torch==2.13.0+cpu"
    assert {r.lower() for r in required} <= {name.lower() for name, _, _ in pins}


def test_data_files_are_readable():
    root = importlib.resources.files("mlsky.data")
    for name in _data_files():
        assert root.joinpath(name).is_file(), name
    assert yaml.safe_load(root.joinpath("registry.yaml").read_text(encoding="utf-8"))


def test_the_wheel_holds_all_that_is_needed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "mlsky").rglob("*.py")}
    assert modules <= names
    data = {name for name in names if name.startswith("mlsky/data/")}
    assert data == {f"mlsky/data/{name}" for name in (*_data_files(), "__init__.py")}
    assert wheel.stat().st_size <= WHEEL_BYTES
    assert not [n for n in names if n.startswith(("tests/", "docs/", "data/"))]


def test_the_wheel_works_away_from_the_checkout(wheel, tmp_path):
    """Unpacked anywhere, imported from an empty folder, it finds its own files."""
    home, empty = tmp_path / "home", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home)
    code = f"""
import re

import mlsky
from mlsky import registry

for name in registry.names():
    if not re.fullmatch({CLONE_ALONE!r}, name):
        assert all(str(path).startswith({str(home)!r}) for path in registry.fetch(name)), name
for name in ("han2021", "blobs-1-report", "default@v1"):
    try:
        registry.fetch(name)
    except mlsky.RegistryError as error:
        assert "MLSKY_WEIGHTS_URL" in str(error)
    else:
        raise AssertionError(name)
print(mlsky.__file__, mlsky.__version__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(home), "MLSKY_CACHE_DIR": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    file, version = result.stdout.split()
    assert Path(file) == home / "mlsky/__init__.py"
    assert version == mlsky.__version__
