"""Kill an evaluation again and again, continue it, and compare its table with that of an unbroken run.

    python benchmarks/resume.py --kills 5

Each kill is a SIGKILL at a random moment, after which the same command is started again with resume=True. Printed are
the moments, what was kept each time, and whether the two tables are equal in every column.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import assay
from assay.evaluation import Store
from assay.evaluation.merge import COLUMNS

RUN = """
import sys, torch, assay
torch.set_num_threads(1)
model, data, threat, suite, limit, chunk, out = sys.argv[1:]
assay.evaluate(model, data, threat=threat, suite=suite, limit=int(limit), chunk=int(chunk), out=out, resume=True,
               progress=False)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--model", default="fashion-cnn-pgd")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--threat", default="linf:0.1")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--limit", default="100")
    parser.add_argument("--chunk", default="10")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    settings = [options.model, options.data, options.threat, options.suite, options.limit, options.chunk]
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Path(scratch, "whole"), Path(scratch, "broken")
        finish(start(settings, whole))
        shards = len(list(whole.rglob("*.safetensors")))
        for kill in range(1, options.kills + 1):
            process = start(settings, broken)
            after = len(list(broken.rglob("*.safetensors"))) + moments.randint(0, max(1, shards // options.kills))
            while process.poll() is None and len(list(broken.rglob("*.safetensors"))) < after:
                time.sleep(0.002)
            time.sleep(moments.uniform(0.0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"kill {kill}: {len(list(broken.rglob('*.safetensors')))} of {shards} shards were there")
        finish(start(settings, broken))
        return compare(Store.open(whole), Store.open(broken))


def start(settings: list[str], out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, *settings, str(out)])


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        sys.exit("the evaluation itself failed")


def compare(whole: Store, broken: Store) -> int:
    first, second = whole.merge(), broken.merge()
    different = [name for name in COLUMNS if not torch.equal(getattr(first, name), getattr(second, name))]
    robust = float(first.robust.double().mean())
    print(f"{len(first)} samples, robust accuracy {robust:.1%}, assay {assay.__version__}")
    print("differing columns: " + ", ".join(different) if different else "the tables are equal in every column")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
