"""What a tuner may see of any chip: the protocol, its gate, the remote chip, levels and codes.

Imports kernels and ground files only.
"""
