"""Data: loading it by name, and adopting what users have."""

from assay.data.dataset import Data
from assay.data.load import adopted, load_data

__all__ = ["Data", "adopted", "load_data"]
