"""Checkpoints: saved beside the training, whole or not at all, fenced by rounds, verified before use, never pickle.

    store = CheckpointStore(folder, round=3, keep=3, digest=digest(config))
    if (result := store.done()) is not None: ...          # finished already
    start = store.choose()                                # the newest that verifies; store.rejected says what was not
    with AsyncSaver(store, on_saved=..., on_error=...) as saver:
        saver.submit(step, tensors, state, weights=names) # every now and then
        saver.save_final(step, tensors, state, weights=names)
    store.mark_done({...})

The modules, from the bottom: errors; files (durable bytes, bounded reads); manifest, tensorfile, marker (formats);
reader and writer (one folder); layout, survey and moves (what lies about, who may write, how names change hands);
store; snapshot and saver (the thread); nested (optimizer state as tensors and JSON).
"""

from edgecloud_trainer.checkpoints.errors import CheckpointError, CheckpointMismatchError, DamagedError, SupersededError
from edgecloud_trainer.checkpoints.manifest import Manifest, digest
from edgecloud_trainer.checkpoints.nested import flatten, unflatten
from edgecloud_trainer.checkpoints.reader import Contents, load, read_manifest
from edgecloud_trainer.checkpoints.saver import AsyncSaver
from edgecloud_trainer.checkpoints.store import CheckpointStore, Loaded, Saved
from edgecloud_trainer.checkpoints.tensorfile import checked, weights_digest

__all__ = [
    "AsyncSaver",
    "CheckpointError",
    "CheckpointMismatchError",
    "CheckpointStore",
    "Contents",
    "DamagedError",
    "Loaded",
    "Manifest",
    "Saved",
    "SupersededError",
    "checked",
    "digest",
    "flatten",
    "load",
    "read_manifest",
    "unflatten",
    "weights_digest",
]
