"""Chains on the GPU in evaluation: a few fused passes, prepared once and compiled for what they do."""
