"""Option files, progress of logs, citations, ``python -m mlsky``."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import click
import fakes
import numpy as np
import pytest
from command_line import error_of

from mlsky import cli, registry
from mlsky.cli.config import OWN, dump
from mlsky.cli.ensemble import ensemble
from mlsky.cli.simulate import simulate
from mlsky.sky import Sky

FILE = """
freqs = [93, "so_lat/f150"]
nside = 16
seed = 4
out = "a.h5"
components = ["tsz", "radio"]
stokes = "T"
flux_cut = [15, "150"]
monopole = false
"""


def test_options_from_a_file(record, capsys):
    Path("sky.toml").write_text(FILE)
    assert cli.main(["simulate", "--config", "sky.toml", "--seed", "5"]) == 0
    sky = Sky.read("a.h5")
    assert sky.meta["seed"] == 5  # the command line counts before the file
    assert [band.label for band in sky.bands] == ["93", "so_lat/f150"]
    assert sky.keys() == ("tsz", "radio")
    assert sky.meta["flux_cuts"] == [[15.0, "150"]]
    assert sky.meta["monopole_off"] == ["cib"]
    capsys.readouterr()
    # what is dumped is read back to the same options
    given = ["simulate", "--config", "sky.toml", "--out", "b.h5", "--beam", "400", "300"]
    assert cli.main([*given, "--dump-config"]) == 0
    text = capsys.readouterr().out
    assert not Path("b.h5").exists()
    Path("again.toml").write_text(text)
    assert cli.main(["simulate", "--config", "again.toml", "--dump-config"]) == 0
    assert capsys.readouterr().out == text
    assert cli.main(["simulate", "--config", "again.toml"]) == 0
    assert cli.main([*given, "--overwrite"]) == 0
    Sky.read("b.h5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("freq = 93", "'freq' is no option of simulate; may be beam, car"),
        ("freqs = [93", "cannot be read as TOML"),
        ("[freqs]\na = 1", "freqs is a table"),
    ],
)
def test_bad_files(record, capsys, text, message):
    Path("sky.toml").write_text(text)
    assert message in error_of(capsys, ["simulate", "--config", "sky.toml"])
    assert "no such file" in error_of(capsys, ["simulate", "--config", "none.toml"])


@pytest.mark.parametrize(
    "line",
    [
        *("flux_cut = 15", 'flux_cut = ["15", "150"]', "flux_cut = [15, 150, 3]"),
        *("flux_cut = [true, '150']", "flux_cut = [15, ['150']]", "flux_cut_mjy = '15'"),
        *("monopole = 2", "monopole = [1]", 'monopole = ["dust"]'),
        *("nside = [16, 32]", "nside = 16.5", "nside = true", "nside = '16'", "nside = {a = 1}"),
        *("kappa = 3", "haloes = [1]", "out = 3", 'out = ["x.h5"]'),
        *("seed = true", "seed = 1e3", "seed = 2020-01-01", "cmb_seed = 1\ncmb-seed = 1"),
        *("car = 600\ngeometry = 600", "car = true", "freqs = [[93, 94]]", "freqs = true"),
        *('weights = ["a", "b"]', "weights = 3", 'overwrite = "yes"', "fill_kappa = 1"),
        *("beam = [[1]]", "components = [true]", "kappa_kind = 1", "stokes = ['T']"),
    ],
)
def test_values_of_another_type(record, capsys, line):
    given = {"freqs": "[93]", "nside": "16", "out": '"x.h5"'}
    name = line.partition(" ")[0]
    given.pop("nside" if name == "car" else name, None)
    text = "".join(f"{key} = {value}\n" for key, value in given.items())
    Path("sky.toml").write_text(text + line)
    shown = {"seed": "seed = "}.get(name, name.replace("_", "-"))
    told = error_of(capsys, ["simulate", "--config", "sky.toml"])
    assert shown in told.replace("_", "-")
    assert not list(Path().glob("x.h5*"))


#: Words that a shell may pass as the value of an option.
ODD = [
    *("nan", "inf", "-inf", "-1", "0", "", "one", "1e400", "1e-7", "9" * 20, "0x10", " 5 ", "1,2"),
    *("true", "#x", "[1]", "{1}", "--x", "a b.h5", "it's.h5", 'say "x".h5', "back\\slash.h5"),
    *("é λ.h5", "\U0001f600.h5", "\x7f.h5", "line\nbreak.h5", "tab\t.h5", "\x01.h5", "\u2028.h5"),
]


def _called_with(command, words) -> tuple[dict[str, str], bytes]:
    """The values of a command's options, and what is dumped of them."""
    with command.make_context(command.name, list(words), parent=None) as ctx:
        return {k: repr(v) for k, v in ctx.params.items()}, dump(ctx)


