"""What an exported model says of itself; ``docs/export.md`` lists the keys. No path, and nothing of a patient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pneumo_fast import __version__
from pneumo_fast.evaluation.ensemble import Member, output_names
from pneumo_fast.vocabulary import NOT_CLINICAL

ONE_RUN = "sigmoid of (logit - shift) / temperature"
SEVERAL_RUNS = "sigmoid of the mean over the runs of (logit - shift) / temperature; not fitted to the mean itself"
NO_CALIBRATION = "none: not every run was evaluated on its own data"
LOGIT = "logit of the run"
MEAN_LOGIT = "mean of the logits of the runs"


def describe(members: Sequence[Member]) -> dict[str, str]:
    """Keys and values, those that are no text as JSON."""
    size, single = members[0].size, len(members) == 1
    calibrated = "calibrated_probability" in output_names(members)
    return {
        "created_by": f"pneumo-fast {__version__}",
        "notice": NOT_CLINICAL,
        "input": f"float32, shape (N, 1, {size}, {size}), in [0, 1]; 0 is black; normalized inside",
        "input_range": json.dumps([0, 1]),
        "size": json.dumps(size),
        "outputs": json.dumps(output_names(members)),
        "logit": LOGIT if single else MEAN_LOGIT,
        "calibration": (ONE_RUN if single else SEVERAL_RUNS) if calibrated else NO_CALIBRATION,
        "runs": json.dumps([_describe_run(member) for member in members]),
    }


def _describe_run(member: Member) -> dict[str, Any]:
    """Identity of a run, and what is to be done with its own logit."""
    identity, operating = member.identity, member.operating
    return {
        "arch": identity.arch,
        "sha256": identity.sha256,
        "epoch": identity.epoch,
        "dataset_identity": identity.dataset_identity,
        "mean": identity.mean,
        "std": identity.std,
        "calibration": asdict(operating.calibration) if operating else None,
        "thresholds": [asdict(chosen) for chosen in operating.thresholds] if operating else [],
    }
