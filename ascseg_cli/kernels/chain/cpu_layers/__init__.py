"""Layers with gradients on the CPU, as autograd functions over compiled kernels: what torch is slow at."""
