"""How decisions are explained, and what attacks do to explanations; one row each."""

from __future__ import annotations

from assay.registry.entry import Entry, Kind


def _entry(kind: Kind, name: str, summary: str, paper: str) -> Entry:
    return Entry(name=name, kind=kind, target=f"assay.attribution:{name}", summary=summary, paper=paper)


_GHORBANI = "Ghorbani et al. 2019, https://arxiv.org/abs/1710.10547"

ATTRIBUTIONS: tuple[Entry, ...] = (
    _entry(
        "attribution",
        "Gradient",
        "the gradient of the class's logit",
        "Simonyan et al. 2014, https://arxiv.org/abs/1312.6034",
    ),
    _entry(
        "attribution",
        "GradientTimesInput",
        "the gradient of the class's logit times the input",
        "Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713",
    ),
    _entry(
        "attribution",
        "IntegratedGradients",
        "gradients summed along the line from a baseline to the input",
        "Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365",
    ),
    _entry(
        "attribution",
        "SmoothGrad",
        "the mean gradient over noisy copies",
        "Smilkov et al. 2017, https://arxiv.org/abs/1706.03825",
    ),
    _entry(
        "attribution",
        "GradCAM",
        "activations of a convolution, each channel weighed by its mean gradient",
        "Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391",
    ),
)

CHANGES: tuple[Entry, ...] = (
    _entry("change", "TopK", "the k most important places lose their importance", _GHORBANI),
    _entry("change", "MassCentre", "the centre of the map moves", _GHORBANI),
    _entry("change", "Region", "a chosen rectangle becomes important", _GHORBANI),
    _entry(
        "change",
        "Manipulation",
        "the map becomes another one that is given",
        "Dombrowski et al. 2019, https://arxiv.org/abs/1906.07983",
    ),
)
