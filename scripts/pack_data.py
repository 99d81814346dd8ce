"""Write the data files that ship with the package.

Fashion-MNIST comes from a folder with its four ``*-ubyte.gz`` files (MIT licence), the digits from
scikit-learn.

    python scripts/pack_data.py --data FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.data.idx import array

SHIPPED = Path(__file__).resolve().parent.parent / "src" / "assay" / "data" / "shipped"


def fashion(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of ``part``: "train" or "t10k"."""
    return array(folder / f"{part}-images-idx3-ubyte.gz", 3), array(folder / f"{part}-labels-idx1-ubyte.gz", 1)


def pack(card: dict[str, object], images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """The images and labels, and the card that says how to read them and where they come from."""
    name = card["name"]
    np.savez_compressed(SHIPPED / f"{name}.npz", x=images, y=labels)
    (SHIPPED / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


FASHION = {
    "name": "fashion-mnist",
    "summary": "the first 2,000 test images of Fashion-MNIST, 1x28x28",
    "white": 255,
    "classes": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    "licence": "MIT, Zalando SE",
    "source": "https://github.com/zalandoresearch/fashion-mnist",
}

DIGITS = {
    "name": "digits",
    "summary": "the 1,797 handwritten digits of scikit-learn, 1x8x8",
    "white": 16,
    "classes": [str(digit) for digit in range(10)],
    "licence": "CC BY 4.0, E. Alpaydin and C. Kaynak",
    "source": "https://archive.ics.uci.edu/dataset/80, as packaged by scikit-learn",
}


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the four Fashion-MNIST idx files")
    SHIPPED.mkdir(parents=True, exist_ok=True)
    images, labels = fashion(parser.parse_args().data, "t10k")
    pack(FASHION, images[:2000], labels[:2000])
    from sklearn.datasets import load_digits

    digits = load_digits()
    pack(DIGITS, digits.images.astype(np.uint8), digits.target.astype(np.uint8))


if __name__ == "__main__":
    main()
