"""Scatter of scores between trainings of the same recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlsky.statistics.streaming import over_trainings

__all__ = ["spread"]


def spread(found: Sequence[Mapping]) -> list[dict]:
    """The rows of the first weights, with the scatter of all of them.

    Parameters
    ----------
    found
        What `mlsky.validation.scores.score` gave of weights that differ by the seed of their
        training alone, on the same regions.

    Returns
    -------
    list of dict
        The rows of the first; each and each of its ``numbers`` also has ``trainings``: ``mean``,
        ``scatter`` of one training, ``error`` of the mean; None where one has no value.

    Raises
    ------
    ValueError
        If there are fewer than two, or they were scored on other regions.
    """
    same = {(f["regions"], f["pixel_arcmin"]) for f in found}
    if len(same) > 1:
        raise ValueError(
            f"trainings scored on {sorted(same)} regions and arcmin: must be the same for all"
        )
    if len(found) < 2:
        over_trainings([r["value"] for f in found for r in f["scores"][:1]])  # says so
    values: list[dict] = [{_key(r, n): n["value"] for r, n in _numbers(f["scores"])} for f in found]
    out = []
    for row in found[0]["scores"]:
        numbers = [{**n, "trainings": _of(values, _key(row, n))} for n in row["numbers"]]
        worst = next((n["trainings"] for n in numbers if n["where"] == row["where"]), None)
        out.append({**row, "numbers": numbers, "trainings": worst})
    return out


def _numbers(rows: Sequence[Mapping]):
    return ((row, number) for row in rows for number in row["numbers"])


def _key(row: Mapping, number: Mapping) -> tuple:
    return row["name"], row["job"], row["calibration"], number["where"]


def _of(values: Sequence[Mapping], key: tuple) -> dict | None:
    each = [v.get(key) for v in values]
    if None in each:
        return None
    return {k: float(f"{float(v):.4g}") for k, v in over_trainings(each).items()}
