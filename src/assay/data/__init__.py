"""Data: loading it by name, and adopting what users have."""

from assay.data.dataset import Data
from assay.data.load import load_data

__all__ = ["Data", "load_data"]
