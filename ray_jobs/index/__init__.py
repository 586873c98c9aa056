"""Embeddings into an index."""
