"""What exists under which name: read without importing torch, loaded at first use.

Attacks, threats, transformations and losses are rows of the tables below; models, data sets and suites are found
beside the files that describe them. A new attack is one row here, and everything else (the grammar, the command line,
the contract tests) finds it by this row.

Example:
    >>> from assay import registry
    >>> registry.get("threat", "linf").target
    'assay.threats:Linf'
"""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from assay.errors import GrammarError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["attack", "threat", "transformation", "loss", "model", "data", "suite"]
KINDS: tuple[Kind, ...] = ("attack", "threat", "transformation", "loss", "model", "data", "suite")

_PACKAGE = Path(__file__).parent
_LISTED = 30  # names that an error lists; more would hide what it says
LP = ("linf", "l2", "l1")
NORMS = (*LP, "l0")
SPATIAL = ("flow", "rotation", "translation")
COLOUR = ("recolor", "tonecurve")
EVERY = (*NORMS, *SPATIAL, *COLOUR, "patch", "combined")  # for searches that leave the geometry to the threat


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name that a user may write.

    Args:
        name: the canonical spelling.
        kind: what it is: an attack, a threat, a transformation, a loss, a model, a data set or a suite.
        target: ``package.module:name`` of the object, or the path of the file that describes it.
        summary: one line.
        paper: where the method was published; empty where it has none.
        access: what an attack asks of the model: ``labels``, ``scores`` or ``gradients``; empty for others.
        threats: names of the threats that an attack can use; empty for others.
        inner: the attack that a wrapper runs when none is named; empty for others.
        aliases: shorter names that are understood too.
    """

    name: str
    kind: Kind
    target: str
    summary: str
    paper: str = ""
    access: str = ""
    threats: tuple[str, ...] = ()
    inner: str = ""
    aliases: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import the object that ``target`` names.

        Raises:
            GrammarError: ``target`` is a file, which is read and not imported.
        """
        module, _, attribute = self.target.partition(":")
        if not attribute:
            raise GrammarError(f"{self.kind} {self.name!r} is a file, not an object: {self.target}")
        return getattr(importlib.import_module(module), attribute)

    def as_dict(self) -> dict[str, Any]:
        """The filled fields, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value}


def _attack(
    name: str,
    access: str,
    summary: str,
    paper: str,
    threats: tuple[str, ...] = LP,
    inner: str = "",
    aliases: tuple[str, ...] = (),
) -> Entry:
    return Entry(
        name=name,
        kind="attack",
        target=f"assay.attacks:{name}",
        summary=summary,
        paper=paper,
        access=access,
        threats=threats,
        inner=inner,
        aliases=aliases,
    )


_ATTACKS = (
    _attack(
        "FGSM",
        "gradients",
        "one step of steepest ascent to the edge of the ball",
        "Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572",
        threats=EVERY,
    ),
    _attack(
        "BIM",
        "gradients",
        "iterated small steps from the clean input",
        "Kurakin et al. 2017, https://arxiv.org/abs/1607.02533",
        threats=EVERY,
    ),
    _attack(
        "PGD",
        "gradients",
        "projected steepest ascent from a random start, with restarts and momentum",
        "Madry et al. 2018, https://arxiv.org/abs/1706.06083",
        threats=EVERY,
    ),
    _attack(
        "MIFGSM",
        "gradients",
        "iterated steps along an accumulated gradient",
        "Dong et al. 2018, https://arxiv.org/abs/1710.06081",
        threats=EVERY,
    ),
    _attack(
        "APGD",
        "gradients",
        "projected ascent that halves its own step when progress stalls",
        "Croce and Hein 2020, https://arxiv.org/abs/2003.01690",
        threats=EVERY,
    ),
    _attack(
        "MultiTargeted",
        "gradients",
        "an inner attack towards each of the likeliest other classes in turn",
        "Gowal et al. 2019, https://arxiv.org/abs/1910.09338",
        threats=EVERY,
        inner="APGD",
    ),
    _attack(
        "AdamSearch",
        "gradients",
        "Adam on the moves of any threat, with a penalty on uneven ones",
        "Kingma and Ba 2015, https://arxiv.org/abs/1412.6980",
        threats=("linf", "l2", *SPATIAL, *COLOUR, "patch", "combined"),
    ),
    _attack(
        "ReColorAdv",
        "gradients",
        "Adam on the margin and the roughness of a colour map, alone or with other moves",
        "Laidlaw and Feizi 2019, https://arxiv.org/abs/1906.00001",
        threats=("linf", "l2", *SPATIAL, *COLOUR, "patch", "combined"),
    ),
    _attack(
        "StAdv",
        "gradients",
        "the smoothest flow of pixels that wins, by L-BFGS or Adam",
        "Xiao et al. 2018, https://arxiv.org/abs/1801.02612",
        threats=("flow",),
    ),
    _attack(
        "GridSearch",
        "labels",
        "every point of a grid over moves of a few numbers, by decisions only",
        "Engstrom et al. 2019, https://arxiv.org/abs/1712.02779",
        threats=("rotation", "translation"),
        aliases=("grid",),
    ),
    _attack(
        "RandomSearch",
        "scores",
        "the worst of some random moves, and of a random walk from there, by scores only",
        "Engstrom et al. 2019, https://arxiv.org/abs/1712.02779",
        threats=EVERY,
        aliases=("random",),
    ),
    _attack(
        "Square",
        "scores",
        "random search over squares of pixels, by scores only",
        "Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049",
        threats=LP,
    ),
    _attack(
        "Genetic",
        "scores",
        "a small population of perturbations that cross and mutate",
        "Alzantot et al. 2019, https://arxiv.org/abs/1805.11090",
        threats=("linf", "l2"),
    ),
    _attack(
        "LocalSearch",
        "scores",
        "probes of single pixels, changes of those that matter, and on around them",
        "Narodytska and Kasiviswanathan 2017, https://arxiv.org/abs/1612.06299",
        threats=("l0",),
    ),
    _attack(
        "OnePixel",
        "scores",
        "differential evolution over the places and values of a few pixels",
        "Su et al. 2019, https://arxiv.org/abs/1710.08864",
        threats=("l0",),
    ),
    _attack(
        "ZOO",
        "scores",
        "smallest move by symmetric differences of single coordinates, Adam or Newton steps",
        "Chen et al. 2017, https://arxiv.org/abs/1708.03999",
        threats=("l2",),
    ),
    _attack(
        "SimBA",
        "scores",
        "steps along pixels or cosine waves in random order, kept where scores improve",
        "Guo et al. 2019, https://arxiv.org/abs/1905.07121",
        threats=("linf", "l2"),
    ),
    _attack(
        "SPSA",
        "scores",
        "Adam on gradients that are estimated from scores at random corners of a small cube",
        "Uesato et al. 2018, https://arxiv.org/abs/1802.05666",
        threats=NORMS,
    ),
    _attack(
        "NES",
        "scores",
        "projected ascent on gradients that are estimated from scores under Gaussian noise",
        "Ilyas et al. 2018, https://arxiv.org/abs/1804.08598",
        threats=NORMS,
    ),
    _attack(
        "HopSkipJump",
        "labels",
        "smallest move by steps along the boundary's estimated normal, by decisions only",
        "Chen et al. 2020, https://arxiv.org/abs/1904.02144",
        threats=("linf", "l2"),
        aliases=("hsj",),
    ),
    _attack(
        "SignOPT",
        "labels",
        "smallest move by descent on the boundary's distance, one decision for the sign of each slope",
        "Cheng et al. 2020, https://arxiv.org/abs/1909.10773",
        threats=("l2",),
    ),
    _attack(
        "OPT",
        "labels",
        "smallest move by descent on the boundary's distance, measured by bisection of decisions",
        "Cheng et al. 2019, https://arxiv.org/abs/1807.04457",
        threats=("l2",),
    ),
    _attack(
        "Boundary",
        "labels",
        "smallest move by a random walk along the decision boundary, by decisions only",
        "Brendel et al. 2018, https://arxiv.org/abs/1712.04248",
        threats=("l2",),
    ),
    _attack(
        "GeoDA",
        "labels",
        "smallest move to a boundary taken as flat, whose normal is estimated from decisions only",
        "Rahmati et al. 2020, https://arxiv.org/abs/2003.06468",
    ),
    _attack(
        "SaltAndPepper",
        "labels",
        "ever more values set to one or the other bound at random, by decisions only",
        "Schott et al. 2019, https://arxiv.org/abs/1805.09190",
        threats=("l0",),
    ),
    _attack(
        "Pointwise",
        "labels",
        "changed values put back one after the other while the decision stays, by decisions only",
        "Schott et al. 2019, https://arxiv.org/abs/1805.09190",
        threats=("l0",),
    ),
    _attack(
        "DeepFool",
        "gradients",
        "steps to the nearest linearised boundary until the decision changes",
        "Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599",
        threats=("linf", "l2"),
    ),
    _attack(
        "FAB",
        "gradients",
        "a walk along the decision boundary towards the clean input",
        "Croce and Hein 2020, https://arxiv.org/abs/1907.02044",
    ),
    _attack(
        "CarliniWagner",
        "gradients",
        "descent on distance and margin after a change of variables, with a search over the constant between them",
        "Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644",
        threats=("linf", "l2", "l0"),
    ),
    _attack(
        "PDPGD",
        "gradients",
        "smallest move by proximal steps whose multiplier is solved for; any threat",
        "Matyasko and Chau 2021, https://arxiv.org/abs/2106.01538",
        threats=EVERY,
    ),
    _attack(
        "DDN",
        "gradients",
        "smallest move by gradient steps that turn it while its norm shrinks and grows",
        "Rony et al. 2019, https://arxiv.org/abs/1811.09600",
        threats=("l2",),
    ),
    _attack(
        "FMN",
        "gradients",
        "smallest move by steps up the margin in a ball that is fitted to the boundary",
        "Pintor et al. 2021, https://arxiv.org/abs/2102.12827",
        threats=NORMS,
    ),
    _attack(
        "EAD",
        "gradients",
        "smallest elastic-net move: shrinkage steps and a search for the constant per sample",
        "Chen et al. 2018, https://arxiv.org/abs/1709.04114",
        threats=("l1",),
    ),
    _attack(
        "JSMA",
        "gradients",
        "the pair of features with the largest saliency changes, step by step",
        "Papernot et al. 2016, https://arxiv.org/abs/1511.07528",
        threats=("l0",),
    ),
    _attack(
        "SigmaZero",
        "gradients",
        "descent on a smooth count of changed features or pixels, with a threshold that adapts",
        "Cina et al. 2025, https://arxiv.org/abs/2402.01879",
        threats=("l0",),
    ),
)

_THREATS = tuple(
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
        ("Combined", "several threats one after the other, each with its own budget"),
    )
)

_TRANSFORMATIONS = (
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

_LOSSES = (
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


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; a ValueError says what is wrong with it."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _suites() -> Iterable[Entry]:
    for path in sorted((_PACKAGE / "evaluation" / "suites").glob("*.toml")):
        suite = read_toml(path)
        yield Entry(name=suite["name"], kind="suite", target=str(path), summary=suite.get("description", ""))


def _cards(kind: Kind, folder: Path) -> Iterable[Entry]:
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        card = json.loads(path.read_text(encoding="utf-8"))
        yield Entry(
            name=card["name"],
            kind=kind,
            target=str(path),
            summary=card["summary"],
            threats=(card["threat"],) if card.get("threat") else (),
        )


_SOURCES: dict[Kind, Callable[[], Iterable[Entry]]] = {
    "attack": lambda: _ATTACKS,
    "threat": lambda: _THREATS,
    "transformation": lambda: _TRANSFORMATIONS,
    "loss": lambda: _LOSSES,
    "model": lambda: _cards("model", _PACKAGE / "models" / "weights"),
    "data": lambda: _cards("data", _PACKAGE / "data" / "shipped"),
    "suite": _suites,
}


@cache
def _table(kind: Kind) -> dict[str, Entry]:
    if kind not in _SOURCES:
        raise GrammarError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    return {entry.name: entry for entry in _SOURCES[kind]()}


def entries(kind: Kind) -> tuple[Entry, ...]:
    """All entries of one kind, in the order of their table."""
    return tuple(_table(kind).values())


def names(kind: Kind) -> tuple[str, ...]:
    """All canonical names of one kind, in the order of their table."""
    return tuple(_table(kind))


def find(kind: Kind, name: str) -> Entry | None:
    """The entry of this name or alias, upper and lower case, ``-`` and ``_`` aside; None where there is none."""
    wanted = _folded(name)
    return next((e for e in entries(kind) if wanted in map(_folded, (e.name, *e.aliases))), None)


def get(kind: Kind, name: str) -> Entry:
    """The entry of this name.

    Raises:
        GrammarError: there is none; the message offers near names.
    """
    entry = find(kind, name)
    if entry is None:
        raise GrammarError(f"unknown {kind} {name!r}. {hint(name, names(kind))}")
    return entry


def near(name: str, candidates: Iterable[str]) -> list[str]:
    """Up to three candidates that look like the name, the nearest first."""
    folded = {_folded(candidate): candidate for candidate in candidates}
    return [folded[match] for match in difflib.get_close_matches(_folded(name), folded, n=3, cutoff=0.55)]


def hint(name: str, candidates: Iterable[str]) -> str:
    """A sentence that leads from a wrong name to a right one."""
    candidates = list(candidates)
    close = near(name, candidates)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(candidates) > _LISTED:
        return "`assay list` tells what there is."
    return f"There are {', '.join(candidates)}." if candidates else "There are none."


def _folded(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
