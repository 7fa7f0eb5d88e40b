"""Every Numba kernel: numbers and arrays in, arrays out; imports only math, numpy and numba."""
