"""Recipes: all hyperparameters of every training run, with units and reasons.

A recipe is data. The loop (`mlsky.training.loop`) reads it; the weight file keeps it.
"""

from __future__ import annotations

from dataclasses import replace

from mlsky.training.hyperparameters import Recipe
from mlsky.training.paper_recipes import (
    BLOBS_CHANGED,
    BLOBS_REPORT,
    NARROW_STEPS,
    PAPER,
    PIXGAN,
    SWITCHES,
    VAEGAN,
)

__all__ = ["RECIPES", "Recipe", "recipe"]


_PAINT = Recipe(
    name="paint-0.5",
    generator="default:Paint",
    critic="default:Critic",
    objective="relativistic",
    inputs=("kappa",),
    outputs=("ksz", "tsz", "cib"),
    pixel_arcmin=0.5,
    critic_options={"channels": 5},  # kappa, the outputs, and tSZ in linear units
    match={
        "power": 2.0,
        "power_raw": 1.0,
        "coherence": 6.0,
        "coherence_raw": 3.0,
        "angle": 2.0,
        "pixel": 1.5,
        "pixel4": 1.5,
        "conditional2": 2.0,
        "conditional4": 2.0,
        "tail1": 1.0,  # means of kSZ^2, tSZ and CIB on clusters
        "tail2": 1.0,
    },
)

_CONVERGENCE = Recipe(
    name="convergence-0.5",
    generator="default:Convergence",
    critic="default:Critic",
    objective="relativistic",
    inputs=("kappa_in",),
    outputs=("kappa",),
    pixel_arcmin=0.5,
    critic_options={"channels": 2},
    match={
        "power": 2.0,
        "coherence": 6.0,
        "angle": 2.0,
        "pixel": 1.0,
        "pixel2": 0.7,
        "pixel4": 1.0,
        "pixel8": 0.7,
        "detail1": 0.7,
        "detail2": 0.7,
        "detail4": 0.7,
        "peaks": 1.0,  # the tail of smoothed kappa: clusters
        "tail": 1.0,  # its last ten-thousandths, relative
        "conditional2": 1.5,
        "conditional4": 1.5,
        "conditional8": 1.5,
        "self8": 1.0,
    },
)

# Half the cost, so that a sky of nside 1024 is quick. At 0.5' the convergence network scored worse
# with it: distance 0.35 against 0.23, after 5550 and 3625 steps.
_NARROW = {"widths": (12, 24, 48, 64), "noise": (4, 4, 4, 8)}

# Clusters are objects: networks are given their kappa and tSZ, and make the rest.
_OBJECTS = ("objects_kappa", "objects_tsz")
# Colours of the CIB at 148, 353 and 857 GHz: the most common one, one as blue as the bluest bright
# sources (857 GHz over 148 GHz 7.5 times the mean) and one as red as the reddest (a quarter), times
# the templates' means over their scales in the normaliser, .96 and .73 of that at 148 GHz. With a
# twelfth of each of the others added, the first gives the mean.
_CIB_MIX = ((1.0, 1.0, 1.0), (0.93, 2.0, 0.58), (0.455, 5.5, 0.18))
# Without clusters, tSZ comes from groups, which are small.
_KERNEL_WIDTHS = (0.3, 0.6, 1.2, 2.4, 4.8)
_PAINT_OBJECTS = replace(
    _PAINT,
    name="paint-1-objects",
    inputs=("kappa", *_OBJECTS),
    outputs=("ksz", "tsz", "cib", "cib_353", "cib_857"),
    pixel_arcmin=1.0,
    generator_options={"objects": 2, "cib_mix": _CIB_MIX, "kernels": _KERNEL_WIDTHS},
    critic_options={"channels": 9},
    generator_rate=3e-4,  # it starts from trained networks
    critic_rate=2.1e-4,
    decay_from=0.3,
    match={
        **_PAINT.match,
        # with half of these weights some correlations of CIB and tSZ were 0.1 off at 1'
        "coherence": 12.0,
        "coherence_raw": 6.0,
        "objects2": 1.5,  # signal around clusters, by their rank
        "objects4": 1.5,
        "objects_tail2": 1.0,
        "objects_tail4": 1.0,
    },
)
_CONVERGENCE_OBJECTS = replace(
    _CONVERGENCE,
    name="convergence-1-objects",
    inputs=("kappa_in", *_OBJECTS),
    pixel_arcmin=1.0,
    generator_options={"objects": 2},
    critic_options={"channels": 4},
    match={
        **_CONVERGENCE.match,
        "objects2": 1.5,
        "objects8": 1.0,
        "objects_tail2": 1.0,
        "objects_tail4": 1.0,
    },
)


