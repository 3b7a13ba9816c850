"""Says whether a wheel holds what it must and nothing that it mustn't: python .ci/check_wheel.py FILE.whl"""

from __future__ import annotations

import sys
import zipfile

from ascseg_cli.weights.manifest import parse_manifest

MUST = (
    "ascseg_cli/py.typed",
    "ascseg_cli/cli/app.py",
    "ascseg_cli/examples/polyps/polyp_1.jpg",
    "ascseg_cli/kernels/cuda/device.cuh",
    "ascseg_cli/kernels/llvm_code/chain.cpu_kernels.run.ll.xz",
    "ascseg_cli/kernels/llvm_code/sources.sha256",
    "ascseg_cli/kernels/mamba_mixer/forward.cu",
    "ascseg_cli/reporting/page.css",
    "ascseg_cli/reporting/page.js",
    "ascseg_cli/weights/weights_manifest.toml",
)
LIMIT = 20_000_000


def faults(wheel: zipfile.ZipFile) -> list[str]:
    """Everything wrong with a wheel, in words."""
    names = wheel.namelist()
    found = [f"lacks {name}" for name in MUST if name not in names]
    if "ascseg_cli/weights/weights_manifest.toml" in names:
        manifest = parse_manifest(
            wheel.read("ascseg_cli/weights/weights_manifest.toml").decode("utf-8"), "manifest"
        )
        files = [f"ascseg_cli/weights/files/{entry.file}" for entry in manifest.weights if entry.released]
        found += [f"lacks {name}" for name in files if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("lacks the licence")
    strangers = [n for n in names if not n.startswith("ascseg_cli/") and ".dist-info/" not in n]
    found += [f"holds {name}" for name in [*strangers, *(n for n in names if "/test" in n or "__pycache__" in n)]]
    size = sum(entry.compress_size for entry in wheel.infolist())
    return [*found, f"has {size:,} bytes"] if size > LIMIT else found


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as opened:
        wrong = faults(opened)
        sys.exit("\n".join(f"{sys.argv[1]} {fault}" for fault in wrong)) if wrong else None
