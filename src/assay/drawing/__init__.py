"""Pictures of moves: what an attack did to an image, beside the image before and after."""

from assay.drawing.moves import drawn
from assay.drawing.sheet import picture
from assay.drawing.tiles import Tile

__all__ = ["Tile", "drawn", "picture"]