def _coarser(base: Recipe, pixel: float, **options) -> Recipe:
    """The same networks, half as wide, on larger pixels."""
    return replace(
        base,
        name=base.name.replace("-1-", f"-{pixel:g}-"),
        pixel_arcmin=pixel,
        generator_options={**base.generator_options, **_NARROW, **options},
    )


# Gaussian blobs (docs/blobs): a Wasserstein GAN with the generator of `mlsky.toys.unconditional`.
# All sets have the same kind of networks, so that each can start from another.
_BLOBS = Recipe(
    name="blobs-1",
    generator="unconditional:Stamped",
    critic="unconditional:Critic",
    objective="wgan-gp",
    inputs=(),
    outputs=("blobs",),
    pixel_arcmin=0.5,  # nominal: blobs are not on the sky
    images="blobs-1",
    generator_options={"width": 8, "total": 1.0, "contrast": 24.0},
    critic_options={"channels": 1, "width": 8},
    batch=8,
    # the critic detects errors of 3 % in width or 5 % in height only at a low rate: most of a run
    # is the decay
    generator_rate=6e-4,
    critic_rate=1e-3,
    generator_betas=(0.0, 0.9),
    critic_betas=(0.0, 0.9),
    warm_up=100,
    decay_from=0.1,
    clip=float("inf"),
    average=0.998,
    critic_steps=2,
    penalty_weight=10.0,
    penalty_every=1,
    # what the critic does not see: the width of blobs to a per cent, how many are cut off by an
    # edge, and where they are rare. A longer memory delays the answer until places swing.
    match={"power": 4.0, "profile": 30.0},
    match_weight=36.0,
    match_memory=0.05,
    bfloat16=False,
)
# From weights of `blobs-1`: what is left wrong there is where blobs are too frequent by a few per
# cent, which averages of 300 images do not show and a high rate of learning undoes.
_BLOBS_FINE = replace(
    _BLOBS,
    name="blobs-1-fine",
    generator_rate=2e-4,
    match={"power": 4.0, "profile": 60.0},
    match_steady=True,
)
# Initial values for images of many blobs. 10 and 50 are blobs of one height, each made as in
# blobs-1; 1000 are made at once, of noise: folded Gaussians above half a standard deviation have a
# mean height of 1.141, and their sum differs from image to image.
_OF_MANY = {
    1: {},
    10: {"total": 10.0, "count": 10, "scaled": True},
    50: {"total": 50.0, "count": 50},
    1000: {
        "total": 1141.0,
        "contrast": 0.5,
        "spread": 0.1,
        "grain": 3.0,
        "slope": 0.0,
        "beyond": 0,
        "limit": 5.0,
        # with splines of 64 nodes a spot is nearly as wide as a blob, and what the beam adds is no
        # Gaussian: the power was 7 % low at 14 waves and 11 % high at 22
        "nodes": 128,
    },
}


# Statistics that are matched beside those of one blob: heights of blobs are to be learned too
_MATCHED_OF_MANY = {1: {}, 10: {}, 50: {}, 1000: {"power": 8.0, "pixel": 8.0}}

#: Twice the standard deviation of the pixels: first images of gain 1 have half a unit. That of 1000
#: blobs, 1.7, is nearer to it.
_GAIN_OF_MANY = {1: 0.1, 10: 0.2, 50: 0.6, 1000: 1.0}


def _blobs(base: Recipe, count: int) -> Recipe:
    """The same networks on images of that many blobs."""
    options = dict(base.generator_options)
    if "total" in options:
        options |= _OF_MANY[count]
    if "gain" in options:
        options["gain"] = round(options["gain"] * _GAIN_OF_MANY[count] / _GAIN_OF_MANY[1], 6)
    return replace(
        base,
        name=base.name.replace("blobs-1", f"blobs-{count}"),
        images=f"blobs-{count}",
        generator_options=options,
        match=base.match | _MATCHED_OF_MANY[count] if base.match else {},
    )


# What the report found in images of many blobs: heavy tails of 50, salt and pepper of 1000
_CHANGED = {r.name.rpartition("-")[2]: r for r in BLOBS_CHANGED}
_CHANGED_OF_MANY = (("beam", 50), ("bilinear", 1000), ("beam", 1000))


