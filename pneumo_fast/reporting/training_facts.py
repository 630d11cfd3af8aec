"""What a report says of how the model was trained."""

from __future__ import annotations

from typing import Final

from pneumo_fast.configuration import options_of
from pneumo_fast.formatting import number
from pneumo_fast.reporting.sources import RunFiles
from pneumo_fast.training.options import TrainConfig

ALWAYS: Final = ("epochs", "optimizer", "lr", "schedule", "augment", "weights", "seed")
"""Options that are named whatever their values are."""
GROUPS: Final = ("Data", "Model", "Optimization")
"""Groups of options that are named where they are not the default ones."""
ELSEWHERE: Final = ("datasets", "recipe", "batch_size", "pos_weight", "folds", "fold", "model")
"""Options that stand in other places, or as what they came to."""


def training_sentences(files: RunFiles) -> list[str]:
    """The options that made the model, its auxiliary tasks among them; empty where they are not known."""
    made, description = files.training, files.description
    if made is None or description is None:
        return []
    options = options_of(TrainConfig)
    named = {"batch size": description.resolved.get("batch_size", made.batch_size)} | {
        name.replace("_", " "): getattr(made, name)
        for name, field in options.items()
        if name not in ELSEWHERE
        and (name in ALWAYS or (field.group in GROUPS and getattr(made, name) != field.default))
    }
    listed = ", ".join(name if value is True else f"{name} {value}" for name, value in named.items())
    weight = description.resolved.get("pos_weight")
    shown = number(weight) if isinstance(weight, float) else "not known"
    sentences = [f"Recipe {made.recipe}, with {listed}; weight of a positive image {shown}."]
    if made.auxiliary:
        taught = " and ".join(f"{name} (weight {made.auxiliary_weights[name]:g})" for name in made.auxiliary)
        sentences.append(f"Trained with auxiliary supervision by {taught}; the checkpoint contains no auxiliary heads.")
    return sentences
