"""From a trained network to files for an edge node, measured and reported.

The modules, from the bottom: errors; network (the graph with its normalisation) and folding (BatchNorm); onnx_file,
int8 and pt2 (a format each); macs; choice and material (which images); gates, pictures and page (what a report says);
standing (what an export's folder holds) and folder (how it is replaced); making (all of it); delivery (copies
elsewhere); stage (as the last stage of a job, in a process of its own, which `python -m edgecloud_trainer.export` is).
"""

import edgecloud.edge  # noqa: F401 - first, so that onnxruntime doesn't tell its maker of what it is used for
