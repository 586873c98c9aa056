"""What people see of a run: lines of progress, the report, curves, pictures, trackers."""
