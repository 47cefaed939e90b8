"""Architecture -> nn.Module. Imports torch only where a module is built."""
