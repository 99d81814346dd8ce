"""``assay list`` and ``assay show``: what there is, and what each of it takes."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from assay import registry
from assay.cli import terminal
from assay.cli.describe import describe
from assay.errors import SettingError


class Listed(str, Enum):
    """What ``assay list`` can list."""

    attacks = "attacks"
    threats = "threats"
    transformations = "transformations"
    corruptions = "corruptions"
    losses = "losses"
    recipes = "recipes"
    networks = "networks"
    optimizers = "optimizers"
    schedules = "schedules"
    averages = "averages"
    augmentations = "augmentations"
    attributions = "attributions"
    changes = "changes"
    defenses = "defenses"
    models = "models"
    data = "data"
    suites = "suites"


_KINDS: dict[Listed, registry.Kind] = {
    Listed.attacks: "attack",
    Listed.threats: "threat",
    Listed.transformations: "transformation",
    Listed.corruptions: "corruption",
    Listed.losses: "loss",
    Listed.recipes: "recipe",
    Listed.networks: "network",
    Listed.optimizers: "optimizer",
    Listed.schedules: "schedule",
    Listed.averages: "average",
    Listed.augmentations: "augmentation",
    Listed.attributions: "attribution",
    Listed.changes: "change",
    Listed.defenses: "defense",
    Listed.models: "model",
    Listed.data: "data",
    Listed.suites: "suite",
}


@terminal.guarded
def list_(
    kind: Annotated[Listed | None, typer.Argument(help="What to list; everything when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List attacks, threats, recipes, networks, models, data, suites and whatever else can be named."""
    kinds = [kind] if kind else list(Listed)
    if as_json:
        found = {k.value: [entry.as_dict() for entry in registry.entries(_KINDS[k])] for k in kinds}
        terminal.document(found[kind.value] if kind else found)
        return
    for each in kinds:
        terminal.people.print(_listing(each))


def _listing(kind: Listed) -> Table:
    entries = registry.entries(_KINDS[kind])
    table = Table(title=kind.value, title_justify="left", box=None, pad_edge=False, title_style="bold")
    optional = [name for name in ("access", "threats") if any(getattr(entry, name) for entry in entries)]
    for heading in ("name", *optional, "summary"):
        whole = heading in ("name", "access")
        width = 28 if heading == "threats" else None
        table.add_column(heading, style="cyan" if heading == "name" else "", no_wrap=whole, max_width=width)
    for entry in entries:
        cells = {"access": entry.access, "threats": _threats(entry)}
        table.add_row(entry.name, *(cells[name] for name in optional), Text(entry.summary))
    return table


def _threats(entry: registry.Entry) -> str:
    """The threats that an attack can use, in few words: of those that most take, those that it does not."""
    every = [name.lower() for name in registry.names("threat")]
    missing = [name for name in every if name not in entry.threats]
    if not missing:
        return "all"
    return ", ".join(entry.threats) if len(missing) >= len(entry.threats) else f"all but {', '.join(missing)}"


@terminal.guarded
def show(
    name: Annotated[str, typer.Argument(help="An attack, a threat, a recipe: any name that `assay list` shows.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what one of them is and takes: parameters, types, defaults, meaning, access, threats, paper."""
    found = [entry for kind in registry.KINDS if (entry := registry.find(kind, name))]
    if not found:
        everything = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise SettingError(f"nothing is named {name!r}. {registry.hint(name, everything)}")
    description = describe(next((entry for entry in found if entry.name == name), found[0]))
    if as_json:
        terminal.document(description)
    else:
        terminal.people.print(_page(description))


def _page(description: dict[str, Any]) -> RenderableType:
    known = dict(description)
    title = Text.assemble((known.pop("name"), "bold cyan"), f"  {known.pop('kind')}: {known.pop('summary', '')}")
    parameters = known.pop("parameters", None)
    long = {key: known.pop(key) for key in ("about", "raises", "deviations", "references") if key in known}
    parts: list[RenderableType] = [title, ""]
    if "about" in long:
        parts += [Text(long.pop("about")), ""]
    if parameters is not None:
        parts += [_parameters(parameters), ""]
    if known:
        parts += [_facts(known)]
    for heading, text in long.items():
        parts += ["", Text(heading, style="bold"), Padding(Text(text), (0, 0, 0, 2))]
    return Group(*parts)


def _parameters(parameters: list[dict[str, str | None]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("parameter", "type", "default", "meaning"):
        table.add_column(heading, style="cyan" if heading == "parameter" else "", overflow="fold")
    for each in parameters:
        default = "required" if each["default"] is None else each["default"]
        table.add_row(each["name"], Text(each["type"] or ""), Text(default), Text(each["meaning"] or ""))
    return table


def _facts(known: dict[str, Any], prefix: str = "") -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, fact in _flat(known, prefix):
        table.add_row(key, Text(fact))
    return table


def _flat(known: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, fact in known.items():
        if isinstance(fact, dict):
            rows += _flat(fact, f"{prefix}{key}.")
        elif isinstance(fact, list) and fact and isinstance(fact[0], dict):
            for place, item in enumerate(fact, start=1):
                rows += _flat(item, f"{prefix}{key}[{place}].")
        elif isinstance(fact, (list, tuple)):
            rows.append((prefix + key, ", ".join(map(str, fact))))
        else:
            rows.append((prefix + key, str(fact)))
    return rows
