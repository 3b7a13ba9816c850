"""The CPU kernels as LLVM code for any processor, so that a machine needs two seconds for them, not fifteen.

Most of numba's time for a kernel goes to Python's part: types, and LLVM code from them. That part is the same
everywhere, so its result lies here, made by `python -m ascseg_cli.kernels.llvm_code`.
"""
