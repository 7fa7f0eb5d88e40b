"""Layer graphs: trained networks as data, with a digital float32 reference execution."""

from rramsim.network.graph import Network, Node

__all__ = ["Network", "Node"]
