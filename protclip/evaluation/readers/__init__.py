"""Readers of the published formats, a module for each family of them. None knows a task."""
