"""What a converted model needs on an edge node: numpy, Pillow and onnxruntime, loaded late; never torch."""
