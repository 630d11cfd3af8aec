"""What this machine has, what is missing, and what that costs."""
