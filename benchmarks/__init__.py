"""Every figure that the documentation quotes; run each as ``python -m benchmarks.NAME``."""
