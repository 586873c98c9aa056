"""Batch work on Ray: curation, pretraining, embedding and indexing, and the command ``protclip``."""
