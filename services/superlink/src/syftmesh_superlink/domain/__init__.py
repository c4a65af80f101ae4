"""The rules of federated runs, free of network, store and generated code."""
