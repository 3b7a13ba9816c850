"""Mamba in plain torch around the scan of the mamba_ssm package, which `selective_scan` picks."""

from ascseg_cli.kernels.mamba_mixer.reference import mamba_mixer

__all__ = ["mamba_mixer"]
