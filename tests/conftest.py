"""What holds for every test: no network, no shared random state, a cache of its own."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

#: One cache for the whole session, so that a theory spectrum is computed once.
_CACHE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # Before anything imports mlsky or matplotlib: both read the environment.
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist share that of their parent
        config.stash[_CACHE] = Path(tempfile.mkdtemp(prefix="mlsky-tests-"))
        os.environ["MLSKY_CACHE_DIR"] = str(config.stash[_CACHE])
    os.environ["MPLBACKEND"] = "Agg"
    # A developer's own weights or registry must not decide whether a test passes.
    for name in ("MLSKY_DATA_DIR", "MLSKY_REGISTRY"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CACHE in config.stash:
        shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def spectra_of_the_package():
    """Put the spectra of the package into the session's cache, as if CAMB had given them.

    A run of CAMB takes half a minute. `test_without` has one, and compares the two.
    """
    from mlsky.plugins import camb
    from mlsky.theory import parse, spectra

    path = spectra.cache_dir() / f"{spectra._key(parse(), 'camb', camb.SETTINGS)}.npz"
    if not path.exists():  # nor made by another worker
        spectra.keep(path, spectra._shipped(parse()))


def _global_random_state() -> dict[str, bytes]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - watched, never used
    numpy_state = state["state"]["key"].tobytes() + bytes(str(state["state"]["pos"]), "ascii")
    states = {"numpy": numpy_state + bytes(str(state["has_gauss"]), "ascii")}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone():
    """Fail a test that draws from, or seeds, the shared numpy or torch generator."""
    before = _global_random_state()
    yield
    after = _global_random_state()
    if "torch" in after and "torch" not in before:
        # Loaded by this test: its generator should still be as its own seed left it.
        torch = sys.modules["torch"]
        fresh = torch.Generator().manual_seed(torch.initial_seed())
        before["torch"] = fresh.get_state().numpy().tobytes()
    changed = [name for name in after if after[name] != before[name]]
    if changed:
        pytest.fail(
            f"the global random state of {' and '.join(changed)} changed: "
            "draw from mlsky.seeds.generator or a torch.Generator instead"
        )


def _open_hdf5() -> set[str]:
    """Names of the HDF5 files that are open."""
    h5py = sys.modules.get("h5py")
    if h5py is None:
        return set()
    files = h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    return {h5py.h5f.get_name(file).decode() for file in files}


@pytest.fixture(autouse=True)
def hdf5_files_are_closed():
    """Fail a test after which an HDF5 file is open that was not before."""
    before = _open_hdf5()
    yield
    left = _open_hdf5() - before
    if left:
        pytest.fail(f"left open: {', '.join(sorted(left))}")


def _is_local(family: int, address) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = address[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Refuse every connection that leaves this machine, but in tests marked network."""
    if request.node.get_closest_marker("network"):
        return

    class LocalSocket(socket.socket):
        def connect(self, address):
            if not _is_local(self.family, address):
                raise PermissionError(f"a test may not connect to {address!r}: mark it network")
            return super().connect(address)

        def connect_ex(self, address):
            if not _is_local(self.family, address):
                raise PermissionError(f"a test may not connect to {address!r}: mark it network")
            return super().connect_ex(address)

    real_lookup = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host is not None and not _is_local(socket.AF_INET, (host,)):
            raise PermissionError(f"a test may not look up {host!r}: mark it network")
        return real_lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", LocalSocket)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def camb_as_it_was():
    """Undo what CCL writes into CAMB's global settings, where a test calls CCL itself."""
    before = getattr(getattr(sys.modules.get("camb"), "config", None), "AccuracyTarget", None)
    yield
    if "camb" in sys.modules:
        config = sys.modules["camb"].config
        if before is not None and hasattr(config, "AccuracyTarget"):
            config.AccuracyTarget = before
