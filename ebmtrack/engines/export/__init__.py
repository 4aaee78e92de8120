"""Export of a trained network for the engine on ONNX Runtime: graphs, arrays and their description (needs torch)."""
