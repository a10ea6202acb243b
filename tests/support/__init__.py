"""What tests share, and benchmarks with them."""
