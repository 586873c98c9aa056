"""ProtCLIP over HTTP, on Ray Serve: schemas → api → deployments → app → main."""
