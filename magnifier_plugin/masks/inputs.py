"""The refusal to convert annotations into files that are the conversion's own inputs."""

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from magnifier_plugin.files import absolute_path


def refuse_inputs(
    written: Iterable[Path | None],
    out_dir: Path,
    images: Iterable[Path],
    image_folders: Iterable[str | os.PathLike[str]],
    files: Iterable[Path],
) -> None:
    """Refuse a conversion that would write among the images or over an annotation.

    Folders are compared after following symbolic links, files by folder and name: writing a file
    replaces a link, not what it points to.

    Args:
        written: the paths of all label maps and IUV; None for one that is not written.
        out_dir: the folder that contains them.
        images: the images to convert.
        image_folders: folders of images that must not be out_dir.
        files: the source's files.
    Raises:
        ValueError: out_dir is a folder of images, or a file to write is an image or the source's.
    """
    hint = f"name another, such as mask_labels/{out_dir.name}"
    if out_dir.resolve() in {absolute_path(folder).resolve() for folder in image_folders}:
        raise ValueError(
            f"--out {out_dir}: is the folder of the images, expected a folder for label maps and "
            f"IUV alone; {hint}"
        )
    identity = _identities()
    targets = {identity(path): path for path in written if path is not None}
    for what, inputs in (("images", images), ("annotations", files)):
        for path in inputs:
            if identity(path) in targets:
                raise ValueError(
                    f"--out {out_dir}: is the folder of the {what}, of which {path} would be "
                    f"replaced; {hint}"
                )


def _identities() -> Callable[[Path], tuple[Path, str]]:
    """A function that gives the same value for two paths of one file; it follows folders' links."""
    resolve = cache(Path.resolve)
    return lambda path: (resolve(absolute_path(path).parent), path.name)
