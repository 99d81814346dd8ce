"""Peak resident memory of an attack on a large chunk (Linux).

    python benchmarks/memory.py --data FOLDER [--count 4096] [--steps 10]

For each norm a fresh process imports torch and assay, loads the network and notes its resident size: the *base*. Then
it loads the inputs (so they are counted), resets the kernel's high-water mark, and runs APGD on all of them as one
chunk. Reported is the high-water mark of that run minus the base, which must stay under 2 GiB. The first budget lets
nothing succeed, which keeps every sample in the search; the other is a usual one. Memory does not grow with the number
of steps, so a few are enough. Written: results/memory.json, results/memory.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 2**20
LIMIT = 2048  # MiB
BUDGETS = {"Linf": (1e-6, 8 / 255), "L2": (1e-6, 0.5), "L1": (1e-6, 12.0)}


def resident(field: str) -> float:
    """MiB: VmRSS is the size now, VmHWM the highest since the mark was reset."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1)) / 1024


def measure(options: argparse.Namespace) -> dict:
    import torch
    from folder import reader

    import assay
    from assay.attacks import APGD

    torch.set_num_threads(options.threads)
    load = reader(options.data)
    model = load.net(options.net)
    base = resident("VmRSS")
    x, y = load.cifar10("test")
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(100)])  # its own answers: every sample takes part
    times = -(-options.count // len(x))
    x, y = x.repeat(times, 1, 1, 1)[: options.count], y.repeat(times)[: options.count]
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    attack = APGD(threat=getattr(assay, options.norm)(options.eps), steps=options.steps)
    result = attack(model, x, y)
    peak = resident("VmHWM")
    return {
        "norm": options.norm,
        "eps": options.eps,
        "succeeded": int(result.success.sum()),
        "inputs_mib": x.numel() * x.element_size() / MIB,
        "base_mib": base,
        "peak_mib": peak,
        "beyond_mib": peak - base,
    }


def page(report: dict) -> str:
    from machine import sentence

    text = ["# Memory", "", sentence(report["machine"]), ""]
    text += [
        f"APGD, {report['steps']} steps, on {report['count']} samples of 3x32x32 as one chunk, {report['net']}.",
        "*Base* is the process with torch, assay and the network loaded; *beyond* is the peak during the attack minus",
        f"the base, inputs included. Limit: {LIMIT} MiB.",
    ]
    text += [
        "",
        "| threat | succeeded | inputs, MiB | base, MiB | peak, MiB | beyond, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for line in report["lines"]:
        over = " **exceeded**" if line["beyond_mib"] > LIMIT else ""
        sizes = " | ".join(f"{line[key]:.0f}" for key in ("inputs_mib", "base_mib", "peak_mib", "beyond_mib"))
        text.append(f"| {line['norm']} {line['eps']:.4g} | {line['succeeded']} | {sizes}{over} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
    parser.add_argument("--net", default="recolor_delta")
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--norm", choices=BUDGETS, help=argparse.SUPPRESS)
    parser.add_argument("--eps", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.norm is not None:
        print(json.dumps(measure(options)))
        return

    from machine import describe

    lines = []
    for norm, budgets in BUDGETS.items():
        for eps in budgets:
            command = [sys.executable, __file__, *sys.argv[1:], "--norm", norm, "--eps", repr(eps)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            lines.append(json.loads(answer))
            print(lines[-1], file=sys.stderr, flush=True)
    settings = {"net": options.net, "count": options.count, "steps": options.steps}
    report = {"machine": describe(options.threads), **settings, "lines": lines}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "memory.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "memory.md").write_text(page(report))
    raise SystemExit(any(line["beyond_mib"] > LIMIT for line in lines))


if __name__ == "__main__":
    main()
