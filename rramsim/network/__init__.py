"""Layer graphs: trained networks as data, with a digital float32 reference execution."""

from rramsim.network import formats as formats  # registers readers and writers
from rramsim.network.graph import Network
from rramsim.network.inputs import NamedInputs
from rramsim.network.node import Node

__all__ = ["NamedInputs", "Network", "Node"]
