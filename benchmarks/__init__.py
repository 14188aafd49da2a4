"""The same work against Weft and against Synapse, side by side; see benchmarks/README.md."""
