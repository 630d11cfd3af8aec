"""The dataset on disk: ``docs/format.md`` in code."""
