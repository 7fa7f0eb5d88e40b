"""Studies behind RESULTS.md: protocol, settings, analysis. The archives lie in `studies/archives`."""
