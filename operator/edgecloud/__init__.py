"""Distributed PyTorch training from one file. A training script imports `edgecloud.worker`."""