@pytest.mark.parametrize("command", [simulate, ensemble])
def test_what_is_dumped_is_read_back_to_the_same(command, tmp_path):
    """Every option with every odd word that it does not refuse."""
    base = {"--freqs": ["93"], "--nside": ["16"], "--out": ["x.h5"]}
    params = {max(p.opts, key=len): p for p in command.params if p.name not in OWN}
    if command is ensemble:  # those of its own: the others are the same
        base["--seeds"] = ["0:3"]
        theirs = {p.name for p in simulate.params}
        params = {option: p for option, p in params.items() if p.name not in theirs}
    path, refused, kept = tmp_path / "again.toml", set(), set()
    for option, param in params.items():
        words = [[option, word, "150"][: 1 + param.nargs] for word in ODD]
        if isinstance(param.type, click.Choice):
            words += [[option, choice] for choice in param.type.choices]
        if param.is_flag:
            words = [[name] for name in param.opts + param.secondary_opts]
        for word in words:
            others = {k: v for k, v in base.items() if (option, k) != ("--car", "--nside")}
            others.pop(option, None)
            given = [one for name, values in others.items() for one in (name, *values)]
            try:
                called_with, dumped = _called_with(command, given + word)
            except click.ClickException:
                refused.add(option)
                continue
            path.write_bytes(dumped)
            assert _called_with(command, ["--config", path]) == (called_with, dumped), word
            kept.add(option)
    assert kept == set(params)
    numbers = {"--seeds", "--workers"} if command is ensemble else {"--nside", "--car", "--beam"}
    assert numbers <= refused


def test_a_name_that_is_no_text_is_not_dumped(record, capsys):
    given = ["simulate", "--freqs", "93", "--nside", "16", "--out", "caf\udce9.h5"]
    told = error_of(capsys, [*given, "--dump-config"])
    assert r"--out 'caf\udce9.h5': has bytes that are no text" in told


def test_a_range_of_too_many_seeds(record, capsys):
    given = ["ensemble", "--freqs", "93", "--nside", "16", "--out", "x", "--seeds"]
    assert "must have at most 1000000" in error_of(capsys, [*given, "0:1000000000000"])


def test_a_file_that_an_editor_began_with_a_mark(record, capsys):
    Path("sky.toml").write_text(FILE, encoding="utf-8-sig")
    assert cli.main(["simulate", "--config", "sky.toml", "--dump-config"]) == 0
    assert "nside = 16" in capsys.readouterr().out


def test_the_pixels_of_the_command_line_count(record, capsys):
    text = 'freqs = 93\nout = "x.h5"\nmonopole = ["cib"]\n'
    Path("sky.toml").write_text(text + "nside = 16\nflux_cut = [15, 150]\n")
    command = ["simulate", "--config", "sky.toml", "--dump-config"]
    assert cli.main([*command, "--car", "600", "--flux-cut-mjy", "7"]) == 0
    dumped = capsys.readouterr().out.splitlines()
    assert "car = 600.0" in dumped
    assert "flux_cut_mjy = 7.0" in dumped
    assert 'monopole = ["cib"]' in dumped
    assert not [line for line in dumped if line.startswith(("nside", "flux_cut ="))]
    assert cli.main(command) == 0
    dumped = capsys.readouterr().out.splitlines()
    assert {"nside = 16", 'flux_cut = [15.0, "150"]'} <= set(dumped)
    Path("sky.toml").write_text(text + "car = 600\n")
    assert cli.main([*command[:-1], "--nside", "16"]) == 0
    assert Sky.read("x.h5").geometry.nside == 16
    Path("x.h5").unlink()
    capsys.readouterr()
    # both on the command line, or both in the file, are one too many
    assert "give one of" in error_of(capsys, [*command[:-1], "--nside", "16", "--car", "600"])
    Path("sky.toml").write_text(text + "car = 600\nnside = 16\n")
    assert "give one of" in error_of(capsys, command[:-1])


