"""What a converted model needs on an edge node: numpy, Pillow and onnxruntime, loaded late; never torch."""

import os

# onnxruntime's own builds tell their maker of each process and model, over the network, and leave an identifier in the
# user's cache. It looks at this variable once, when it is first imported, and so do the processes started from here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
