"""Real servers, and what they must not be able to do."""
