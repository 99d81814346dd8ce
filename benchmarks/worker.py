"""One library in one process, driven by JSON lines, so that libraries can take turns in time.

    PYTHON_OF_THE_ENVIRONMENT benchmarks/worker.py LIBRARY --data FOLDER --threads N

Requests, one a line on standard input, each answered by one line on standard output:

    {"do": "load", "net": "resnet20", "data": "cifar10", "count": 300}      "right": true keeps those it has right
        -> {"versions": {...}, "attacks": ["pgd", "apgd"]}
    {"do": "attack", "attack": "pgd", "norm": "linf", "eps": 0.03, "steps": 40, "seed": 0, "batch": 100,
     "save": "x.npy"}                                        "first": 10 takes only the first 10 images
        -> {"seconds": ..., "forwards": ..., "backwards": ...}   rows in total; the images go to the file
        -> {"error": "..."}                                      the library failed

What a library prints goes to standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings

import numpy as np
import torch
from counted import Counted
from folder import images, network, reader, right_images

LIBRARIES = ("assay", "foolbox", "torchattacks", "art", "advlib", "autoattack")


class Session:
    """The network and images now loaded, and the library's runner."""

    def __init__(self, library: str, data: str) -> None:
        self.runner = importlib.import_module(f"runners.with_{library}")
        self.load = reader(data)

    def do_load(self, net: str, data: str, count: int, right: bool = False) -> dict:
        model = network(self.load, net)
        self.x, self.y = right_images(self.load, data, count, model) if right else images(self.load, data, count)
        self.model = Counted(model).eval()
        first = self.x[:100].clone().requires_grad_()
        torch.autograd.grad(self.model(first).sum(), first)  # the first pass of a process is slower than the rest
        return {"versions": self.runner.versions(), "attacks": sorted(self.runner.ATTACKS)}

    def do_attack(self, attack: str, seed: int, save: str, first: int | None = None, **settings: str | float) -> dict:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  one peer draws from NumPy's global generator
        self.model.reset()
        run = self.runner.ATTACKS[attack]
        start = time.perf_counter()
        try:
            x_adv = run(self.model, self.x[:first], self.y[:first], seed=seed, **settings)
        except Exception as error:  # a library that fails is a result, too
            return {"error": f"{type(error).__name__}: {error}"}
        seconds = time.perf_counter() - start
        np.save(save, x_adv.detach().numpy())
        return {"seconds": seconds, "forwards": self.model.forwards, "backwards": self.model.backwards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    session = Session(options.library, options.data)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(session, "do_" + request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
