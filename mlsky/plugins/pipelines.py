"""Maps of a sky in files, with the names, units and headers that other programs expect.

Each function writes one file per band (`write_pspipe`: per component and band) into a folder and
returns their paths. ``beam`` is that of `mlsky.Sky.smooth`; None for maps without one. Files appear
when they are whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.frequency import passbands
from mlsky.io.files import check_disk, whole, write_whole
from mlsky.sphere import beams

if TYPE_CHECKING:
    from mlsky.sky import Sky

__all__ = ["write_mbs", "write_pspipe", "write_pyilc", "write_toast"]

#: Longest name of a file: longer ones broke archives of the Simons Observatory's simulations.
NAME_MAX = 99

#: Entries of pyilc's YAML file that the caller may change; from its examples.
PYILC_SETTINGS = {
    "work_in_healpix": "yes",
    "save_as": "fits",
    "save_weights": "yes",
    "wavelet_type": "GaussianNeedlets",
    "ILC_bias_tol": 0.01,
}

#: FWHM (arcmin) of pyilc's Gaussian needlets, from its example; those that fit ELLMAX are taken.
NEEDLETS_ARCMIN = (600.0, 300.0, 120.0, 60.0, 30.0, 15.0, 10.0, 7.5, 5.0)


def write_pspipe(
    sky: Sky,
    folder: str | os.PathLike,
    beam=None,
    *,
    names: Sequence[str] | None = None,
    convention: str = "COSMO",
    overwrite: bool = False,
) -> list[Path]:
    """CAR maps of each component, uK_CMB, as PSpipe takes its foregrounds.

    Parameters
    ----------
    sky
        On rectangular pixels.
    names
        Of the bands in file names; by default "150_pa5" for the band "act_dr6/pa5_f150", and the
        name or frequency of any other.
    convention
        Of polarisation: "COSMO" or "IAU"; in the card POLCCONV.

    Returns
    -------
    paths
        ``tsz_150_pa5.fits``, ...; the CMB is ``cmb_seed1_150_pa5.fits`` for ``cmb_seed=1``.

    Raises
    ------
    ValueError
        If the sky is HEALPix or holds the total alone, names do not fit, or a file exists.
    """
    if sky.geometry.kind == "healpix":
        raise ValueError("write_pspipe: PSpipe takes CAR maps; simulate with geometry=(shape, wcs)")
    _need_components(sky, "write_pspipe")
    convention = arguments.choice("convention", convention, ("COSMO", "IAU"))
    if names is None:
        names = [_pspipe_name(band) for band in sky.bands]
    called = {name: name for name in sky}
    if "cmb" in called:
        called["cmb"] = f"cmb_seed{sky.meta.get('cmb_seed', 0)}"
    files = [f"{label}_{{}}.fits" for label in called.values()]
    paths = _paths(sky, folder, files, names, overwrite)
    cards = {"POLCCONV": convention, "UNITS": "uK_CMB"}
    return [
        path
        for name, group in zip(called, paths, strict=True)
        for path in _write(sky, beam, name, "uK_CMB", group, _car(sky, cards), convention)
    ]


def write_mbs(
    sky: Sky,
    folder: str | os.PathLike,
    beam=None,
    *,
    components: Iterable[str] | None = None,
    release: str = "mlsky",
    tag: str = "mlsky",
    num: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Maps as the map-based simulations of the Simons Observatory: uK_CMB, HEALPix NESTED or CAR.

    Parameters
    ----------
    components
        Files for each of these; by default one of the total.
    release, tag, num
        Names are ``{release}_{telescope}_mission_{band}_{tag}_{healpix or car}.fits``, with
        ``{component}_{tag}`` for a component and telescope and band of "so_lat/f150"; `num` is the
        number of the realisation in the header.

    Returns
    -------
    paths
        For each component and band; headers have TELESCOP, BAND, TAG, NUM, ELL_MAX, NSPLITS and
        SPLIT.

    Raises
    ------
    ValueError
        If a name is longer than `NAME_MAX`, a file exists, or the sky lacks a component.
    """
    num = arguments.integer("num", num, "a number of a realisation, for example 0", 0, 10**6)
    wanted = [None] if components is None else list(components)
    if components is not None:
        _need_components(sky, "write_mbs", wanted)
    healpix = sky.geometry.kind == "healpix"
    where = [_telescope(band) for band in sky.bands]
    names = [f"{telescope}_mission_{band}" for telescope, band in where]
    tags = [tag if name is None else f"{name}_{tag}" for name in wanted]
    kind = "healpix" if healpix else "car"
    files = [f"{_plain(release)}_{{}}_{_plain(one)}_{kind}.fits" for one in tags]
    paths = _paths(sky, folder, files, names, overwrite)
    made = []
    for name, one, group in zip(wanted, tags, paths, strict=True):
        cards = {"TAG": one, "NUM": num, "ELL_MAX": sky.geometry.lmax, "NSPLITS": 1, "SPLIT": 1}
        cards |= {"POLCCONV": "COSMO", "UNITS": "uK_CMB"}
        each = [{"TELESCOP": telescope, "BAND": band, **cards} for telescope, band in where]
        writers = [_healpix(sky, c, nest=True) if healpix else _car(sky, c)[0] for c in each]
        made += _write(sky, beam, name, "uK_CMB", group, writers)
    return made


