"""Runs that are stopped: killed, interrupted, a model or an image that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
from misuse.runs import (
    FAILED,
    LINE,
    STOPPED,
    Place,
    calls,
    resumed,
    row,
    shards,
    wait_for,
)
from misuse.shell import Row, assay, finish, judge, split, start

from assay.data import load_data


def killed(place: Place) -> Row:
    run = place.half("killed")
    state = json.loads((run / "run.json").read_text())["state"]
    kept, message, faults = resumed(place, run, shards(run))
    return row(
        "kill -9 during evaluate", f"{LINE} --out killed", -9, message or "(nothing)", f"state {state}; {kept}", faults
    )


def interrupted(place: Place) -> Row:
    return _stopped(place, "interrupted", LINE, devices=1)


def interrupted_ranks(place: Place) -> Row:
    return _stopped(place, "interrupted2", f"{LINE} --devices 2", devices=2)


def _stopped(place: Place, name: str, line: str, devices: int) -> Row:
    run = place.scratch / name
    line = f"{line} --out {name}"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(place.scratch / f"calls-{name}"))
    wait_for(process, lambda: len(shards(run)) >= 6)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "--resume", "kept"))
    kept, _, more = resumed(place, run, shards(run))
    with_ranks = f", {devices} processes" if devices > 1 else ""
    return row(f"Ctrl-C during evaluate{with_ranks}", line, code, message, kept, faults + more)


def interrupted_attack(place: Place) -> Row:
    line = "attack wrong:Watched --data digits --attack pgd --threat linf:0.1 --limit 40 --batch 10 --save"
    assay(place.scratch, *split(f"{line} all.npz"))
    note = place.scratch / "calls-attack"
    process = start(place.scratch, *split(f"{line} part.npz"), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(calls(note)) >= 120)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "part.npz"))
    kept, equal = 0, False
    if (place.scratch / "part.npz").exists():
        with np.load(place.scratch / "all.npz") as whole, np.load(place.scratch / "part.npz") as part:
            kept = len(part["y"])
            equal = all(np.array_equal(part[name], whole[name][:kept]) for name in part.files)
    faults += () if equal and kept else ("nothing usable was saved",)
    told = f"{kept} of 40 samples saved, {'equal to' if equal else 'NOT'} those of an unbroken attack"
    return row("Ctrl-C during attack --save", f"{line} part.npz", code, message, told, faults)


def interrupted_attack_early(place: Place) -> Row:
    line = "attack wrong:Watched --data digits --attack pgd --threat linf:0.1 --limit 40 --save none.npz"
    note = place.scratch / "calls-early"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(calls(note)) >= 5)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "--batch"))
    there = "a file was left" if (place.scratch / "none.npz").exists() else "no file was left"
    return row("Ctrl-C before the first chunk of an attack is done", line, code, message, there, faults)


def worker_killed(place: Place) -> Row:
    run, note = place.scratch / "ranks", place.scratch / "calls-ranks"
    line = f"{LINE} --out ranks --devices 2"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(shards(run)) >= 6 and len(set(calls(note)) - {process.pid}) == 2)
    os.kill(max(set(calls(note)) - {process.pid}), signal.SIGKILL)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("killed by signal 9", "kept", "--resume"))
    kept, _, more = resumed(place, run, shards(run))
    return row("a worker process killed", line, code, message, kept, faults + more)


def model_fails(place: Place) -> Row:
    line = f"{LINE} --out fails"
    process = start(place.scratch, *split(line), MISUSE_FAILS_AFTER="80")
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("fallen off the bus", "ASSAY_DEBUG", "--resume"))
    run = place.scratch / "fails"
    kept, _, more = resumed(place, run, shards(run))
    return row("the model raises an exception after 80 calls", line, code, message, kept, faults + more)


def model_fails_in_a_worker(place: Place) -> Row:
    line = f"{LINE} --out fails2 --devices 2"
    process = start(place.scratch, *split(line), MISUSE_FAILS_AFTER="60")
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("fallen off the bus", "kept", "--resume"))
    run = place.scratch / "fails2"
    kept, _, more = resumed(place, run, shards(run))
    return row("the model raises an exception in a worker process", line, code, message, kept, faults + more)


def truncated_image(place: Place) -> Row:
    line = "evaluate wrong:Watched --data folder:images --threat linf:0.1 --suite quick --chunk 10"
    assay(place.scratch, *split(f"{line} --out images-whole"))
    image = load_data(f"folder:{place.scratch / 'images'}").x.paths[35]  # past those that are looked at beforehand
    content = image.read_bytes()
    image.write_bytes(content[:60])
    code, message = assay(place.scratch, *split(f"{line} --out images-run"))
    faults = judge(code, message, FAILED, ("cannot read the image", image.name, "Replace it", "--resume"))
    before = shards(place.scratch / "images-run")
    image.write_bytes(content)
    other = Place(place.scratch / "other")
    other.scratch.mkdir()
    (other.scratch / "whole").symlink_to(place.scratch / "images-whole")
    shutil.copytree(place.scratch / "images-run", other.scratch / "run")
    for name in ("images", "wrong.py"):
        (other.scratch / name).symlink_to(place.scratch / name)
    kept, _, more = resumed(other, other.scratch / "run", before, line)
    return row("an image of the folder is cut short; mended, resumed", line, code, message, kept, faults + more)


CASES = [
    interrupted,
    interrupted_ranks,
    interrupted_attack,
    interrupted_attack_early,
    killed,
    worker_killed,
    model_fails,
    model_fails_in_a_worker,
    truncated_image,
]
