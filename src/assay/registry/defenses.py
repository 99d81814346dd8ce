"""What protects a model at test time; one row each."""

from __future__ import annotations

from assay.registry.entry import Entry

_GUO = "Guo et al. 2018, https://arxiv.org/abs/1711.00117"
_SQUEEZING = "Xu et al. 2018, https://arxiv.org/abs/1704.01155"
_COHEN = "Cohen et al. 2019, https://arxiv.org/abs/1902.02918"
_SONG = "Song et al. 2018, https://arxiv.org/abs/1710.10766"
_RSE = "Liu et al. 2018, https://arxiv.org/abs/1712.00673"

DEFENSES: tuple[Entry, ...] = tuple(
    Entry(name=name, kind="defense", target=f"assay.defenses:{name}", summary=summary, paper=paper)
    for name, summary, paper in (
        (
            "RandomResizePad",
            "each image resized to a random size, at a random place of a larger one",
            "Xie et al. 2018, https://arxiv.org/abs/1711.01991",
        ),
        ("BitDepth", "input values rounded to a few bits", _SQUEEZING),
        ("JPEGDefense", "compression to JPEG and back", _GUO),
        ("TotalVariation", "the smoothest image that agrees with random pixels", _GUO),
        ("MedianFilter", "the median of a window around each pixel", _SQUEEZING),
        (
            "Thermometer",
            "each value as a column of zeros and ones, for a network that was trained on such columns",
            "Buckman et al. 2018, https://openreview.net/forum?id=S18Su--CW",
        ),
        ("InputNoise", "noise on the input", _COHEN),
        ("NoiseLayers", "noise before every convolution of the network", _RSE),
        ("Averaged", "the mean answer of a random defense over several passes", ""),
        ("RSE", "the mean answer over noise before every convolution", _RSE),
        ("Smoothed", "the class of most noisy copies", _COHEN),
        ("Transformed", "random transformations of the input", ""),
        (
            "DefenseGAN",
            "what a generator makes that is nearest to the input",
            "Samangouei et al. 2018, https://arxiv.org/abs/1805.06605",
        ),
        (
            "PixelDefend",
            "the likeliest image near the input, pixel by pixel",
            _SONG,
        ),
        ("DensityDetector", "rejects images that a density finds unlikely", _SONG),
        (
            "MagNet",
            "autoencoders: what they cannot find again is rejected, the rest is seen after one of them",
            "Meng and Chen 2017, https://arxiv.org/abs/1705.09064",
        ),
        (
            "ReconstructionDetector",
            "inputs that another defense changes much are rejected",
            "Samangouei et al. 2018, https://arxiv.org/abs/1805.06605",
        ),
        (
            "APEGANDefense",
            "what a generator that learned to undo perturbations makes of the input",
            "Shen et al. 2017, https://arxiv.org/abs/1707.05474",
        ),
        (
            "Distilled",
            "a network that learned at a temperature, without its saturated logits",
            "Papernot et al. 2016, https://arxiv.org/abs/1511.04508",
        ),
    )
)
