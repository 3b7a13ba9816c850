"""AVX-512 switched off for torch, oneDNN and our kernels, in this process and those it starts."""

from __future__ import annotations

import os


def without_avx512() -> None:
    """To be called before torch is loaded."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    features = llvm.get_host_cpu_features()
    narrow = {name: has and not name.startswith("avx512") for name, has in features.items()}
    os.environ["NUMBA_CPU_NAME"] = "x86-64-v3"
    os.environ["NUMBA_CPU_FEATURES"] = ",".join(
        f"{'+' if has else '-'}{name}" for name, has in sorted(narrow.items())
    )
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
