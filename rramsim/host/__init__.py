"""The digital side of a network on a chip. Imports network and blackbox, never chip."""
