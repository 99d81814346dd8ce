"""What every page is made with: the templates of this package and of others, the style, and the numbers' words."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from assay.evaluation import aims
from assay.evaluation.report import words

_HERE = "assay.evaluation.report"


def fill(template: str, *packages: str, script: bool = False, **values: Any) -> str:
    """A page of its template.

    Args:
        template: its file.
        packages: where templates are looked for before this package.
        script: put the script of the page in, which reads charts off.
        values: what the template names.
    """
    code = _file("script.js") if script else ""
    page = _environment(*packages).get_template(template)
    return page.render(
        style=Markup(_file("style.css")),
        script=Markup(code),
        script_hash=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii"),
        **values,
    )


def _environment(*packages: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "") for package in (*packages, _HERE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (words.percent, words.interval, words.count, words.rate, words.size, words.duration):
        environment.filters[function.__name__] = function
    environment.filters["aim"] = aims.told
    environment.filters["breakable"] = _breakable
    environment.filters["date"] = words.date
    environment.globals["plural"] = words.plural
    environment.tests["web_address"] = _is_web_address
    return environment


def _breakable(name: str) -> Markup:
    """A long name, escaped, that may go on in the next line after its punctuation."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[._:/-])", name))


def _is_web_address(link: str) -> bool:
    """Whether a link may be followed: nothing but http and https, so that a run cannot smuggle in a script."""
    try:
        return urlsplit(link).scheme in {"http", "https"}
    except ValueError:
        return False


def _file(name: str) -> str:
    return resources.files(_HERE).joinpath(name).read_text(encoding="utf-8")
