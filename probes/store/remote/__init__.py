"""Runs and checkpoints behind a URL (`s3://`, `gs://`, `hf://`), worked on in a local copy.

A run is a mirror: what has changed there is brought into a folder of the user's cache, the work is done on it as on
any run, and each kept stage is sent back. A reader there never sees half of a change: which files belong together
stands in one small document that is written last. A checkpoint is downloaded once, or written here and sent whole.
Nothing here loads fsspec before a URL is opened.
"""

from probes.store.remote.bucket import is_url, whole_url
from probes.store.remote.cache_folder import cache_folder, mirror_folder
from probes.store.remote.downloads import download_checkpoint, download_folder, download_trainer_folder, fetch_weights
from probes.store.remote.mirror import Mirror
from probes.store.remote.places import local_folder, mirror_of, mirrors_of_root, place_elsewhere
from probes.store.remote.uploads import Outgoing, new_checkpoint, outgoing

__all__ = [
    "Mirror",
    "Outgoing",
    "cache_folder",
    "download_checkpoint",
    "download_folder",
    "download_trainer_folder",
    "fetch_weights",
    "is_url",
    "local_folder",
    "mirror_folder",
    "mirror_of",
    "mirrors_of_root",
    "new_checkpoint",
    "outgoing",
    "place_elsewhere",
    "whole_url",
]
