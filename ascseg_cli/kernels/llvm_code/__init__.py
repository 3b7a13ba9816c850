"""The CPU kernels as LLVM code for any processor, so that a machine needs two seconds for them, not fifteen.

Most of numba's time for a kernel goes to Python's part: types, and LLVM code from them. That part is the same
everywhere, so its result lies here, made by `python -m ascseg_cli.kernels.llvm_code`.
"""

# Arguments after the first and last task: f, d, l, u arrays of float32, float64, int64, uint8; i int; b bool;
# a number: a tuple of so many ints
KERNELS = {
    ("chain.cpu_kernels", "run"): "f4f4f4lfiiii",
    ("chain.cpu_kernels_backward", "by_doubling"): "f4fiii",
    ("chain.cpu_kernels_backward", "by_maximum"): "f4f4fiiii",
    ("chain.cpu_kernels_backward", "by_weight"): "f4f4ldiii",
    ("chain.cpu_kernels_norm", "layer_norm_backward"): "f4f4ffdiiii",
    ("chain.cpu_kernels_norm", "normalise"): "f4fffdfiiiii",
    ("chain.cpu_kernels_norm", "normalise_backward"): "f4f4fffffiiiii",
    ("channel_gate.cpu_kernels", "pool"): "f4fiii",
    ("deform_depthwise.cpu_kernels", "deform"): "ffff4iiii",
    ("deform_depthwise.cpu_kernels", "deform_backward"): "ffffffdiii",
    ("deform_depthwise.cpu_kernels", "pack"): "f3fiiii",
    ("mamba_mixer.cpu_kernels", "leave"): "f3f{11}f3iii",
    ("mamba_mixer.cpu_kernels", "mix"): "f3f{11}f3f3fbiiiiii",
    ("mamba_mixer.cpu_kernels_backward", "mix_backward"): "f3f3f{11}ff3diiiii",
    ("nearest.cpu_kernels", "measure"): "llflii",
    ("selective_scan.cpu_kernels", "scan"): "f3f3f3bff3f3ffffbiiii",
    ("selective_scan.cpu_kernels", "scan_backward"): "f3f3f3bff3f3ffff3fffdffddiiii",
    ("weighted_rows.cpu_kernels", "of_bytes"): "uflfii",
    ("weighted_rows.cpu_kernels", "of_floats"): "fflfii",
}
