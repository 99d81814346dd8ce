"""Runs under threats beyond the norms keep moves of their examples, and the report draws them."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import assay
from assay.drawing import drawn
from assay.evaluation.report import render, source

THREATS = [
    assay.Flow(0.1),
    assay.Translation(2.0),
    assay.Combined(assay.Recolor(0.1, resolution=(3, 3, 3)), assay.Flow(0.1)),
    assay.Linf(0.05),
]


def run(threat: Any, out: Path) -> assay.Evaluation:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 3))
    x = torch.rand(12, 3, 8, 8)
    attack = assay.attacks.PGD(threat=threat, steps=5)
    return assay.evaluate(model, (x, model(x).argmax(dim=1)), threat=threat, suite=[("pgd", attack)], out=out, chunk=6)


def panels(html: str) -> list[list[tuple[str, np.ndarray]]]:
    """Words and pixels of each card's pictures."""
    cards = html.split('<figure class="card">')[1:]
    found = [re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', card) for card in cards]
    return [[(alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))) for data, alt in card] for card in found]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_moves_are_kept_and_drawn(threat: Any, tmp_path: Path) -> None:
    run(threat, tmp_path / "a")
    html = render(tmp_path / "a").read_text()
    examples = {example.index: example for example in source.read(tmp_path / "a").examples}
    cards = panels(html)
    assert len(cards) == len(examples) > 1
    for card in cards:
        example = examples[int(card[0][0].split()[-1])]
        if isinstance(threat, assay.Linf):
            assert example.move is None
            assert "times amplified" in card[2][0]
            continue
        assert example.move is not None
        x, theta = (torch.from_numpy(value)[None] for value in (example.clean, example.move))
        assert torch.allclose(threat.apply(x, theta)[0], torch.from_numpy(example.adversarial), atol=1e-5)
        tiles = drawn(threat, x, theta)
        assert len(card) == 2 + len(tiles)
        for (words, pixels), tile in zip(card[2:], tiles, strict=True):
            assert words.endswith(f"{tile.head}, {tile.words}")
            assert np.array_equal(pixels, np.asarray(tile.image))
    assert ("and the move itself" in html) == (not isinstance(threat, assay.Linf))


def test_without_moves_the_difference_is_shown_as_it_is(tmp_path: Path) -> None:
    found = run(assay.Flow(0.02), tmp_path / "a")
    for stage in found.store.stages[1:]:
        for start in found.store.done(stage):
            shard = found.store.read_shard(stage, start)
            kept = {name: value for name, value in shard.examples.items() if name != "example_move"}
            found.store.write_shard(replace(shard, examples=kept))
    cards = panels(render(tmp_path / "a").read_text())
    assert len(cards) > 0
    for card in cards:
        assert "1 times amplified" in card[2][0]
        change = card[1][1].astype(float) - card[0][1]
        assert np.abs(card[2][1] - 127.5 - change).max() <= 1.5
        assert np.abs(change).max() < 60  # which would be amplified under a norm
