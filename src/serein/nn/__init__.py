"""Tensors to tensors: the adapter, its losses, pooling and classifier; imports torch only."""
