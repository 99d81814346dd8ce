"""Options on the steps of training, which `assay train` and `assay study` share, and the panels of their help."""

from __future__ import annotations

from typing import Annotated

import typer

STEPS = "Steps"
SPEED = "Speed"
MEASURED = "What is measured and kept"

Batch = Annotated[int, typer.Option(min=1, help="Samples of a step, over all processes.", rich_help_panel=STEPS)]
Optimizer = Annotated[
    str | None,
    typer.Option(
        help="'SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)'.", show_default="AdamW(lr=2e-3)", rich_help_panel=STEPS
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(help="'Piecewise(milestones=(0.5, 0.75))', cosine.", show_default="cyclic", rich_help_panel=STEPS),
]
Average = Annotated[
    str | None,
    typer.Option(help="Average of the weights: 'EMA(decay=0.998)', swa.", show_default="none", rich_help_panel=STEPS),
]
Augment = Annotated[
    list[str] | None,
    typer.Option(help="A random change of inputs: 'Crop(padding=4)', flip; may be repeated.", rich_help_panel=STEPS),
]
TestLimit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Only the first N test samples.", rich_help_panel=MEASURED)
]
