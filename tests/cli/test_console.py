"""What a console does with what it is to show."""

from __future__ import annotations

import os

from pneumo_fast.cli.console import Terminal


def test_a_command_goes_on_when_nobody_reads_its_output_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:  # noqa: PTH123  # a descriptor
        for _ in range(2):
            Terminal(file=pipe).print("epoch 1")
