"""The data sets that torchreid knows, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torchreid

# torchreid's tuple for one image: path, identity (pid), camera (camid), and the number of its data
# set (dsetid) when training on several data sets.
ImageRecord = tuple[str, int, int, int]

# Path of an image → its identity and camera as the data set's author names them, for messages;
# the camera is "" if cameras are unknown.
OriginalIds = Mapping[str, tuple[str, str]]

MASKED_SUFFIX = "_masked"


def registered_datasets() -> dict[str, Any]:
    """torchreid's own table of image data sets: name → class, or another callable that opens the
    data set. Adding an entry registers a data set."""
    return vars(torchreid.data.datasets)["__image_datasets"]


def plain_name(name: str) -> str:
    """The data set's name without `_masked`."""
    plain = name.removesuffix(MASKED_SUFFIX)
    return plain if plain in registered_datasets() else name


def dataset_class(name: str) -> Any:
    """The image data set class registered in torchreid under a name; see `registered_datasets`.

    Raises:
        ValueError: there is none; the message lists the registered names.
    """
    known = registered_datasets()
    if name in known:
        return known[name]
    names = sorted({plain_name(other) for other in known})
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f", or {name}=PATH for your own images"
    if not {"/", "."}.isdisjoint(name):  # in no data set's name
        hint = f"; to use your own CSV or folder, give it a name: my_images={name}"
    raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(names)}{hint}")
