"""An HTML page of all results of `mlsky validate`: pictures, tables, verdicts.

For example::

    watcher = Watcher(("from_kappa", "end_to_end"))
    figures = scores.score(weights, watch=watcher)
    figures |= {"weights": "mine", "sha256": "0" * 64, "further": watcher.further.compute()}
    write(figures, watcher, "page")
"""

from __future__ import annotations

import html
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.errors import MissingDependencyError, MlskyError
from mlsky.frequency.scaling import factor
from mlsky.io.files import write_whole
from mlsky.validation import act_dr6, page_figures, published
from mlsky.validation.further import Further
from mlsky.validation.measure import FIELDS, Measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "Watcher", "check_folder", "write", "write_cards"]

PAGE = "index.html"
DPI = 80
#: Pictures of a card, besides the maps.
CARDS = ("spectra", "correlations", "onepoint")
CARD_DPI, CARD_PIXELS = 72, 128
CARD_BYTES = 150_000
COLOURS = (200, 100, 50, 25)  # of a card, as few as it takes
WORDS = {True: "pass", False: "FAIL", None: "undecided"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0 }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, .text { text-align: left }
.pass { color: #00664d } .FAIL { color: #b00020; font-weight: 600 } .undecided { color: #8a6d00 }
caption, .note { color: #555; text-align: left; font-size: .85rem }
""".strip()


class Watcher:
    """Gathers `mlsky.validation.further` and an example while regions are scored."""

    def __init__(self, jobs: Sequence[str]) -> None:
        self.jobs = tuple(jobs)
        self.further: Further | None = None

    def __call__(
        self,
        index: int,
        measure: Measure,
        true: NDArray[np.float32],
        made: Mapping[str, NDArray[np.float32]],
        standard: NDArray[np.float64],
    ) -> None:
        if self.further is None:
            self.further = Further(measure.n, measure.pixel_arcmin, self.jobs, measure.periodic)
        self.further.update(index, true, made, standard)


def check_folder(folder: str | os.PathLike, option: str = "--html", overwrite: bool = True) -> Path:
    """Raise an error, before any work starts, if a page cannot be written there.

    Raises
    ------
    ValueError
        If `folder` is a file, its parent is not there, it cannot be written to, or it holds a page
        that may not be replaced.
    MissingDependencyError
        If matplotlib is not installed.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; {option} must be a folder")
    if not folder.parent.is_dir():
        raise ValueError(f"{folder}: folder {folder.parent} does not exist; make it first")
    where = folder if folder.exists() else folder.parent
    if not os.access(where, os.W_OK):
        raise ValueError(f"{folder}: {where} cannot be written to; choose another")
    if (folder / PAGE).exists() and not overwrite:
        raise ValueError(f"{folder / PAGE}: exists; give --overwrite or another folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            f"matplotlib is needed for {option}: pip install 'mlsky[plot]'"
        ) from None
    return folder


def write(figures: Mapping, watcher: Watcher, folder: str | os.PathLike) -> Path:
    """Write the page and its pictures.

    Parameters
    ----------
    figures
        What `mlsky.validation.scores.score` gave, with ``weights``, ``sha256`` and ``further``,
        what `Further.compute` gave.
    watcher
        That watched it, for the example.
    folder
        Made if it is not there.

    Returns
    -------
    path
        The page; pictures are beside it, and it needs nothing else.
    """
    folder = Path(folder)
    further, rows = figures["further"], _after(figures)
    pictures = {"maps": ("One region", _example(watcher))}
    for name, (title, draw) in page_figures.PICTURES.items():
        drawing = draw(further, rows)
        if drawing is not None:
            pictures[name] = (title, drawing)
    try:
        folder.mkdir(exist_ok=True)
        for name, (_, drawing) in pictures.items():
            write_whole(folder / f"{name}.png", _png(drawing, DPI))
        text = "\n".join(_page(figures, {n: title for n, (title, _) in pictures.items()}))
        write_whole(folder / PAGE, text.encode())
    except OSError as error:
        raise MlskyError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder / PAGE


def write_cards(
    figures: Mapping, watcher: Watcher, folder: str | os.PathLike, name: str
) -> list[Path]:
    """Small pictures for the card of a weight file: ``NAME-maps.png`` and others.

    Each is below 150 kB: fewer dots and colours than those of the page.
    """
    folder = Path(folder)
    further = figures["further"]
    rows = _after(figures)
    drawings = {"maps": _example(watcher, ("true", watcher.jobs[-1]), CARD_PIXELS)}
    drawings |= {kind: page_figures.PICTURES[kind][1](further, rows) for kind in CARDS}
    try:
        folder.mkdir(exist_ok=True)
        paths = []
        for kind, drawing in drawings.items():
            paths.append(folder / f"{name}-{kind}.png")
            write_whole(paths[-1], _small(drawing))
    except OSError as error:
        raise MlskyError(f"{folder}: cannot be written ({error.strerror})") from error
    return paths


def _example(
    watcher: Watcher, sides: Sequence[str] | None = None, shown: int = page_figures.SHOWN
) -> Figure:
    further = watcher.further
    return page_figures.maps(further.example, further.pixel_arcmin, sides, shown)


def _after(figures: Mapping) -> list[Mapping]:
    return [row for row in figures["scores"] if row["calibration"] == "after"]


def _png(drawing: Figure, dpi: float) -> bytes:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _small(drawing: Figure) -> bytes:
    """With a palette, of as many colours as `CARD_BYTES` allow."""
    from PIL import Image  # a requirement of matplotlib

    picture = Image.open(io.BytesIO(_png(drawing, CARD_DPI))).convert("RGB")
    for colours in COLOURS:
        out = io.BytesIO()
        few = picture.quantize(colours, dither=Image.Dither.NONE)
        few.save(out, format="png", optimize=True)
        if out.tell() < CARD_BYTES:
            break
    return out.getvalue()


def _page(figures: Mapping, pictures: Mapping[str, str]) -> Iterator[str]:
    name = html.escape(figures["weights"])
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
    yield f"<style>{STYLE}</style></head><body>"
    yield f"<h1>{name}</h1>"
    yield (
        f"<p>{figures['regions']} regions, {figures['square_degrees']:g} square degrees of "
        f"{figures['pixel_arcmin']:g}' pixels that no network was trained on. "
        f"sha256 <code>{figures['sha256'][:16]}</code>.</p>"
    )
    yield (
        '<p class="note">Truth and generated regions share their kappa, so that sample variance on '
        "large scales is common to both. Errors are of a jackknife over regions. <i>from_kappa</i> "
        "starts from the true nonlinear kappa, <i>end_to_end</i> from the Gaussian one. Grey bands "
        "are agreement within 5 % (bispectra 30 %).</p>"
    )
    yield from _totals(figures["totals"])
    for key, title in pictures.items():
        yield f'<h2 id="{key}">{title}</h2>'
        yield f'<p><img src="{key}.png" alt="{html.escape(title)}, truth and generated"></p>'
        yield from _notes(key)
    further = figures["further"]
    yield from _distances(further)
    yield from _likelihood(further)
    yield from _act(further)
    yield from _published()
    yield from _scores(_after(figures))
    yield "</body></html>"


def _notes(key: str) -> Iterator[str]:
    notes = {
        "spectra": (
            "Errors of the truth (grey) and of generated regions include sample variance, those of "
            "the ratio do not where it is shared. Han et al. 2021 (dotted) is another truth, "
            "that of Sehgal et al. 2010: their shapes, not their heights, are to be compared."
        ),
        "bispectra": (
            "Binned bispectra over those of the truth; black bars are the truth's own errors. "
            "Squeezed: the third side at 200 &lt; l &lt; 800. Folded: two sides of half the first."
        ),
        "lensing": (
            "Foreground maps put through the quadratic estimator from temperature (100 &lt; l &lt; "
            "3000, white noise of 0.01 uK arcmin), over the power of kappa: cross power with the "
            "true kappa, a bispectrum; power beyond the Gaussian part, a trispectrum. tSZ is cut "
            "at -40 uK here, and brighter in the truth of Han et al. 2021."
        ),
        "extrema": (
            "Number of maxima above and of minima below each threshold, maps smoothed to 1.5'."
        ),
        "tsz-cib": (
            "Maps of 148 GHz taken to each frequency by one colour of the CIB and the "
            "non-relativistic tSZ. Triangles: Agora (Omori 2024), another simulation."
        ),
    }
    if key in notes:
        yield f'<p class="note">{notes[key]}</p>'


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str = ""
) -> Iterator[str]:
    yield "<table>"
    if caption:
        yield f"<caption>{caption}</caption>"
    yield "<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in heads) + "</tr>"
    for row in rows:
        cells = []
        for value in row:
            mark = f' class="{value}"' if value in WORDS.values() else ""
            cells.append(f"<td{mark}>{html.escape(str(value))}</td>")
        yield "<tr>" + "".join(cells) + "</tr>"
    yield "</table>"


def _totals(totals: Mapping) -> Iterator[str]:
    heads = ("", "rows", "met", "failed", "undecided", "distance (tolerances)")
    rows = [
        (job, t["rows"], t["met"], t["failed"], t["undecided"], _number(t["distance"]))
        for job, t in totals.items()
    ]
    yield from _table(heads, rows)


def _scores(rows: Sequence[Mapping]) -> Iterator[str]:
    yield '<h2 id="scores">Every row of the table of scores</h2>'
    heads = [
        "row",
        "job",
        "worst at",
        "truth",
        "generated",
        "deviation",
        "tolerance",
        "goal",
        "verdict",
    ]
    trained = any("trainings" in r for r in rows)
    heads += ["scatter of trainings"] * trained + ["Han et al. 2021"]
    cells = []
    for r in rows:
        line = [r["name"], r["job"], r["where"], _number(r["true"]), _number(r["generated"])]
        line += [_with_error(r["value"], r["error"]), f"{r['tolerance']:g}", f"{r['goal']:g}"]
        line.append(WORDS[r["pass"]])
        if trained:
            line.append(_number((r.get("trainings") or {}).get("scatter")))
        cells.append([*line, r["mmdl"] or "-"])
    yield from _table(heads, cells)


def _distances(further: Mapping) -> Iterator[str]:
    yield '<h2 id="distances">Distances between sets of patches</h2>'
    yield (
        '<p class="note">Features are scattering coefficients of patches, in true standard '
        "deviations. Fréchet distance is biased by the number of patches: compare it with that of "
        "one half of the true regions from the other. Density is 1 and coverage near 1 where sets "
        "are alike; the kernel distance may be negative.</p>"
    )
    names = ("frechet", "kernel", "density", "coverage")
    rows = []
    for job, by_field in further["distances"].items():
        for field, found in by_field.items():
            if "why" in found:
                rows.append((field, job, found["why"], "", "", ""))
                continue
            cells = [_with_error(found[k]["value"], found[k]["error"]) for k in names]
            rows.append((field, job, *cells))
    rows.sort(key=lambda row: [*FIELDS, "all"].index(row[0]))
    yield from _table(("field", "", "Fréchet", "kernel", "density", "coverage"), rows)


def _likelihood(further: Mapping) -> Iterator[str]:
    yield '<h2 id="likelihood">Average log likelihood of summaries</h2>'
    yield (
        '<p class="note">Mean and power by scale of each patch, under a Gaussian fitted to true '
        "patches of other regions; per patch. Below zero: unlike the truth; above: too alike "
        "among themselves.</p>"
    )
    rows = []
    for job, by_field in further["likelihood"].items():
        for field, found in by_field.items():
            if "why" in found:
                rows.append((field, job, found["why"], "", ""))
                continue
            cells = [
                _with_error(found[k]["value"], found[k]["error"])
                for k in ("true", "generated", "difference")
            ]
            rows.append((field, job, *cells))
    yield from _table(("field", "", "truth", "generated", "difference"), rows)


def _act(further: Mapping) -> Iterator[str]:
    """D_3000 of maps taken to the frequencies of ACT DR6."""
    yield '<h2 id="act">D<sub>l</sub> at l = 3000 beside ACT DR6</h2>'
    yield (
        '<p class="note">uK<sup>2</sup>, maps of 148 GHz taken to each frequency with one colour; '
        "tSZ with all its clusters. ACT DR6 (Louis et al. 2025) has sources below 15 mJy at 150 "
        "GHz, the regions those below 7 mJy, so that radio is lower here and only its truth is "
        "a comparison.</p>"
    )
    ell = np.array(further["ell"])
    band = int(np.abs(np.log(ell / 3000)).argmin())
    if abs(np.log(ell[band] / 3000)) > 0.2:
        return
    laws = {"tsz": "tsz", "ksz": "flat", "cib": "cib"}
    rows = []
    for nu, act in act_dr6.PARTS.items():
        goal = {**act, "cib": act["cib clustered"] + act["cib poisson"]}
        for field in ("tsz", "ksz", "cib", "radio"):
            if field == "radio" and nu != 150:
                continue
            gain = 1.0 if field == "radio" else float(factor(laws[field], float(nu), REFERENCE_GHZ))
            key = "tsz all" if field == "tsz" else field
            found = further["power"][key]
            scale = gain**2 * 3000 * 3001 / (2 * np.pi)
            cells = [
                _scaled(found[s]["value"][band], found[s]["error"][band], scale)
                for s in found
                if "/" not in s
            ]
            rows.append((f"{field}, {nu} GHz", f"{goal[field]:g}", *cells))
    sides = [s for s in further["power"]["ksz"] if "/" not in s]
    yield from _table(("", "ACT DR6", *sides), rows)


def _published() -> Iterator[str]:
    yield '<h2 id="published">What Han, Sehgal &amp; Villaescusa-Navarro (2021) show</h2>'
    yield '<p class="note">Of their maps against their truth, read off their figures.</p>'
    yield from _table(("statistic", "network against truth"), published.TABLE)


def _scaled(value: float | None, error: float | None, scale: float) -> str:
    if value is None:
        return "-"
    return _with_error(scale * value, None if error is None else scale * error)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if error is None else f"{value:.3g} ± {error:.2g}"
