"""COCO's file formats: results (a flat JSON list) and annotations, which name the images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnifier_plugin.text_files import read_json
from magnifier_plugin.wording import one_line


def read_results(path: Path, what: str) -> list[Any]:
    """The flat list of a results file.

    Args:
        path: the file.
        what: the kind of results that is expected, for the message.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or not a list.
    """
    content = read_json(path)
    if not isinstance(content, list):
        hint = ""
        if isinstance(content, dict) and "images" in content:
            hint = "; these are COCO annotations, pass them with --annotations"
        raise ValueError(
            f"{path}: holds a {type(content).__name__}, expected the flat list of {what} "
            f"results{hint}"
        )
    return content


def read_images(path: Path) -> dict[Any, dict[str, Any]]:
    """The images of COCO annotations: id → entry, which has at least `file_name`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of COCO annotations, or two images have the same id.
    """
    content, images = read_json(path), dict[Any, dict[str, Any]]()
    try:
        for image in content["images"]:
            name = str(image["file_name"])
            other = images.setdefault(image["id"], {**image, "file_name": name})["file_name"]
            if other != name:
                raise ValueError(
                    f"{path}: {other} and {name} have the same id {image['id']!r}, expected one "
                    "for each image; were files with separate numbers merged?"
                )
        return images
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"{path}: not COCO annotations, expected a JSON object with images[].id and "
            f"images[].file_name ({type(error).__name__}: {one_line(error)})"
        ) from error


def annotated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image in COCO annotations; None if they are not given."""
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def refuse_unknown_images(annotations: Path, results: Path, known: Any, used: Any) -> None:
    """Raises ValueError unless all images of a results file are in the annotations."""
    unknown = [image for image in used if image not in known]
    if unknown:
        raise ValueError(
            f"{annotations}: no image has the id {unknown[0]!r} that {results} refers to; "
            "expected the annotations of the same images"
        )
