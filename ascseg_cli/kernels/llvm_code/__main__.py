"""`python -m ascseg_cli.kernels.llvm_code`: makes the CPU kernels' LLVM code anew, after a change of sources.

Each file holds one function `entry` that takes a pointer to whole numbers, the kernel's arguments as `words` of
`ascseg_cli.kernels.machine_code` lays them out, and returns 0, or another number where memory ran out.
"""

from __future__ import annotations

import importlib
import lzma
import os
import re
from typing import Any

os.environ["NUMBA_OPT"] = "0"  # before numba is loaded: LLVM code as written, which suits every processor

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
from numba import types

from ascseg_cli.kernels.llvm_code import KERNELS
from ascseg_cli.kernels.machine_code import FOLDER, fingerprint

_jit: Any = numba.njit

# What numba's runtime does for a kernel's scratch, in LLVM code of its own: a count, a destructor and its
# argument, the numbers' address and size; the numbers lie after them.
MEMORY = """
declare ptr @ascseg_allocate(i64)
declare void @ascseg_release(ptr)

define internal ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %a = zext i32 %align to i64
  %extra = add i64 %a, 64
  %whole = add i64 %size, %extra
  %block = call ptr @ascseg_allocate(i64 %whole)
  %none = icmp eq ptr %block, null
  br i1 %none, label %out, label %fill
fill:
  %begin = ptrtoint ptr %block to i64
  %after = add i64 %begin, %extra
  %mask = sub i64 0, %a
  %place = and i64 %after, %mask
  %data = inttoptr i64 %place to ptr
  %where = getelementptr i8, ptr %block, i64 24
  store i64 1, ptr %block
  store ptr %data, ptr %where
  br label %out
out:
  ret ptr %block
}

define internal void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @ascseg_release(ptr %block)
  ret void
}
"""

# What LLVM may say of an instruction or argument, and older ones can't read: it may go unsaid.
NEWER = ("nuw", "disjoint", "nneg", "samesign", r"captures\(none\)", "writeonly", "immarg")


def main() -> None:
    """Write a file for each kernel, and what sources they were made from."""
    llvm.initialize_native_target()
    for old in FOLDER.glob("*.ll.xz"):
        old.unlink()
    for (module, name), arguments in KERNELS.items():
        text = portable(kernel(module, name), arguments)
        (FOLDER / f"{module}.{name}.ll.xz").write_bytes(lzma.compress(text.encode(), preset=9))
    (FOLDER / "sources.sha256").write_text(fingerprint() + "\n", encoding="ascii")


def kernel(module: str, name: str) -> Any:
    """The numba function of that name."""
    return getattr(importlib.import_module(f"ascseg_cli.kernels.{module}"), name).py_func


def portable(function: Any, arguments: str) -> str:
    """The LLVM code of a kernel and all that it calls, with its entry, for no processor in particular."""
    made = _jit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    made.compile((types.intp, types.intp, *_types(arguments)))
    (result,) = made.overloads.values()
    code, name = result.library.get_llvm_str(), result.fndesc.llvm_func_name
    for runtime in ("NRT_MemInfo_alloc_aligned", "NRT_MemInfo_call_dtor"):  # declared there, defined here
        code = re.sub(rf"^declare [^\n]*@{runtime}\([^\n]*$", "", code, flags=re.MULTILINE)
    whole = llvm.parse_assembly(code + MEMORY)
    parameters = [str(argument.type) for argument in whole.get_function(name).arguments]
    whole = llvm.parse_assembly(str(whole) + _entry(name, parameters))
    return _reduced(whole)


def _types(arguments: str) -> list[Any]:
    arrays = {"f": types.float32, "d": types.float64, "l": types.int64, "u": types.uint8}
    single = {"i": types.intp, "b": types.boolean}
    result: list[Any] = []
    for letter, digits in re.findall(r"([a-z])|\{?(\d+)\}?", arguments):
        if letter in arrays:
            result.append(types.Array(arrays[letter], 1, "C"))
        else:
            result.append(single[letter] if letter else types.UniTuple(types.intp, int(digits)))
    return result


def _entry(name: str, parameters: list[str]) -> str:
    """A function that takes all arguments as words in memory; the two for results lead nowhere."""
    lines = ["\ndefine i32 @entry(ptr %words) {", "  %result = alloca ptr", "  %error = alloca ptr"]
    passed = ["ptr %result", "ptr %error"]
    for k, kind in enumerate(parameters[2:]):
        lines += [f"  %at{k} = getelementptr i64, ptr %words, i64 {k}", f"  %w{k} = load i64, ptr %at{k}"]
        if kind == "i64":
            passed.append(f"i64 %w{k}")
            continue
        cast = "inttoptr" if kind == "ptr" else "trunc"
        lines.append(f"  %v{k} = {cast} i64 %w{k} to {kind}")
        passed.append(f"{kind} %v{k}")
    lines += [f"  %status = call i32 @{name}({', '.join(passed)})", "  ret i32 %status", "}"]
    return "\n".join(lines) + "\n"


def _reduced(whole: Any) -> str:
    """Everything but the entry made internal, what is unused dropped, and variables kept in registers."""
    for function in whole.functions:
        if not function.is_declaration and function.name != "entry":
            function.linkage = "internal"
    for variable in whole.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    machine = llvm.Target.from_default_triple().create_target_machine()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(0))
    passes = llvm.create_new_module_pass_manager()
    for _ in range(2):
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.add_aggressive_dce_pass()
        passes.add_dead_arg_elimination_pass()
        passes.add_global_dead_code_eliminate_pass()
        passes.add_global_opt_pass()
    passes.add_strip_dead_prototype_pass()
    passes.run(whole, builder)
    whole.name = "kernel"
    code = re.sub(r"^(target |source_filename|;|attributes ).*\n", "", str(whole), flags=re.MULTILINE)
    code = re.sub(f" ({'|'.join(NEWER)})(?= |,|\\))| #[0-9]+(?= |$)", "", code, flags=re.MULTILINE)
    llvm.parse_assembly(code).verify()
    assert "numba.dynamic" not in code, "an address of this process is left in the code"
    return code


if __name__ == "__main__":
    main()
