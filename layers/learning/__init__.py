"""What twins share to learn: checkpoints, ranks, models in ONNX, and the registry of their versions."""
