"""The composition root: wires programs to edges and the core, one file per command."""
