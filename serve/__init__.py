"""ProtCLIP over HTTP on Ray Serve.

A request passes front → guard → api → deployments → batching; main → server starts it, app builds it for Serve.
"""
