"""An evaluated run as one HTML page and one model card."""
