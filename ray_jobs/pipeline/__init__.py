"""All stages as one job."""
