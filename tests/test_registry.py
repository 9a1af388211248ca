"""Registry: names, places and their order, hashes always checked, versions never edited."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from mlsky import registry
from mlsky.errors import MissingDependencyError, RegistryError
from mlsky.io import fetch as copies
from mlsky.io import registry_file
from mlsky.io.fetch import package_data

CONTENT = b"not really weights " * 50
# Seconds until a server with half a second of patience is given up, on a crowded machine.
LONGEST_WAIT = 20.0
# Characters of an error that count as one line, besides the path.
LONGEST_LINE = 400


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path / "cache"))
    logging.getLogger("pooch").setLevel(logging.ERROR)


@pytest.fixture
def book(tmp_path):
    """A registry of two entries and three versions, files in weights/ beside it."""
    path = tmp_path / "book" / "registry.yaml"
    path.parent.mkdir()
    path.write_text("# First line.\n# Second line.\n")
    publish(path, "painter", b"one", default=True)
    publish(path, "painter", CONTENT, default=True)
    publish(path, "han2021", b"three")
    return path


def publish(path, name, content, default=False, urls=(), version=None):
    text = f"{name}-{hashlib.sha256(content).hexdigest()[:6]}.safetensors"
    file = path.parent.parent / text
    file.write_bytes(content)
    return registry.add(
        name,
        [{"path": file, "pixel_arcmin": 2.0, "urls": urls}],
        kind="default" if name == "painter" else "han2021",
        licence="CC-BY-4.0",
        cite=[{"key": "2021JCAP...Han", "why": "the networks"}],
        inputs=["kappa"],
        outputs=("tsz", "ksz"),
        recipe={"steps": 3},
        data={"name": "truth-v1"},
        scores={"spectra": 0.1},
        score="most goals met",
        version=version,
        default=default,
        registry=path,
    )


def stored(path, name="painter", version=None):
    return path.parent / "weights" / registry.describe(name, version, path)["files"][0]["file"]


#: Bytes of the shipped registry, which is parsed for every sky. A version of a network is 700 of
#: them; the limit (our choice) is against recipes and scores, which are thousands.
REGISTRY_BYTES = 20_000


def test_shipped_registry_is_whole():
    assert (package_data() / "registry.yaml").stat().st_size <= REGISTRY_BYTES
    assert registry.verify() is not None
    for name in registry.names():
        for version in registry.versions(name):
            for file in registry.fetch(name, version):
                assert file.stat().st_size < 25 * 2**20
            assert registry.cite(name, version)
            assert registry.describe(name, version)["score"]
            assert registry.report(name, version)["scores"]


def test_names_versions_and_default(book, monkeypatch):
    assert registry.names(book) == ["painter", "han2021"]
    assert registry.versions("painter", book) == ["v1", "v2"]
    monkeypatch.setenv("MLSKY_REGISTRY", str(book))
    found = registry.describe()
    assert (found["name"], found["version"], found["default"]) == ("painter", "v2", True)
    assert found["outputs"] == ["tsz", "ksz"]
    assert found["files"][0]["bytes"] == len(CONTENT)
    assert found["files"][0]["pixel_arcmin"] == 2.0
    assert registry.describe("painter@v1") == registry.describe("painter", "v1")
    assert registry.cite("han2021") == [{"key": "2021JCAP...Han", "why": "the networks"}]
    assert found["score"] == "most goals met"
    assert not {"recipe", "data", "scores"} & set(found)
    found["files"][0]["sha256"] = "changed"
    assert registry.describe()["files"][0]["sha256"] != "changed"


def test_report_of_a_version(book, tmp_path, monkeypatch):
    """In a file beside the weights, or, of a registry of before, in the entry itself."""
    told = {"recipe": {"steps": 3}, "data": {"name": "truth-v1"}, "scores": {"spectra": 0.1}}
    assert registry.report("painter", "v1", book) == told
    (book.parent / "weights" / "painter-v1.json").unlink()
    with pytest.raises(RegistryError, match=r"painter v1: its report painter-v1\.json is not on"):
        registry.report("painter", "v1", book)
    monkeypatch.setenv("MLSKY_DATA_DIR", str(tmp_path))
    (tmp_path / "painter-v1.json").write_text('{"scores": {}}')
    assert registry.report("painter", "v1", book) == {"scores": {}}
    (tmp_path / "painter-v1.json").write_text("{")
    with pytest.raises(RegistryError, match=r"painter-v1\.json: cannot be read"):
        registry.report("painter", "v1", book)
    entries = yaml.safe_load(book.read_text())
    entries["painter"]["versions"]["v1"] |= told
    book.write_text(yaml.safe_dump(entries))
    assert registry.report("painter", "v1", book) == told
    assert "scores" not in registry.describe("painter", "v1", book)


def test_a_registry_is_parsed_once(book, monkeypatch):
    """Until its file changes."""
    registry_file._parsed.cache_clear()
    parsed = []
    real = registry_file.read_anew

    def read(path):
        parsed.append(1)
        return real(path)

    monkeypatch.setattr(registry_file, "read_anew", read)
    registry.describe(registry=book)
    registry.fetch(registry=book)
    registry.versions("painter", book)
    assert len(parsed) == 1
    publish(book, "painter", b"four")
    parsed.clear()
    for _ in range(2):
        assert registry.versions("painter", book) == ["v1", "v2", "v3"]
    assert len(parsed) == 1


def test_one_file_of_several_is_fetched_and_hashed(tmp_path):
    path = tmp_path / "mine" / "registry.yaml"
    files = []
    for pixel in (0.5, 2.0):
        file = tmp_path / f"{pixel:g}.safetensors"
        file.write_bytes(b"weights of %g" % pixel)
        files.append({"path": file, "pixel_arcmin": pixel})
    told = {"recipe": {}, "data": {}, "scores": {}}
    registry.add(
        "two", files, kind="a", licence="x", cite=[], inputs=[], outputs=[], registry=path, **told
    )
    folder = path.parent / "weights"
    (folder / "0.5.safetensors").unlink()
    assert registry.fetch("two", registry=path, file="2.safetensors") == [folder / "2.safetensors"]
    with pytest.raises(RegistryError, match=r"0\.5\.safetensors is not on this machine"):
        registry.fetch("two", registry=path)
    with pytest.raises(RegistryError, match=r"has no file 'x'; there are: 0\.5\.safetensors, 2\."):
        registry.fetch("two", registry=path, file="x")


def test_versions_are_ordered_as_numbers(book):
    for _ in range(9):
        publish(book, "han2021", b"three")
    assert registry.describe("han2021", registry=book)["version"] == "v10"


def test_own_folder_then_cache_then_shipped(book, tmp_path, monkeypatch):
    shipped = stored(book)
    assert registry.fetch(registry=book) == [shipped]
    digest = hashlib.sha256(CONTENT).hexdigest()
    cached = tmp_path / "cache" / "weights" / digest[:16] / shipped.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert registry.fetch(registry=book) == [cached]
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("MLSKY_DATA_DIR", str(own))
    assert registry.fetch(registry=book) == [cached]
    (own / shipped.name).write_bytes(CONTENT)
    assert registry.fetch(registry=book) == [own / shipped.name]
    (check,) = [c for c in registry.verify("painter", book) if c.version == "v2"]
    assert check.paths == (own / shipped.name, cached, shipped)
    # A bad copy in the cache is passed over; one in a folder of your own is an error.
    cached.write_bytes(b"bad")
    (own / shipped.name).unlink()
    assert registry.fetch(registry=book) == [shipped]
    (own / shipped.name).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(RegistryError, match="is altered"):
        registry.fetch(registry=book)


def test_truncated_and_missing_files(book):
    file = stored(book)
    file.write_bytes(CONTENT[:100])
    with pytest.raises(RegistryError, match=f"has 100 of {len(CONTENT)} bytes"):
        registry.fetch(registry=book)
    with pytest.raises(RegistryError, match=r"painter v2.*has 100 of"):
        registry.verify(registry=book)
    assert len(registry.verify("painter@v1", book)) == 1
    file.unlink()
    for call in (registry.fetch, registry.verify):
        with pytest.raises(RegistryError, match="MLSKY_DATA_DIR"):
            call("painter", registry=book)


@pytest.fixture
def server(tmp_path):
    """A web server of this machine: its address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_fetch_from_urls(book, server, tmp_path):
    address, folder = server
    (folder / "good").write_bytes(b"new content")
    (folder / "bad").write_bytes(b"other content")
    urls = [f"{address}/absent", f"{address}/bad", f"{address}/good"]
    publish(book, "han2021", b"new content", urls=urls)
    stored(book, "han2021").unlink()
    (check,) = registry.verify("han2021@v2", book)
    assert check.paths == ()
    assert check.urls == tuple(urls)
    (path,) = registry.fetch("han2021", registry=book)
    assert path.read_bytes() == b"new content"
    assert path.is_relative_to(tmp_path / "cache")
    (folder / "good").unlink()
    assert registry.fetch("han2021", registry=book) == [path]
    path.write_bytes(b"damaged")
    with pytest.raises(RegistryError, match=r"cannot be fetched \(.*absent.*bad.*good"):
        registry.fetch("han2021", registry=book)