def test_pixels_are_asked_for_in_words_of_the_command_line(record, capsys):
    begun = ["simulate", "--freqs", "93", "--out", "a.h5"]
    assert "give one of --nside N" in error_of(capsys, begun)
    assert "give one of" in error_of(capsys, [*begun, "--nside", "16", "--car", "600"])


def test_a_log_has_lines_and_quiet_has_none(record, capsys):
    command = ["simulate", "--freqs", "93", "--nside", "16", "--out", "a.h5"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert 3 < len(lines) < 40
    assert all("%" in line and "\r" not in line for line in lines)
    assert lines[-1].endswith("done")
    assert cli.main(["--quiet", *command, "--overwrite"]) == 0
    assert capsys.readouterr().err == ""
    assert "give one of the two" in error_of(capsys, ["--quiet", "--verbose", *command])
    # errors come before any progress
    assert cli.main([*command[:-1], "b.h5", "--unit", "mK"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_has_a_bar_which_begins_with_the_work(record, capsys, monkeypatch):
    command = ["simulate", "--freqs", "93", "--nside", "16", "--out", "a.h5"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main([*command, "--unit", "mK"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("mlsky: error: unit='mK'")
    assert told.count("\n") == 1
    assert cli.main(["ensemble", *command[1:], "--seeds", "3:3"]) == 2
    assert capsys.readouterr().err.startswith("mlsky: error: seeds")
    assert cli.main(command) == 0
    told = capsys.readouterr().err
    assert "\rdone" in told
    assert "100% |" in told


def test_what_to_cite(record, capsys):
    assert cli.main(["cite", "han2021"]) == 0
    assert "2021PhRvD.104l3521H" in capsys.readouterr().out
    assert cli.main(["simulate", "--freqs", "93", "--nside", "16", "--out", "a.h5"]) == 0
    capsys.readouterr()
    assert cli.main(["cite", "a.h5"]) == 0
    out = capsys.readouterr().out
    assert "HEALPix" in out
    assert "CAMB" in out
    assert "unknown" in error_of(capsys, ["cite", "none"])
    assert "no such file" in error_of(capsys, ["cite", "none.h5"])


def test_what_to_cite_for_weights_of_a_file(record, capsys, tmp_path, monkeypatch):
    """Those of the registry by their content, others by name; whether the file is there or not."""
    mine = fakes.coarse_weights(tmp_path / "mine.safetensors")
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    other = fakes.FakeWeights(sha256=digest)
    monkeypatch.setattr("mlsky.painting.foregrounds.select", lambda name, geometry: other)
    command = ["simulate", "--freqs", "93", "--nside", "1", "--weights", str(mine)]
    for name in ("a.h5", "a.fits"):
        assert cli.main([*command, "--out", name]) == 0

    def told(what):
        capsys.readouterr()
        assert cli.main(["cite", str(what)]) == 0
        return capsys.readouterr().out

    for what in ("a.h5", "a.fits", mine):
        line = f"weights that the registry does not have (sha256 {digest[:16]}): cite what"
        assert f"mine.safetensors       {line}" in told(what)
        assert "CAMB" in told(what)
    publish = {"kind": "default", "licence": "x", "recipe": {}, "data": {}, "scores": {}}
    registry.add(
        "known",
        [{"path": mine, "pixel_arcmin": 20}],
        cite=[{"key": "2026mine", "why": "my networks"}],
        inputs=["kappa_in"],
        outputs=["tsz"],
        registry=tmp_path / "registry" / "registry.yaml",
        **publish,
    )
    monkeypatch.setenv("MLSKY_REGISTRY", str(tmp_path / "registry" / "registry.yaml"))
    for what in ("a.h5", "a.fits", mine):
        assert "2026mine               my networks" in told(what)
    mine.unlink()
    assert "2026mine" in told("a.h5")
    assert "cannot be read (No such file" in error_of(capsys, ["cite", str(mine)])
    mine.write_text("no weights")
    assert "not a safetensors file" in error_of(capsys, ["cite", str(mine)])


def test_python_m_mlsky():
    done = subprocess.run(
        [sys.executable, "-m", "mlsky", "--help"], capture_output=True, text=True, check=True
    )
    assert "Exit status: 0 done; 1 a bug of mlsky; 2 wrong input" in " ".join(done.stdout.split())
    assert "cite" in done.stdout
    assert np.all([name in done.stdout for name in ("simulate", "ensemble", "validate")])
