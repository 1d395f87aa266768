"""What the operations of the compiled train step are: which part of the model, forward or backward, our line.

All of it stands in the program's own text: the names of Flax modules and of `jax.named_scope` on the way to
an operation, "jvp" for forward, "transpose" for backward, and the stack of source lines.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from llm_jax.model.parts import PARTS

_PARTS = PARTS | {
    "layer stack": ("dynamic_index_in_dim", "dynamic_update_index_in_dim"),
    "random keys": ("_threefry_split", "_threefry_fold_in"),
    "optimizer": ("optimizer",),
    "norms that are logged": ("norms",),
}
_PART_OF_WORD = {word: part for part, words in _PARTS.items() for word in words}
REST, UNNAMED = "the rest", "no metadata"
PHASES = ("forward", "backward", "update", "other")
_NO_PHASE = {"layer stack", "random keys", REST, UNNAMED}

_CONTAINERS = {"while", "conditional", "call"}  # Their time is that of the operations inside.
_PRODUCTS = {"dot", "convolution"}
_LOOKUPS = {"gather", "scatter"}
_MOVES = {"copy", "transpose", "bitcast", "reshape", "broadcast", "slice", "dynamic-slice", "concatenate"}
_MOVES |= {"dynamic-update-slice", "pad", "iota", "constant", "parameter", "tuple", "get-tuple-element"}


class Operation(NamedTuple):
    """An instruction of the compiled program that the machine runs as one."""

    kind: str  # product, reduction, gather or scatter, elementwise, copy
    part: str
    phase: str  # forward, backward, update, other
    source: str  # "layers.py:210", or "" where the metadata has none


class _Instruction(NamedTuple):
    name: str
    scalar: bool
    opcode: str
    scope: str  # "" without metadata
    frame: str
    body: str  # the computation that a fusion calls, or ""
    target: str  # of a custom call


def read_program(text: str) -> dict[str, Operation]:
    """Return the operations of a compiled program, by name, from `compiled.as_text()`; containers are left
    out.
    """
    computations = _computations(text)
    sources = _sources(text)
    found = {}
    for instructions in computations.values():
        for instruction in instructions:
            if instruction.opcode in _CONTAINERS:
                continue
            inside = computations.get(instruction.body, [])
            # XLA leaves a fusion of its own making unnamed, though what it fused may have names.
            scope = instruction.scope or next((one.scope for one in reversed(inside) if one.scope), "")
            part = _part(scope)
            found[instruction.name] = Operation(
                # Scalars inside a fusion are indices: what it does to arrays is its kind.
                _kind([instruction, *(one for one in inside if not one.scalar)]),
                part,
                _phase(scope, part),
                sources.get(instruction.frame, ""),
            )
    return found


def module_name(text: str) -> str:
    """Return the name by which a trace knows the program."""
    return text.partition("HloModule ")[2].partition(",")[0]


def _computations(text: str) -> dict[str, list[_Instruction]]:
    found: dict[str, list[_Instruction]] = defaultdict(list)
    current = ""
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = header[1]
        elif match := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\w+\[\])?.*? ?\b([a-z][\w\-]*)\(", line):
            marks = (r'op_name="([^"]*)"', r"stack_frame_id=(\d+)", r"calls=%?([\w.\-]+)")
            marks += (r'custom_call_target="([^"]*)"',)
            values = [mark[1] if (mark := re.search(pattern, line)) else "" for pattern in marks]
            found[current].append(_Instruction(match[1], bool(match[2]), match[3], *values))
    return found


def _kind(instructions: Iterable[_Instruction]) -> str:
    instructions = list(instructions)
    opcodes = {one.opcode for one in instructions} - {"fusion"}
    if opcodes & _PRODUCTS or any(re.search("gemm|matmul", one.target) for one in instructions):
        return "product"
    if opcodes & _LOOKUPS:
        return "gather or scatter"
    if "reduce" in opcodes:
        return "reduction"
    return "copy" if opcodes <= _MOVES else "elementwise"


def _part(scope: str) -> str:
    if "/" not in scope:  # The name of an argument or of a reducer, not a way through the model.
        return UNNAMED
    words = re.findall(r"\w+", scope)
    return next((_PART_OF_WORD[word] for word in reversed(words) if word in _PART_OF_WORD), REST)


def _phase(scope: str, part: str) -> str:
    if "transpose(" in scope:
        return "backward"
    if part in ("optimizer", "norms that are logged"):
        return "update"
    return "forward" if "jvp(" in scope or part not in _NO_PHASE else "other"


def _sources(text: str) -> dict[str, str]:
    """Stack frame -> file and line of the innermost code of ours inside `train_steps`, or ""."""

    def section(title: str) -> dict[str, str]:
        match = re.search(rf"^{title}\n((?:\d.*\n)*)", text, re.MULTILINE)
        lines = match[1].splitlines() if match else []
        return {number: rest for number, _, rest in (line.partition(" ") for line in lines)}

    def numbers(title: str) -> dict[str, dict[str, str]]:
        return {number: dict(re.findall(r"(\w+)=(\d+)", rest)) for number, rest in section(title).items()}

    files, functions = section("FileNames"), section("FunctionNames")
    places, frames = numbers("FileLocations"), numbers("StackFrames")

    def source(frame: str) -> str:
        while frame in frames:
            place = places[frames[frame]["file_location_id"]]
            path, function = (
                Path(files[place["file_name_id"]].strip('"')),
                functions[place["function_name_id"]],
            )
            if function.startswith('"train_steps'):
                return ""
            if "llm_jax" in path.parts:
                return f"{path.name}:{place['line']}"
            frame = str(int(frames[frame]["parent_frame_id"]) - 1)  # XLA prints it one too high.
        return ""

    return {frame: source(frame) for frame in frames}
