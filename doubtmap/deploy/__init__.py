"""A network with its doubts in one file that other programs run: ONNX, or `torch.export`."""
