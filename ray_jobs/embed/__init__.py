"""Proteins or texts into a folder of embeddings."""
