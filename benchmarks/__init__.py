"""What this program costs, measured for real: `python -m benchmarks`. Nothing here is a test."""
