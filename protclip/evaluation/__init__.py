"""Evaluation of checkpoints: benchmarks, how they are predicted, reports."""
