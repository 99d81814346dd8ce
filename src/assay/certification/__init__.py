"""Randomized smoothing with its proof: predictions that abstain, and radii within which nothing can change them."""

from assay.certification.certify import Certification, certify
from assay.certification.monte_carlo import Certificates, Smoothing

__all__ = ["Certificates", "Certification", "Smoothing", "certify"]
