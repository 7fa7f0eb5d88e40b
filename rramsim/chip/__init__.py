"""The simulated chip: cells on tiles behind converters. Imports cell, circuit and blackbox, never host."""
