"""What attacks are made of: threats, transformations and losses; and corruptions. A new one is one row here."""

from __future__ import annotations

from assay.registry.entry import Entry

THREATS = tuple(
    Entry(name=name, kind="threat", target=f"assay.threats:{name}", summary=summary)
    for name, summary in (
        ("Linf", "every input value changes by at most eps"),
        ("L2", "the Euclidean length of the change is at most eps"),
        ("L1", "the absolute changes sum to at most eps"),
        ("L0", "at most eps features (or pixels) change"),
        ("Flow", "every pixel is taken from a place at most eps away; half the side of the image is 1"),
        ("Rotation", "the image is turned by at most eps degrees"),
        ("Translation", "the image is shifted by at most eps pixels along each axis"),
        ("Recolor", "one map of colours for all pixels changes each channel of a colour space by at most eps"),
        ("ToneCurve", "one curve for all values changes each by at most eps"),
        ("Patch", "one square of at most the share eps of the image is free, or a region"),
        ("Corruptions", "snow, blur, noise and others of a list at a severity of at most eps"),
        ("Combined", "several threats one after the other, each with its own budget"),
    )
)

TRANSFORMATIONS = (
    Entry(
        name="EOT",
        kind="transformation",
        target="assay.transformations:EOT",
        summary="search and judge on means over random views: the transformations that it is given, in their order",
        paper="Athalye et al. 2018, https://arxiv.org/abs/1707.07397",
    ),
    *(
        Entry(name=name, kind="transformation", target=f"assay.transformations:{name}", summary=summary)
        for name, summary in (
            ("Rotate", "a turn about the centre by at most so many degrees"),
            ("Scale", "larger or smaller by at most this share"),
            ("Translate", "a shift by at most so many pixels along each axis"),
            ("Perspective", "a view from aside: corners move by at most this share of the side"),
            ("Brightness", "at most so much is added to all values or taken away"),
            ("Contrast", "distances to the mean grow or shrink by at most this share"),
            ("ColourResponse", "each channel has its own gain and tone curve"),
            ("Noise", "Gaussian noise of this standard deviation"),
            ("Blur", "Gaussian blur of at most so many pixels"),
            ("Resample", "other transformations at another resolution"),
            ("JPEG", "compression at a quality between two"),
        )
    ),
)

_ROBUSTNESS = "Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261"
CORRUPTIONS = tuple(  # in the order of the published tables, those beyond the mean last
    Entry(
        name=name,
        kind="corruption",
        target=f"assay.corruptions:{name}",
        summary=summary,
        paper=_ROBUSTNESS,
        aliases=tuple(aliases),
    )
    for name, summary, *aliases in (
        ("GaussianNoise", "noise of a sensor in low light"),
        ("ShotNoise", "few photons: Poisson counts"),
        ("ImpulseNoise", "salt and pepper"),
        ("DefocusBlur", "a lens out of focus"),
        ("GlassBlur", "frosted glass: pixels change places nearby"),
        ("MotionBlur", "a camera that moves"),
        ("ZoomBlur", "a camera that moves towards its object"),
        ("Snow", "falling snow"),
        ("Frost", "ice on the window"),
        ("Fog", "clouds between camera and object"),
        ("Brighten", "more light", "brightness"),
        ("LowContrast", "less contrast", "contrast"),
        ("ElasticTransform", "the image on rubber", "elastic"),
        ("Pixelate", "less resolution"),
        ("JPEGCompression", "compression to JPEG and back"),
        ("SpeckleNoise", "noise in proportion to the light; extra"),
        ("GaussianBlur", "Gaussian blur; extra"),
        ("Spatter", "drops of water or mud on the lens; extra"),
        ("Saturate", "more or less colour; extra"),
    )
)

LOSSES = (
    Entry(name="ce", kind="loss", target="assay.losses:cross_entropy", summary="cross-entropy"),
    Entry(
        name="margin",
        kind="loss",
        target="assay.losses:margin",
        summary="difference of the two scores that compete",
        paper="Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644",
    ),
    Entry(
        name="dlr",
        kind="loss",
        target="assay.losses:dlr",
        summary="the margin over the spread of the highest scores: scaling the model changes nothing",
        paper="Croce and Hein 2020, https://arxiv.org/abs/2003.01690",
    ),
)
