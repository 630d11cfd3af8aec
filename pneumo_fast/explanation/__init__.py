"""Where a run's model looked: heat maps, the pointing game, random weights."""
