"""Build one virtual environment for each peer library, so that their pins never meet ours or one another's.

    python benchmarks/setup_peers.py [PEER ...]      # all by default; --help names them

Each environment gets the torch and NumPy of this repository's constraints file first, then what the peer really
imports, then the peer itself from PyPI without its declared dependencies. That keeps out pins that are years
old (`requests~=2.25.1`) and torchvision, which would replace torch and which no attack compared here imports.
ASSAY_BENCH_ENVS names another place for the environments than benchmarks/.envs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVS = Path(os.environ.get("ASSAY_BENCH_ENVS", HERE / ".envs"))
CONSTRAINTS = HERE.parent / "constraints.txt"

# library -> (its requirement, what it imports beside torch and NumPy)
PEERS = {
    "foolbox": ("foolbox==3.3.4", ["eagerpy", "scipy", "setuptools", "GitPython", "requests"]),
    "torchattacks": ("torchattacks==3.5.1", ["scipy", "tqdm", "requests"]),
    "art": (
        "adversarial-robustness-toolbox==1.20.1",
        ["scipy", "scikit-learn", "six", "tqdm", "setuptools", "packaging"],
    ),
    "advlib": ("adv-lib==0.2.8", ["tqdm"]),
    "autoattack": ("pyautoattack==0.2.0", []),
    "imagecorruptions": (
        "imagecorruptions-imaug==1.1.5",
        ["scikit-image", "opencv-python-headless", "scipy", "numba", "pillow", "setuptools"],
    ),
}


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return ENVS / peer / "bin" / "python"


def build(peer: str) -> None:
    requirement, imports = PEERS[peer]
    python = python_of(peer)
    subprocess.run([sys.executable, "-m", "venv", str(ENVS / peer)], check=True)

    def pip(*arguments: str) -> None:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)

    pip("-c", str(CONSTRAINTS), "torch", "numpy")
    if imports:
        pip("-c", str(CONSTRAINTS), *imports)
    pip("--no-deps", requirement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(PEERS))
    for peer in parser.parse_args().peers or PEERS:
        print(f"building {ENVS / peer}", flush=True)
        build(peer)


if __name__ == "__main__":
    main()
