"""Our corruptions beside imagecorruptions-imaug, at 32 and 224 pixels: the same pictures, and how many a second.

    python benchmarks/setup_peers.py imagecorruptions
    python benchmarks/corruptions.py --data FOLDER [--threads 2] [--images 24] [--draws 12] [--batch 256]

Both have the parameters of ImageNet-C at both sizes, since the peer has no others. Corruptions without chance are
compared by the largest and the mean difference in 255ths. Random ones are compared by three numbers over all images
and draws: the mean value, the variance inside a picture, and the variance of a pixel from draw to draw; the peer's
elastic transform has other strengths than ImageNet-C, and its frost is six photographs, so that their draws differ.

Speed: our batches of so many images, and as many calls of the peer (it takes one image), in turns; the median of the
ratios of neighbours. What the peer takes is measured on fewer images, and scaled, where a call is long.

Written: results/corruptions.json, results/corruptions.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import sentence
from PIL import Image
from script import end, parser, where
from setup_peers import python_of

from assay.corruptions import select

HERE = Path(__file__).resolve().parent
SIDES = (32, 224)
SEVERITIES = range(1, 6)
FIXED = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}  # fmt: skip
LARGEST, MEAN = 2, 0.2  # allowed differences in 255ths, of corruptions without chance
LIGHT, INSIDE, BETWEEN = 0.01, 0.05, 0.25  # allowed difference of the mean, and of the variances in parts of theirs
OWN = {  # where the peer does something else: allowed differences, None for what says nothing
    "frost": (0.06, 0.15, None),  # other photographs
    "elastic_transform": (0.01, 0.15, None),  # other strengths
    "fog": (0.04, 0.2, 0.5),  # one draw decides on a whole picture: few draws are far apart
    "motion_blur": (0.015, 0.06, 0.3),  # the peer leaves the line out where it is longer than the picture
    "snow": (0.01, 0.05, 0.25),
}
STARVED = {(32, "spatter", 1)}  # the peer divides by 0 where there are no drops, and the picture is black
RATIO = 5.0  # images a second, of ours over theirs


class Peer:
    """The peer in a process of its own."""

    def __init__(self, threads: int) -> None:
        command = [str(python_of("imagecorruptions")), str(HERE / "runners" / "with_imagecorruptions.py"), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self.ask(do="version")["version"]

    def ask(self, **request: object) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def pictures(folder: Path, side: int, count: int) -> np.ndarray:
    """Real images `(count, side, side, 3)`: of CIFAR-10 as they are, and photographs."""
    if side == 32:
        x = np.load(folder / "cifar10" / "exact_300.npz")["x"][:count]
        return np.ascontiguousarray(x if x.shape[-1] == 3 else x.transpose(0, 2, 3, 1))
    found = []
    for path in sorted((folder / "imagenet").glob("*.JPEG"))[:: max(1, 100 // count)][:count]:
        with Image.open(path) as file:
            image = file.convert("RGB")
        scale = 1.15 * side / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        found.append(np.asarray(image.crop((left, top, left + side, top + side))))
    return np.stack(found)


def moments(found: np.ndarray) -> list[float]:
    """Mean, variance inside a picture, and from draw to draw, of 8-bit images `(draws, n, h, w, 3)`."""
    shares = found.astype(np.float32) / 255
    return [float(shares.mean()), float(shares.var(axis=(2, 3)).mean()), float(shares.var(axis=0, ddof=1).mean())]


def same(peer: Peer, kind, severity: int, x: np.ndarray, draws: int, scratch: Path) -> dict:
    """One corruption at one severity, both ways."""
    side, tensor = x.shape[1], torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    corrupt = kind(severity=severity, table="imagenet")
    count = 1 if kind.slug in FIXED else draws
    ours = np.stack([to_bytes(corrupt(tensor, draw=draw)) for draw in range(count)])
    np.save(scratch / "x.npy", x)
    peer.ask(do="corrupt", name=kind.slug, severity=severity, draws=count, x=str(scratch / "x.npy"), out=str(scratch))
    theirs = np.load(scratch / "out.npy")
    row: dict = {"side": side, "corruption": kind.slug, "severity": severity}
    if kind.slug in FIXED:
        difference = np.abs(ours.astype(int) - theirs.astype(int))
        row |= {"largest": int(difference.max()), "mean": float(difference.mean())}
        return row | {"holds": holds(row)}
    mine, other = moments(ours), moments(theirs)
    light, inside, between = mine[0] - other[0], *(a / max(b, 1e-9) for a, b in zip(mine[1:], other[1:], strict=True))
    row |= {"light": light, "inside": inside, "between": between}
    return row | {"holds": holds(row)}


def holds(row: dict) -> bool:
    """Whether one corruption at one severity is alike enough."""
    if "largest" in row:
        return row["largest"] <= LARGEST and row["mean"] <= MEAN
    if (row["side"], row["corruption"], row["severity"]) in STARVED:
        return True
    limits = OWN.get(row["corruption"], (LIGHT, INSIDE, BETWEEN))
    far = [abs(row["light"]), abs(row["inside"] - 1), abs(row["between"] - 1)]
    return all(limit is None or gap <= limit for gap, limit in zip(far, limits, strict=True))


def to_bytes(x: torch.Tensor) -> np.ndarray:
    return x.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def speed(peer: Peer, kind, x: np.ndarray, batch: int, rounds: int, scratch: Path) -> dict:
    """Images a second at severity 3, in turns."""
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    whole = tensor[torch.arange(batch) % len(tensor)].contiguous()
    corrupt = kind(severity=3, table="imagenet")
    np.save(scratch / "x.npy", x)
    corrupt(whole[:8])
    ratios, mine, theirs = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        corrupt(whole)
        mine.append(batch / (time.perf_counter() - began))
        theirs.append(peer.ask(do="time", name=kind.slug, severity=3, x=str(scratch / "x.npy"))["rate"])
        ratios.append(mine[-1] / theirs[-1])
    return {
        "side": x.shape[1],
        "corruption": kind.slug,
        "ours": float(np.median(mine)),
        "theirs": float(np.median(theirs)),
        "ratio": float(np.median(ratios)),
    }


def page(report: dict) -> str:
    lines = ["# Corruptions beside imagecorruptions-imaug", "", sentence(report["machine"]), ""]
    lines += [
        f"imagecorruptions-imaug {report['peer']}, {report['images']} images of each size, {report['draws']} draws of "
        "each; ImageNet-C's parameters at both sizes.", "",
        "## The same pictures", "",
        f"Without chance: at most {LARGEST} of 255 anywhere and {MEAN} in the mean. Cells: largest / mean difference "
        "in 255ths, severity 1 to 5.", "",
        "| pixels | corruption | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += _rows(report["same"], "largest", lambda row: f"{row['largest']} / {row['mean']:.3f}")
    lines += [
        "", "Random: difference of the mean (of 1), then the variance inside a picture and that from draw to draw, in "
        f"parts of theirs. Allowed: {LIGHT}, {INSIDE:.0%}, {BETWEEN:.0%}, and for those that differ by design "
        + ", ".join(f"{name} {limits}" for name, limits in OWN.items()) + ".", "",
        "| pixels | corruption | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += _rows(report["same"], "light", lambda row: f"{row['light']:+.3f} {row['inside']:.2f} {row['between']:.2f}")
    lines += [
        "", "Frost: textures grown by rule beside six photographs. Elastic transform: the peer has strengths of its "
        "own and no affine part. Spatter at 32 pixels, severity 1: where no drop falls the peer divides by zero, and "
        "the picture is black.", "",
    ]  # fmt: skip
    lines += ["## Images a second", "", f"Batches of {report['batch']}, severity 3.", ""]
    for side in SIDES:
        rows = [row for row in report["speed"] if row["side"] == side]
        lines += [f"{side} pixels", "", "| corruption | ours | theirs | times |", "|---|---:|---:|---:|"]
        lines += [f"| {r['corruption']} | {r['ours']:,.0f} | {r['theirs']:,.0f} | {r['ratio']:.1f} |" for r in rows]
        total = report["total"][str(side)]
        lines += [f"| all in turn | {total['ours']:,.1f} | {total['theirs']:,.1f} | {total['ratio']:.1f} |", ""]
    slow = [f"{r['corruption']} at {r['side']} ({r['ratio']:.1f})" for r in report["speed"] if r["ratio"] < RATIO]
    lines += [f"Less than {RATIO:g} times as fast: {', '.join(slow) if slow else 'none'}.", ""]
    return "\n".join(lines)


def _rows(same: list[dict], key: str, cell) -> list[str]:
    lines = []
    for side in SIDES:
        for slug in dict.fromkeys(row["corruption"] for row in same if key in row):
            own = [row for row in same if row["side"] == side and row["corruption"] == slug]
            cells = [cell(row) + ("" if row["holds"] else " **no**") for row in own]
            lines.append(f"| {side} | {slug} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=24)
    arguments.add_argument("--draws", type=int, default=12)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    peer, folder = Peer(options.threads), Path(options.data)
    report = where(options) | {
        "peer": peer.version, "images": options.images, "draws": options.draws, "batch": options.batch,
        "same": [], "speed": [], "total": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for side in SIDES:
            x = pictures(folder, side, options.images)
            for kind in select("all"):
                print(f"{side} pixels: {kind.slug}", file=sys.stderr, flush=True)
                for severity in SEVERITIES:
                    report["same"].append(same(peer, kind, severity, x, options.draws, scratch))
                report["speed"].append(speed(peer, kind, x, options.batch, options.rounds, scratch))
            rows = [row for row in report["speed"] if row["side"] == side]
            ours, theirs = (1 / sum(1 / row[who] for row in rows) for who in ("ours", "theirs"))
            report["total"][str(side)] = {"ours": ours, "theirs": theirs, "ratio": ours / theirs}
    same_ones = all(row["holds"] for row in report["same"])
    fast = all(total["ratio"] >= RATIO for total in report["total"].values())
    end("corruptions", report, page(report), options, holds=same_ones and fast)


if __name__ == "__main__":
    main()
