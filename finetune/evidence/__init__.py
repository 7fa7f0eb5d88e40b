"""What a chip's answers say about it: samples, identification, beliefs, sensitivities."""
