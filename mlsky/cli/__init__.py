"""The command line: ``mlsky simulate | ensemble | plot | clusters | verify | weights | cite |
data | tables | train | train-log | tune | export | calibrate | validate | validate-images |
validate-chain``.

Only click is imported at the top of these modules, so that ``mlsky --help`` is quick. A wrong
argument gives one line on stderr and exit status 2; Ctrl-C gives 130; neither leaves a file
behind.
"""

from __future__ import annotations

from mlsky.cli import (
    calibrate,
    chain,
    cite,
    clusters,
    data,
    ensemble,
    export,
    images,
    simulate,
    train,
    tune,
    validate,
    verify,
    weights,
)
from mlsky.cli.group import cli, main

__all__ = ["cli", "main"]

cli.add_section(
    "Make and use skies",
    simulate.simulate,
    ensemble.ensemble,
    simulate.plot,
    clusters.clusters,
    verify.verify,
    weights.weights,
    cite.cite,
)
cli.add_section(
    "Train and judge networks of your own",
    data.data,
    data.tables,
    train.train,
    train.train_log,
    tune.tune,
    export.export,
    calibrate.calibrate,
    validate.validate,
    images.validate_images,
    chain.validate_chain,
)
