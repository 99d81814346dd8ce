"""``assay calibrate``: the thresholds of a detector."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from assay.cli import options, terminal


@terminal.guarded
def calibrate(
    model: options.Model,
    data: options.Data,
    defense: Annotated[str, typer.Option(metavar="DEFENSE", help="The detector: 'MagNet()', 'DensityDetector()'.")],
    drop: Annotated[float, typer.Option(help="Share of the samples that each statistic may reject.")] = 0.001,
    skip: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out the first N samples.")] = 0,
    limit: options.Limit = None,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the thresholds of a detector on samples that nobody has attacked; the answer is the defense to use."""
    from assay.evaluation.calibrate import calibrate as run

    with terminal.bar("", quiet=quiet, left=True) as bar:
        task = bar.add_task("statistics", total=None)
        found = run(
            options.canonical("model", model),
            options.canonical("data", data),
            defense,
            drop=drop,
            skip=skip,
            limit=limit,
            device=options.device(device),
            step=lambda done, total: bar.update(task, completed=done, total=total),
        )
    named = dict(zip(found.statistics, found.thresholds, strict=True))
    if not quiet:
        table = Table(box=None, pad_edge=False)
        table.add_column("statistic")
        table.add_column("threshold", justify="right")
        for name, threshold in named.items():
            table.add_row(name, f"{threshold:.6g}")
        terminal.people.print(table)
        terminal.people.print(f"each rejects {drop:.2%} of the samples")
    if as_json:
        terminal.document({"defense": repr(found), "drop": drop, "thresholds": named})
    else:
        terminal.result(repr(found))
