"""Recipes: named sets of options of ``train``; ``docs/recipes.md`` says what each is and what supports it.

An option that is given singly overrides that of the recipe.
"""

from __future__ import annotations

from typing import Any, Final

from pneumo_fast.vocabulary import RecipeName

RECIPES: Final[dict[RecipeName, dict[str, Any]]] = {
    "reference": {
        "augment": "none",
        "epochs": 10,
        "batch_size": None,  # 64, or an epoch that has fewer
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 0.0,
        "schedule": "none",
        "ema": None,
        "pos_weight": "auto",
    },
    "recommended": {
        "augment": "strong",
        "epochs": 10,
        "batch_size": None,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.02,
        "schedule": "onecycle",
        "ema": 0.999,
        "pos_weight": "auto",
    },
}
"""Values of :class:`~pneumo_fast.training.options.TrainConfig`; both recipes name the same options."""
