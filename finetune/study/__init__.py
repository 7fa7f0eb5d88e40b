"""Experiments: configuration, trials, archives, statistics, figures and the command line.

May import everything; nothing imports it.
"""
