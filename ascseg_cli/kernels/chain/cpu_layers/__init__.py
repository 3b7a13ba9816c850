"""Layers with gradients on the CPU, as autograd functions over compiled kernels: what torch is slow at."""

STRIPS = 8  # shares of an image whose sums are kept apart: whatever the threads, one order of adding