# Variational autoencoders: the decoder is the generator, the encoder takes the place of the critic.
_CODES = {"channels": 1, "size": 128, "latent": 4, "width": 8}
_VAE = Recipe(
    name="vae-blobs-1",
    generator="vae:Decoder",
    critic="vae:Encoder",
    objective="elbo",
    inputs=(),
    outputs=("blobs",),
    pixel_arcmin=0.5,
    images="blobs-1",
    # Blobs have no noise. A learned noise would go to zero, and codes would become exact and lie
    # far from draws of N(0, I). With 0.15, positions are encoded to 0.1 pixels, and the divergence
    # matters; with its full weight from the start nothing is encoded.
    generator_options={**_CODES, "hidden": 128, "noise": 0.15},
    critic_options=_CODES,
    penalty_start=0.02,
    decay_from=0.6,
    batch=16,
    generator_rate=1e-3,
    critic_rate=1e-3,
    generator_betas=(0.9, 0.999),
    critic_betas=(0.9, 0.999),
    average=0.99,  # short, as the encoder is not averaged
    match_weight=0.0,
    bfloat16=False,
)
_SKY = {"channels": 3, "size": 128, "latent": 64, "width": 16}
_DIGITS = {"channels": 1, "size": 8, "latent": 10, "width": 32}
_PHOTOGRAPHS = {"channels": 1, "size": 32, "latent": 32, "width": 16}
_VAES = (
    *(
        replace(
            _VAE,
            name=f"vae-blobs-{count}",
            images=f"blobs-{count}",
            generator_options={**_VAE.generator_options, "latent": latent},
            critic_options={**_CODES, "latent": latent},
        )
        # twice the number of coordinates of one and ten blobs
        for count, latent in ((1, 4), (10, 40), (50, 64), (1000, 64))
    ),
    *(
        replace(
            _VAE,
            name=name,
            outputs=("kappa", "tsz", "cib"),
            images=None,
            pixel_arcmin=pixel,
            generator_options=_SKY,  # a sky has more information than the code: noise is learned
            critic_options=_SKY,
        )
        for name, pixel in (("vae-sky", 0.5), ("vae-sky-2", 2.0))
    ),
    # what the code cannot hold, above l = 800, is drawn from a Gaussian field of learned power
    replace(
        _VAE,
        name="vae-sky-bands",
        outputs=("kappa", "tsz", "cib"),
        images=None,
        generator_options={**_SKY, "bands": 32},
        critic_options=_SKY,
    ),
    replace(
        _VAE,
        name="vae-digits",
        outputs=("digits",),
        images="digits",
        size=8,
        batch=128,
        penalty_start=1.0,
        decay_from=0.4,
        generator_options=_DIGITS,
        critic_options=_DIGITS,
    ),
    replace(
        _VAE,
        name="vae-photographs",
        outputs=("photographs",),
        images="photographs",
        size=32,
        batch=64,
        penalty_start=1.0,
        decay_from=0.4,
        generator_options=_PHOTOGRAPHS,
        critic_options=_PHOTOGRAPHS,
    ),
)


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        _PAINT,
        _CONVERGENCE,
        replace(
            _PAINT,
            name="paint-2",
            pixel_arcmin=2.0,
            # a first kernel of 0.35 pixels corrects the power of tSZ above l = 4000, 15 % low, but
            # degrades its correlation with kappa and its topology: distance 0.32 against 0.27
            generator_options={**_NARROW, "velocity_levels": 5},
        ),
        replace(_CONVERGENCE, name="convergence-2", pixel_arcmin=2.0, generator_options=_NARROW),
        _PAINT_OBJECTS,
        _CONVERGENCE_OBJECTS,
        *(_coarser(_PAINT_OBJECTS, pixel, velocity_levels=5) for pixel in (2.0, 4.0)),
        *(_coarser(_CONVERGENCE_OBJECTS, pixel) for pixel in (2.0, 4.0)),
        PAPER,
        PIXGAN,
        VAEGAN,
        *NARROW_STEPS,
        *SWITCHES,
        *(_blobs(_BLOBS, count) for count in _OF_MANY),
        _BLOBS_FINE,
        # two images hold a hundred blobs. With the weight of one blob the power stayed 9 % low from
        # 20 waves on, where it is that of blobs cut off by an edge.
        replace(_blobs(_BLOBS_FINE, 50), batch=2, match=_BLOBS_FINE.match | {"power": 16.0}),
        _blobs(_BLOBS_FINE, 1000),
        *(_blobs(BLOBS_REPORT, count) for count in _OF_MANY),
        *BLOBS_CHANGED,
        *(_blobs(_CHANGED[change], count) for change, count in _CHANGED_OF_MANY),
        *_VAES,
    )
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe={name!r}: must be one of {', '.join(RECIPES)}")
    return RECIPES[name]
