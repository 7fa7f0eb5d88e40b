"""Kirchhoff's laws for a crossbar with wires: exact solutions, estimates, SPICE netlists.

Imports kernels and ground files only.
"""
