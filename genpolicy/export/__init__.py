"""Export: a policy and its value function as one ONNX controller."""
