"""The epochs of a run for TensorBoard, where it is installed."""

from __future__ import annotations

from pathlib import Path

from assay.training.folder import Row

FOLDER = "tensorboard"  # within that of the run
_NAMES = {
    "loss": "loss/train",
    "clean": "accuracy/clean",
    "robust": "accuracy/robust",
    "quality": "quality/held_out",
    "lr": "schedule/lr",
    "images_per_second": "speed/images_per_second",
}


def note(run: Path, row: Row) -> None:
    """Write one epoch as scalars into `tensorboard/`; nothing where TensorBoard is not installed.

    The first epoch of a run removes the events of one that it replaces.

    Args:
        run: the folder of the run.
        row: the epoch.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    place = run / FOLDER
    if row["epoch"] == 1:
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
    with SummaryWriter(str(place), filename_suffix=f".epoch-{row['epoch']}") as writer:
        for key, name in _NAMES.items():
            if row[key] is not None:
                writer.add_scalar(name, row[key], row["epoch"])
