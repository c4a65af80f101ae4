"""Datasets, jobs, review, release gate and audit of a site; no transport and no storage."""
