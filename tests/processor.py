"""The processor's state, set as other libraries set it: with code of its own, not lowprec's."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: what each state adds to the usual one: flushing of results, of operands; a rounding mode
X86_64 = {
    "flushed": 0x8040,
    "flushed results": 0x8000,
    "flushed operands": 0x0040,
    "upward": 0x4000,
    "downward": 0x2000,
    "toward zero": 0x6000,
    "flushed, upward": 0xC040,
}
AARCH64 = {
    "flushed": 1 << 24,
    "upward": 1 << 22,
    "downward": 2 << 22,
    "toward zero": 3 << 22,
    "flushed, upward": 1 << 24 | 1 << 22,
}
_PROGRAMS = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define i64 @swap(i64 %new) {
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %old = load i32, ptr %slot
  %word = trunc i64 %new to i32
  store i32 %word, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  %wide = zext i32 %old to i64
  ret i64 %wide
}""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define i64 @swap(i64 %new) {
  %old = call i64 @llvm.aarch64.get.fpcr()
  call void @llvm.aarch64.set.fpcr(i64 %new)
  ret i64 %old
}""",
}
ARCHITECTURE = llvm.get_process_triple().partition("-")[0].replace("arm64", "aarch64")
USUAL = 0x1F80 if ARCHITECTURE == "x86_64" else 0
STATES = {"x86_64": X86_64, "aarch64": AARCH64}.get(ARCHITECTURE, {})
_engines = []


@functools.cache
def setter() -> Callable[[int], int]:
    """Return what sets the register and returns what it held."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_PROGRAMS[ARCHITECTURE])
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(engine.get_function_address("swap"))


def current() -> int:
    """Return the state, without the flags of past events, which are MXCSR's low six bits."""
    swap = setter()
    found = swap(USUAL)
    swap(found)
    return found & ~0x3F


@contextlib.contextmanager
def state(name: str) -> Iterator[None]:
    """Set a state for what is inside; "usual" is the one that every thread begins with."""
    swap = setter()
    before = swap(USUAL | STATES.get(name, 0))
    try:
        yield
    finally:
        swap(before)
