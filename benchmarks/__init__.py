"""anex beside its peers on this machine: ``make bench`` or ``python -m benchmarks --help``."""