def write_toast(
    sky: Sky, folder: str | os.PathLike, beam=None, *, overwrite: bool = False
) -> list[Path]:
    """I, Q and U in K_CMB for toast's ``ScanHealpixMap`` (NESTED) and ``ScanWCSMap`` (CAR).

    Stokes parameters that the sky does not hold are zero.

    Returns
    -------
    paths
        ``mlsky_{band}.fits``, one per band.

    Raises
    ------
    ValueError
        If a file exists.
    """
    names = [_plain(band.name or band.label) for band in sky.bands]
    (group,) = _paths(sky, folder, ["mlsky_{}.fits"], names, overwrite)
    cards = {"POLCCONV": "COSMO", "UNITS": "K_CMB"}
    healpix = sky.geometry.kind == "healpix"
    writers = [_healpix(sky, cards, nest=True)] * len(names) if healpix else _car(sky, cards)
    return _write(sky, beam, None, "K_CMB", group, writers)


def write_pyilc(
    sky: Sky,
    folder: str | os.PathLike,
    beam,
    *,
    preserve: str = "CMB",
    deproject: Sequence[str] = (),
    lmax: int | None = None,
    overwrite: bool = False,
    **settings,
) -> list[Path]:
    """T in K_CMB, passbands and beams for pyilc, and its YAML file.

    Parameters
    ----------
    sky
        HEALPix.
    beam
        As for `mlsky.Sky.smooth`; bands are listed from the widest to the narrowest.
    preserve, deproject
        Components as pyilc calls them, "CMB", "tSZ", "CIB", "CIB_dbeta", ...
    lmax
        ELLMAX; 2 nside by default.
    **settings
        Entries of the YAML file beside ours, which are of a needlet ILC, or in their place.

    Returns
    -------
    paths
        The YAML file first: ``pyilc path/pyilc.yml``.

    Raises
    ------
    ValueError
        If the sky is not HEALPix or has no T, a beam is not allowed, more is deprojected than the
        bands allow, or a file exists.
    """
    if sky.geometry.kind != "healpix":
        raise ValueError("write_pyilc: this sky is on rectangular pixels; simulate with nside=")
    if "T" not in sky.stokes:
        raise ValueError(f"write_pyilc: pyilc takes T, and this sky holds {sky.stokes}")
    deproject = [deproject] if isinstance(deproject, str) else list(deproject)
    if len(deproject) >= len(sky.bands):
        raise ValueError(
            f"deproject={deproject}: {len(sky.bands)} bands allow {len(sky.bands) - 1} at most"
        )
    top = 2 * sky.geometry.nside
    lmax = arguments.integer(
        "lmax", top if lmax is None else lmax, "a multipole to 3 nside - 1", 20, sky.geometry.lmax
    )
    each = beams.parse(beam, len(sky.bands))
    order = np.argsort([-one.fwhm_arcmin for one in each], kind="stable").tolist()
    names = [_plain(band.name or band.label) for band in sky.bands]
    single = [len(band.nu_ghz) == 1 for band in sky.bands]
    gaussian = all(one.b_ell is None for one in each)
    files = ["mlsky_{}.fits"]
    files += [] if all(single) else ["passband_{}.txt"]
    files += [] if gaussian else ["beam_{}.txt"]
    paths = _paths(sky, folder, files, names, overwrite, extra=["pyilc.yml"])
    maps, config = paths[0], Path(folder) / "pyilc.yml"
    content = {
        "output_dir": f"{Path(folder).absolute()}/",
        "output_prefix": "",
        "ELLMAX": lmax,
        "N_side": sky.geometry.nside,
        "N_freqs": len(names),
        "freq_map_files": [str(maps[i].absolute()) for i in order],
        "ILC_preserved_comp": preserve,
        "N_deproj": len(deproject),
        "ILC_deproj_comps": deproject,
        **PYILC_SETTINGS,
    }
    content |= _needlets(lmax)
    made = _write(sky, beam, None, "K_CMB", maps, [_healpix(sky, {}, rows="T")] * len(names))
    content["bandpass_type"] = "DeltaBandpasses" if all(single) else "ActualBandpasses"
    if any(single):  # others are not read
        content["freqs_delta_ghz"] = [float(sky.bands[i].centre_ghz) for i in order]
    if not all(single):
        for path, band, one in zip(paths[1], sky.bands, single, strict=True):
            if not one:
                _write_columns(path, band.nu_ghz, band.weights)
                made.append(path)
        listed = ["delta" if single[i] else str(paths[1][i].absolute()) for i in order]
        content["freq_bp_files"] = listed
    if gaussian:
        content["beam_type"] = "Gaussians"
        content["beam_FWHM_arcmin"] = [float(each[i].fwhm_arcmin) for i in order]
    else:
        content["beam_type"] = "1DBeams"
        for path, one in zip(paths[-1], each, strict=True):
            _write_columns(path, np.arange(lmax + 1), one.transform(lmax))
        made += paths[-1]
        content["beam_files"] = [str(paths[-1][i].absolute()) for i in order]
    write_whole(config, _yaml(content | settings).encode())
    return [config, *made]


