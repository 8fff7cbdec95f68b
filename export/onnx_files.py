"""What every exported ONNX file has in common."""

# Opset 17 and IR 8 load in ONNX Runtime from 1.14 on, the oldest that .NET users are known to run.
OPSET = 17
IR_VERSION = 8
PRODUCER = "signver-harness"
# What the SDK asks for under `signver.format`, see `signver.model_file`.
FORMAT = "1"
