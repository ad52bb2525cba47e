"""SAMs as ONNX and OpenVINO models: writing them, and running a segmenter from them."""
