"""imagecorruptions-imaug in a process of its own, driven by JSON lines; what it prints goes to standard error."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import warnings

import cv2
import numpy as np
from imagecorruptions import corrupt

SECONDS = 0.6  # how long images are timed at least


def do_version() -> dict:
    return {"version": importlib.metadata.version("imagecorruptions-imaug")}


def do_corrupt(name: str, severity: int, draws: int, x: str, out: str) -> dict:
    images = np.load(x)
    found = [[corrupt(image, severity=severity, corruption_name=name) for image in images] for _ in range(draws)]
    np.save(os.path.join(out, "out.npy"), np.stack([np.stack(row) for row in found]))
    return {}


def do_time(name: str, severity: int, x: str) -> dict:
    images = np.load(x)
    corrupt(images[0], severity=severity, corruption_name=name)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        corrupt(images[count % len(images)], severity=severity, corruption_name=name)
        count += 1
    return {"rate": count / (time.perf_counter() - began)}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    np.random.seed(0)  # noqa: NPY002  its draws are of NumPy's global generator
    cv2.setNumThreads(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        answer = globals()["do_" + request.pop("do")](**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
