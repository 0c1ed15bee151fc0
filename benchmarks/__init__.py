"""Speed and error of fastsoftmax beside its peers: ``python -m benchmarks --help``."""
