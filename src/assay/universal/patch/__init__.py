"""The universal adversarial patch: one picture that, put anywhere into an image, decides what the model sees."""

from assay.universal.patch.artefact import UniversalPatch
from assay.universal.patch.ascent import PatchAscent
from assay.universal.patch.fit import fit_patch, patch_fitting, patch_method
from assay.universal.patch.pasting import Pasting, Places

__all__ = ["Pasting", "PatchAscent", "Places", "UniversalPatch", "fit_patch", "patch_fitting", "patch_method"]
