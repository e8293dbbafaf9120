"""The systems that serein is compared with, each an nn.Module on the same frames."""
