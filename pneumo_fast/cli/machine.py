"""What people see of their machine in the terminal."""

from __future__ import annotations

from pneumo_fast.cli.console import out
from pneumo_fast.cli.display import facts, grid
from pneumo_fast.doctor.machine import Machine
from pneumo_fast.doctor.parts import Part
from pneumo_fast.vocabulary import counted


def show_machine(machine: Machine) -> None:
    """What is there, what decodes each transfer syntax, and what is missing."""
    out.print(facts(_hardware(machine)))
    out.print()
    out.print(facts((part.name, _versions(part)) for part in machine.parts))
    table = grid("transfer syntax", "decoders, in order")
    table.columns[1].justify = "left"
    for known in machine.decoders:
        bits = f", {known.bits} bits" if known.bits else ""
        table.add_row(known.syntax + bits, ", ".join(known.plugins) or "none: such files are rejected")
    out.print(table)
    for answer in machine.nodes:
        out.print(f"{answer.node}: {answer.fault or 'answers C-ECHO'}", soft_wrap=True)
    for part in machine.parts:
        if part.cost:
            out.print(f"Without {part.name}: {part.cost}", soft_wrap=True)
            out.print(f"    {part.remedy}", soft_wrap=True)


def _hardware(machine: Machine) -> list[tuple[str, str]]:
    rows = [
        ("pneumo-fast", f"{machine.pneumo_fast}; Python {machine.python}; {machine.system}"),
        ("CPU", f"{counted(machine.cores, 'core')}, {_memory(machine.free_memory_bytes, machine.memory_bytes)}"),
        ("Disk", f"{_gb(machine.free_disk_bytes)} free here"),
        ("CUDA", f"PyTorch is built for {machine.cuda or 'none'}"),
    ]
    for gpu in machine.gpus:
        memory = _memory(gpu.free_memory_bytes, gpu.memory_bytes)
        rows.append(("GPU", f"{gpu.name}, {memory}, compute capability {gpu.compute_capability}"))
    return [*rows, ("Device", f"{machine.device or 'none'} (--device auto)")]


def _versions(part: Part) -> str:
    if part.fault:
        return f"does not work: {part.fault}"
    return ", ".join(f"{package} {version or 'missing'}" for package, version in part.versions.items())


def _memory(free: int | None, whole: int | None) -> str:
    if whole is None:
        return "memory unknown"
    return f"{_gb(whole)} of memory, " + ("free memory unknown" if free is None else f"{_gb(free)} free")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
