"""Evaluation: a suite of attacks over a data set, kept in a run directory, with the per-sample worst case."""
