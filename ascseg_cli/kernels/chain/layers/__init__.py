"""Chains on the GPU with gradients: layer after layer, each normalisation waiting until the next one loads."""
