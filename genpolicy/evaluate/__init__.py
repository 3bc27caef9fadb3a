"""Fixed-seed evaluation: one evaluator for training, command line and ONNX, with intervals."""
