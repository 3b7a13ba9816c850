"""Weights by name: the manifest, the store on this machine, downloads, import of foreign checkpoints."""
