"""One file becomes one square image, or one typed rejection."""