def _needlets(lmax: int) -> dict:
    """Scales of pyilc's Gaussian needlets that end below `lmax`."""
    ell = [8 * np.log(2) / np.radians(fwhm / 60) for fwhm in NEEDLETS_ARCMIN]
    kept = [fwhm for fwhm, at in zip(NEEDLETS_ARCMIN, ell, strict=True) if at < lmax]
    kept = kept or [NEEDLETS_ARCMIN[0]]
    taper = min(200, lmax // 10)
    return {"N_scales": len(kept) + 1, "GN_FWHM_arcmin": kept, "taper_width": taper}


def _yaml(content: dict) -> str:
    """YAML of a dict of texts, numbers and lists of these; JSON values are YAML."""
    import json

    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items())


def _write_columns(path: Path, *columns: NDArray) -> None:
    text = "\n".join(
        " ".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)
    )
    write_whole(path, f"{text}\n".encode())


def _write(
    sky: Sky,
    beam,
    component: str | None,
    unit: str,
    paths: Sequence[Path],
    writers: Sequence[Callable[[Path, NDArray], None]],
    convention: str = "COSMO",
) -> list[Path]:
    """One file for each band."""
    for path, maps, write in zip(paths, _maps(sky, beam, component, unit), writers, strict=True):
        if convention == "IAU":
            maps[2] *= -1
        with whole(path) as temporary:
            write(temporary, maps)
    return list(paths)


def _maps(sky: Sky, beam, component: str | None, unit: str) -> Iterator[NDArray[np.float32]]:
    """(3, *shape) of each band, in a unit; zero where the sky holds no such Stokes parameter."""
    rows = ["TQU".index(s) for s in sky.stokes]
    if beam is not None and sky.meta.get("beams"):
        told = ", ".join(sky.meta["beams"])
        raise ValueError(
            f"beam={arguments.short(beam)}: the sky has beams already ({told}); give one without, "
            "or leave beam= out where a file needs none"
        )
    shown = sky if beam is None else sky.smooth(beam, component)
    for number, factor in enumerate(passbands.convert(sky.bands, sky.unit, unit)):
        maps = np.zeros((3, *sky.geometry.shape), np.float32)
        maps[rows] = shown.band(number, component) * np.float32(factor)
        yield maps