def test_fetch_from_a_copy_of_the_repository(book, server, tmp_path, monkeypatch):
    address, folder = server
    publish(book, "han2021", b"new content")
    file = stored(book, "han2021")
    file.rename(folder / file.name)
    with pytest.raises(RegistryError, match=r"no url; .*MLSKY_DATA_DIR.*MLSKY_WEIGHTS_URL"):
        registry.fetch("han2021", registry=book)
    monkeypatch.setenv("MLSKY_WEIGHTS_URL", f"{address}/")
    (path,) = registry.fetch("han2021", registry=book)
    assert path.read_bytes() == b"new content"
    assert path.is_relative_to(tmp_path / "cache")


class Misbehaved(http.server.BaseHTTPRequestHandler):
    """A server that gives without end, or stops, or takes its time with every byte."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        end = time.monotonic() + 5.0
        with contextlib.suppress(OSError):
            if self.path == "/slow-header":
                self._drip(b"HTTP/1.0 200 OK", end)
                return
            self.send_response(200)
            self.end_headers()
            if self.path == "/endless":
                while time.monotonic() < end:
                    self.wfile.write(b"x" * 65536)
            elif self.path == "/slow":
                self._drip(b"x" * 1000, end)
            elif self.path == "/stalled":
                self.wfile.write(b"x")
                time.sleep(3.0)

    def _drip(self, data, end):
        for byte in data:
            if time.monotonic() > end:
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("endless", "gives more than the 11 bytes"),
        ("slow", r"given up|timed out"),
        ("stalled", r"given up|timed out"),
        ("slow-header", r"given up|timed out"),
    ],
)
def test_servers_that_misbehave(book, monkeypatch, path, message):
    monkeypatch.setattr(copies, "PATIENCE", 0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaved) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}/{path}"
        publish(book, "han2021", b"new content", urls=[address])
        stored(book, "han2021").unlink()
        started = time.monotonic()
        with pytest.raises(RegistryError, match=message):
            registry.fetch("han2021", registry=book)
        assert time.monotonic() - started < LONGEST_WAIT
        running.shutdown()
    assert not any(path.is_file() for path in (book.parent.parent / "cache").rglob("*"))


def test_addresses_of_other_kinds(book):
    publish(book, "han2021", b"new content", urls=["file:///etc/passwd", "gopher://x/y"])
    stored(book, "han2021").unlink()
    with pytest.raises(RegistryError, match="must begin with http://, https:// or doi:"):
        registry.fetch("han2021", registry=book)


def at_once(count, code, *arguments):
    """Run a program in several processes that begin their work together."""
    begin = f"import sys\nsys.stdin.read()\n{code}"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", begin, *map(str, arguments), str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    found = []
    for run in runs:
        run.stdin.close()
        run.stdin = None
    for run in runs:
        found.append(run.communicate())
        assert run.returncode == 0, found[-1]
    return [out for out, _ in found]


def test_many_processes_download_once(book, tmp_path):
    asked = []

    class Slow(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.3)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"new content")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        publish(book, "han2021", b"new content", urls=[f"http://127.0.0.1:{running.server_port}/a"])
        stored(book, "han2021").unlink()
        code = (
            "from concurrent.futures import ThreadPoolExecutor\nfrom mlsky import registry\n"
            "with ThreadPoolExecutor(4) as pool:\n"
            "    found = [pool.submit(registry.fetch, 'han2021', registry=sys.argv[1])"
            " for _ in range(4)]\nprint(*{str(f.result()[0]) for f in found})"
        )
        printed = at_once(4, code, book)
        running.shutdown()
    assert len(asked) == 1
    (path,) = {text.strip() for text in printed}
    assert Path(path).read_bytes() == b"new content"


def test_many_processes_that_add_lose_nothing(book, tmp_path):
    code = (
        "from pathlib import Path\nfrom mlsky import registry\n"
        "for j in range(3):\n"
        "    file = Path(sys.argv[2], f'{sys.argv[3]}-{j}.safetensors')\n"
        "    file.write_text(file.name)\n"
        "    print(registry.add('painter', [{'path': file, 'pixel_arcmin': 2.0}], kind='default',"
        " licence='x', cite=[], inputs=[], outputs=[], recipe={}, data={}, scores={},"
        " registry=sys.argv[1]))"
    )
    printed = at_once(4, code, book, tmp_path)
    assert sorted(" ".join(printed).split()) == sorted(f"v{i}" for i in range(3, 15))
    assert len(registry.versions("painter", book)) == 2 + 4 * 3
    assert len(registry.verify("painter", book)) == 2 + 4 * 3


def test_fetch_without_pooch(book, monkeypatch):
    publish(book, "han2021", b"new content", urls=["http://127.0.0.1:9/x"])
    stored(book, "han2021").unlink()
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlsky\[fetch\]'"):
        registry.fetch("han2021", registry=book)


def test_cache_folder_without_pooch_or_variable(book, tmp_path, monkeypatch):
    monkeypatch.delenv("MLSKY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with_pooch = registry.cache_dir()
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert registry.cache_dir() == tmp_path / "xdg" / "mlsky"
    if sys.platform.startswith("linux"):
        assert with_pooch == registry.cache_dir()


def test_add_leaves_older_versions_and_the_comment(book):
    before = yaml.safe_load(book.read_text())
    assert publish(book, "painter", b"four") == "v3"
    text = book.read_text()
    assert text.startswith("# First line.\n# Second line.\npainter:")
    after = yaml.safe_load(text)
    assert after["painter"]["versions"].pop("v3")["files"][0]["urls"] == []
    assert after == before
    publish(book, "han2021", b"five", default=True)
    assert registry.describe(registry=book)["name"] == "han2021"
    assert not registry.describe("painter", registry=book)["default"]
    names = {p.name for p in book.parent.iterdir()}
    assert names == {"registry.yaml", "weights"}


def test_add_makes_a_registry(tmp_path):
    path = tmp_path / "mine" / "registry.yaml"
    assert publish(path, "painter", b"x", default=True) == "v1"
    assert registry.names(path) == ["painter"]


def test_add_refuses(book, tmp_path):
    text = book.read_text()
    with pytest.raises(ValueError, match="published versions are not edited"):
        publish(book, "painter", b"four", version="v1")
    with pytest.raises(ValueError, match="must be v1, v2"):
        publish(book, "painter", b"four", version="1.0")
    with pytest.raises(ValueError, match="name='default'"):
        publish(book, "default", b"four")
    stored(book).write_bytes(b"other")
    with pytest.raises(ValueError, match="another file of that name"):
        publish(book, "painter", CONTENT)
    arguments = {"licence": "x", "cite": [], "inputs": [], "outputs": [], "recipe": {}, "data": {}}
    file = {"path": stored(book), "pixel_arcmin": 2}
    with pytest.raises(ValueError, match="plain finite values"):
        registry.add(
            "new", [file], kind="a", scores={"x": float("nan")}, registry=book, **arguments
        )
    with pytest.raises(ValueError, match="painter is of kind 'default'"):
        registry.add("painter", [file], kind="a", scores={}, registry=book, **arguments)
    file = {"path": tmp_path / "none", "pixel_arcmin": 2}
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.add("new", [file], kind="a", scores={}, registry=book, **arguments)
    assert book.read_text() == text


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nothing", None, "weights 'nothing': unknown; there are: default, painter, han2021"),
        ("painter", "v7", "'painter' version 'v7': unknown; there are: v1, v2"),
        ("painter@v7", None, "'painter' version 'v7': unknown; there are: v1, v2"),
    ],
)
def test_unknown_name_or_version(book, name, version, message):
    for call in (registry.describe, registry.fetch, registry.cite):
        with pytest.raises(RegistryError, match=message):
            call(name, version, book)


def test_no_default(tmp_path):
    path = tmp_path / "mine" / "registry.yaml"
    publish(path, "painter", b"x")
    with pytest.raises(RegistryError, match="no entry is marked default; there are: painter"):
        registry.describe(registry=path)


SHA256 = "a" * 64
GOOD_FILE = f"{{file: a, sha256: {SHA256}, bytes: 9, pixel_arcmin: 2}}"


def version(files=f"[{GOOD_FILE}]", more=""):
    return f"a: {{kind: k, versions: {{v1: {{files: {files}{more}}}}}}}"


def file(**changes):
    """A registry of one file, with keys changed, or left out if they are None."""
    keys = {"file": "x", "sha256": SHA256, "bytes": "9", "pixel_arcmin": "2", **changes}
    inside = ", ".join(f"{key}: {value}" for key, value in keys.items() if value is not None)
    return version(f"[{{{inside}}}]")


DEFAULT_ENTRY = version().replace("kind: k", "kind: k, default: true")
TWO_DEFAULTS = f"{DEFAULT_ENTRY}\n{DEFAULT_ENTRY.replace('a:', 'b:', 1)}"
BOMB = "".join(f"  b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not plain YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not plain YAML"),
        ("a: 2026-99-99", "not plain YAML"),
        ("a: !!int " + "9" * 9000, "not plain YAML"),
        ("a: &x {b: *x}", "line 1: anchors and aliases are not read"),
        (f"a:\n  b0: &b0 [x]\n{BOMB}", "line 2: anchors and aliases are not read"),
        ("[" * 30, "more than 20 levels"),
        # from 6.0.4 on PyYAML has a limit too
        ("[" * 100_000, "more than 20 levels|maximum nesting depth"),
        ("a: " * 3 + "b", "not plain YAML"),
        ("{" * 30, "more than 20 levels|no text"),
        ("? [a]\n: b", "line 1: a key that is no text"),
        ("a: 1\na: 2", "line 2: 'a' is there twice"),
        ("a: {kind: k, versions: {v1: {}, v1: {}}}", "'v1' is there twice"),
        ("\0", "not plain YAML"),
        ("\ud800", "cannot be read"),
        ("[1]", r"the whole is \[1\]: must be a mapping"),
        ("text", "the whole is 'text': must be a mapping"),
        ("default: {versions: {}}", "the name of an entry is 'default': must be"),
        ("1: {versions: {}}", "the name of an entry is 1: must be"),
        ("a: 3", "a is 3: must be a mapping with kind"),
        ("a: {versions: {}}", "kind of a is None: must be text"),
        ("a: {kind: k, default: 1, versions: {}}", "default of a is 1: must be true or false"),
        ("a: {kind: k, versions: {}}", "versions of a is {}: must be a mapping of v1"),
        ("a: {kind: k, versions: [v1]}", r"versions of a is \['v1'\]: must be a mapping of v1"),
        ("a: {kind: k, versions: {1: {}}}", "a version of a is 1: must be v1"),
        ("a: {kind: k, versions: {v9999999: {}}}", "a version of a is 'v9999999': must be v1"),
        ("a: {kind: k, versions: {v1: {}}}", "files of a v1 is None: must be a list"),
        ("a: {kind: k, versions: {v1: null}}", "a v1 is None: must be a mapping"),
        (version("[]"), r"files of a v1 is \[\]: must be a list"),
        (version("[3]"), "a file of a v1 is 3: must be a mapping"),
        (version(more=", licence: 3"), "licence of a v1 is 3: must be text"),
        (version(more=", score: [1]"), r"score of a v1 is \[1\]: must be text"),
        (version(more=", inputs: kappa"), "inputs of a v1 is 'kappa': must be a list of names"),
        (version(more=", outputs: [[]]"), "outputs of a v1 is .*: must be a list of names"),
        (version(more=", cite: [x]"), "cite of a v1 is .*: must be a list of {key"),
        (version(more=", cite: [{key: 3, why: x}]"), "cite of a v1 is .*: must be a list of {key"),
        (file(file=None), "file of a v1 is None: must be a file name"),
        (file(file="../x"), r"file of a v1 is '\.\./x': must be a file name without folders"),
        (file(sha256="1"), "sha256 of x of a v1 is 1: must be 64 hexadecimal digits"),
        (file(bytes=None), "bytes of x of a v1 is None: must be a whole number"),
        (file(bytes="1e999"), "bytes of x of a v1 is .*: must be a whole number"),
        (file(bytes="-3"), "bytes of x of a v1 is -3: must be a whole number"),
        (file(bytes="true"), "bytes of x of a v1 is True: must be a whole number"),
        (file(pixel_arcmin=None), "pixel_arcmin of x of a v1 is None: must be a number"),
        (file(pixel_arcmin=".nan"), "pixel_arcmin of x of a v1 is nan: must be a number"),
        (file(pixel_arcmin="two"), "pixel_arcmin of x of a v1 is 'two': must be a number"),
        (file(urls="http"), "urls of x of a v1 is 'http': must be a list of addresses"),
        (file(urls="[1]"), r"urls of x of a v1 is \[1\]: must be a list of addresses"),
        (
            TWO_DEFAULTS,
            "default is 'a, b': must be one entry only",
        ),
    ],
)
def test_bad_registries(tmp_path, text, message):
    path = tmp_path / "registry.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    started = time.monotonic()
    with pytest.raises(RegistryError, match=message) as caught:
        registry.names(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + LONGEST_LINE
    assert time.monotonic() - started < LONGEST_WAIT


def test_registries_that_are_no_files(tmp_path):
    fifo, huge = tmp_path / "fifo", tmp_path / "huge.yaml"
    os.mkfifo(fifo)
    with huge.open("wb") as opened:
        opened.truncate(40 * 2**30)
    for path, message in (
        (fifo, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (huge, "at most 4194304 are read"),
        (tmp_path, "cannot be read"),
        (Path("a\0b"), "cannot be read"),
        (tmp_path / ("x" * 400), "cannot be read"),
    ):
        with pytest.raises(RegistryError, match=message) as caught:
            registry.names(path)
        assert "\n" not in str(caught.value)


def test_what_is_there_twice_is_written_twice(book):
    """A list that two entries share would be an alias, which is not read."""
    shared = ["kappa"]
    for name in ("one", "two"):
        registry.add(
            name,
            [{"path": stored(book), "pixel_arcmin": 2.0}],
            kind="a",
            licence="x",
            cite=[],
            inputs=shared,
            outputs=shared,
            recipe={},
            data={},
            scores={},
            registry=book,
        )
    assert "&" not in book.read_text()
    assert registry.describe("two", registry=book)["inputs"] == shared


def test_reports_of_strangers(book):
    place = book.parent / "weights" / "painter-v1.json"
    for text in ("[" * 100_000, "[1]", '{"a": 1e400}', "NaN", '{"a":' * 60 + "1" + "}" * 60):
        place.write_text(text)
        with pytest.raises(RegistryError, match=r"painter-v1\.json: cannot be read") as caught:
            registry.report("painter", "v1", book)
        assert "\n" not in str(caught.value)


def test_absent_registry(tmp_path):
    with pytest.raises(RegistryError, match="MLSKY_REGISTRY"):
        registry.names(tmp_path / "none.yaml")


def test_import_is_light():
    code = "import sys, mlsky.registry; print(*({'torch', 'pooch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_reports_of_the_first_release_have_tolerances():
    """They were called floors."""
    rows = registry.report("default", "v4")["scores"]
    text = json.dumps(rows)
    assert '"tolerance"' in text
    assert '"floor"' not in text
