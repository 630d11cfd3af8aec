"""Trained models as files that run without this package: ONNX and PyTorch's own export format."""