def _healpix(sky: Sky, cards: dict, nest: bool = False, rows: str = "TQU") -> Callable:
    """A writer of HEALPix maps, equatorial, RING or NESTED."""
    import healpy

    def write(path: Path, maps: NDArray) -> None:
        shown = maps[["TQU".index(s) for s in rows]]
        healpy.write_map(
            path,
            healpy.reorder(shown, r2n=True) if nest else shown,
            nest=nest,
            coord="C",
            column_units=cards.get("UNITS", "K_CMB"),
            dtype=np.float32,
            overwrite=True,
            extra_header=[(key, value) for key, value in cards.items() if key != "UNITS"],
        )

    return write


def _car(sky: Sky, cards: dict) -> list[Callable]:
    """Writers of CAR maps, one for each band."""
    from pixell import enmap

    def write(path: Path, maps: NDArray) -> None:
        enmap.write_fits(path, enmap.ndmap(maps, sky.geometry.wcs.deepcopy()), extra=cards)

    return [write] * len(sky.bands)


def _paths(
    sky: Sky,
    folder: str | os.PathLike,
    files: Sequence[str],
    names: Sequence[str],
    overwrite: bool,
    extra: Sequence[str] = (),
) -> list[list[Path]]:
    """Paths of every kind of file for every band; before any work, whether they may be written."""
    folder = arguments.path("folder", folder, "the name of a folder")
    overwrite = arguments.boolean("overwrite", overwrite)
    if isinstance(names, str) or len(names) != len(sky.bands):
        raise ValueError(f"names={arguments.short(names)}: must be one per band, {len(sky.bands)}")
    names = [_plain(name) for name in names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"bands {', '.join(names)}: two have one name, so their files would; give each band a "
            "name of its own"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder={folder}: is a file; give the name of a folder")
    if not folder.parent.is_dir():
        raise ValueError(f"folder={folder}: folder {folder.parent} does not exist, make it first")
    paths = [[folder / file.format(name) for name in names] for file in files]
    for path in [*(path for group in paths for path in group), *(folder / name for name in extra)]:
        if len(path.name) > NAME_MAX:
            raise ValueError(
                f"{path.name}: {len(path.name)} characters, at most {NAME_MAX} are allowed; "
                "choose shorter names"
            )
        if path.exists() and not overwrite:
            raise ValueError(f"{path}: exists; choose another folder, or overwrite=True")
    folder.mkdir(exist_ok=True)
    need = 12.0 * sky.geometry.npix * sum(len(group) for group in paths)
    check_disk(folder / ".mlsky", need, "choose another folder")
    return paths


def _need_components(sky: Sky, what: str, wanted: Iterable[str] = ()) -> None:
    held = ", ".join(sky.keys())
    if not held:
        raise ValueError(f"{what}: this sky holds the total alone; use the HDF5 file")
    for name in wanted:
        if name not in sky:
            raise ValueError(f"component {name!r}: this sky has {held}")


def _plain(name: object) -> str:
    """A name with nothing in it that a file name must not have."""
    return re.sub(r"[^\w.+-]+", "_", str(name))


def _pspipe_name(band) -> str:
    """PSpipe's name of a band: "150_pa5" for "act_dr6/pa5_f150"."""
    found = re.fullmatch(r"act_dr6/(pa\d)_f(\d+)", band.name or "")
    return f"{found[2]}_{found[1]}" if found else _plain(band.name or band.label)


def _telescope(band) -> tuple[str, str]:
    """Telescope and band: ("LAT", "f150") for "so_lat/f150"; ("sky", name) for any other."""
    found = re.fullmatch(r"so_(lat|sat)/(\w+)", band.name or "")
    return (found[1].upper(), found[2]) if found else ("sky", _plain(band.name or band.label))
