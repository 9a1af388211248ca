"""The command line itself: usage, help, errors and interruptions."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click
import pytest
from command_line import BASE, error_of

import mlsky
from mlsky import cli
from mlsky.cli.options import ManyValues


@pytest.mark.parametrize("arguments", [["simulate"], ["simulate", "--freqs"], ["paint"]])
def test_wrong_usage(record, capsys, arguments):
    error_of(capsys, arguments)


def commands(group=cli.cli, path=()):
    """Every command with its name, as words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


SEVERAL = [
    (path, option)
    for path, command in commands()
    for option in command.params
    if isinstance(option, click.Option)
    and (option.nargs > 1 or (option.multiple and isinstance(command, ManyValues)))
]


@pytest.mark.parametrize(
    ("path", "option"), SEVERAL, ids=[f"{path[-1]}-{option.name}" for path, option in SEVERAL]
)
def test_an_option_of_several_values_takes_no_other_option_for_one(record, capsys, path, option):
    name = option.opts[0]
    for given in range(option.nargs):
        words = [name, *["5"] * given]
        others = [words, [f"{name}=5", *words[2:]]] if given else [words]
        for some in others:
            for after in ([], ["--seed", "1"], ["--unknown", "x"]):
                told = error_of(capsys, [*path, *some, *after])
                assert f": must be {name} {option.metavar or 'a value'}" in told
                assert "--unknown" not in told


def test_a_cut_without_its_band_is_told_as_such(record, capsys):
    told = error_of(capsys, [*BASE, "--flux-cut", "15", "--out", "x.h5"])
    assert "error: --flux-cut 15: must be --flux-cut MJY BAND (Leave sources out that " in told
    assert "15 150" in told
    for given in (["--flux-cut", "15", "145"], ["--flux-cut=15", "145"]):
        out = f"{len(given)}.h5"
        assert cli.main([*BASE, "--components", "radio", *given, "--out", out]) == 0
        assert mlsky.Sky.read(out).meta["flux_cuts"] == [[15.0, "145"]]


def test_options_of_several_values_are_of_commands_that_check_them():
    for _, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and option.nargs > 1:
                assert isinstance(command, ManyValues)


def test_help_and_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mlsky, version {mlsky.__version__}"
    for arguments in (["--help"], ["simulate", "-h"], ["weights", "--help"], ["train", "-h"]):
        assert cli.main(arguments) == 0
        assert "Usage: mlsky" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert "simulate" in capsys.readouterr().err


def test_help_sets_using_apart_from_training(capsys):
    assert cli.main(["--help"]) == 0
    use, train = capsys.readouterr().out.split("Make and use skies:")[1].split("Train and judge")
    assert [line.split()[0] for line in use.splitlines() if line.strip()] == [
        *("simulate", "ensemble", "plot", "clusters", "verify", "weights", "cite")
    ]
    shown = {line.split()[0] for line in train.splitlines()[1:] if line.strip()}
    assert shown == set(cli.cli.commands) - {line.split()[0] for line in use.split("\n") if line}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mlsky ens", ["ensemble"]),
        ("mlsky simulate --freqs 93 145 --ka", ["--kappa", "--kappa-kind"]),
        ("mlsky simulate --config none.toml --kappa-kind non", ["nonlinear"]),
        ("mlsky ensemble --dump", ["--dump-config"]),
    ],
)
def test_shell_completion(words, found, capsys, monkeypatch):
    """What the script that the shell loads asks `mlsky` for."""
    monkeypatch.setenv("_MLSKY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as done:
        cli.main([])
    assert done.value.code == 0
    assert capsys.readouterr().out.split() == [f"plain,{word}" for word in found]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_of_completion(shell, capsys, monkeypatch):
    monkeypatch.setenv("_MLSKY_COMPLETE", f"{shell}_source")
    # click asks the bash that is there for its version
    with pytest.raises(SystemExit) as done:
        cli.main([])
    assert done.value.code == 0
    assert "_MLSKY_COMPLETE" in capsys.readouterr().out


def test_verbose_shows_what_is_logged(record, capsys, monkeypatch):
    """And quiet no progress, in whichever order a person gives them."""
    import logging

    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.root.level
    try:
        assert cli.main(["--verbose", *BASE, "--out", "a.h5"]) == 0
        assert logging.root.level == logging.INFO
    finally:
        logging.root.setLevel(level)
    capsys.readouterr()
    assert cli.main(["-q", *BASE, "--out", "b.h5"]) == 0
    assert capsys.readouterr().err == ""


def test_help_is_light():
    code = (
        "import sys; from mlsky import cli; cli.main(['simulate', '--help'])\n"
        "heavy = {'torch', 'numpy', 'healpy', 'astropy', 'camb', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "[]"


def test_interrupted(record, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlsky.io.hdf5._write_table", interrupt)
        assert cli.main([*BASE, "--out", "sky.h5"]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert os.listdir() == ["sky.h5.partial"]
    assert cli.main([*BASE, "--out", "sky.h5"]) == 0
    assert os.listdir() == ["sky.h5"]


def test_errors_of_the_file_system_are_one_line(record, capsys, monkeypatch):
    def full(request):
        raise OSError(28, "No space left on device", "sky.h5.partial")

    monkeypatch.setattr("mlsky.simulation.run", full)
    assert "sky.h5.partial: No space left on device" in error_of(capsys, [*BASE, "--out", "a.h5"])


def test_errors_of_ours_are_bugs_and_shown(record, monkeypatch):
    """Only what mlsky can explain is one line; a bug keeps its traceback."""

    def bug(request):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mlsky.simulation.run", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main([*BASE, "--out", "sky.h5"])


def test_debug_shows_the_traceback(record):
    with pytest.raises(ValueError, match="nside=3"):
        cli.main(["--debug", "simulate", "--freqs", "93", "--nside", "3", "--out", "a.h5"])


def test_help_takes_no_time():
    """Python itself takes most of it; the limit is five times what a slow machine needs."""
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "mlsky.cli", "--help"], check=True, stdout=subprocess.DEVNULL
    )
    assert time.monotonic() - begin < 5
