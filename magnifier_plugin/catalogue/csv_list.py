"""Lists of images as CSV: `path,pid,camid,split`; any other columns are conditions."""

import csv
import itertools
import os
import unicodedata
from pathlib import Path

from magnifier_plugin.catalogue.image_list import (
    GALLERY,
    QUERY,
    SPLITS,
    Findings,
    ImageList,
    ListedImage,
    checked_list,
    plain_id,
)
from magnifier_plugin.catalogue.problems import DatasetProblem
from magnifier_plugin.files import absolute_path, write_atomically
from magnifier_plugin.text_files import SPREADSHEET_DELIMITERS, read_csv
from magnifier_plugin.wording import one_line

PATH, PID, CAMID, SPLIT = COLUMNS = ("path", "pid", "camid", "split")
# Likely names of a camera's column, if none is named camid.
_CAMERAS = {"cam", "camera", "cam_id", "camera_id", "cameraid"}
_ERRORS = "surrogateescape"  # file names need not be valid Unicode


def read_image_csv(file: Path, *, need_split: bool = True) -> ImageList:
    """Reads a list of images; mistakes are collected in the result's `problems`, not raised.

    Args:
        file: has a header; columns are separated by commas, semicolons or tabs; paths are absolute
            or relative to its folder. Without the column `camid` cameras are unknown.
        need_split: whether the column `split` is required.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a text file of lines and cells.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected a CSV of images, found no such file")
    names, rows = read_csv(file, delimiters=SPREADSHEET_DELIMITERS, errors=_ERRORS, ragged=True)
    header = [name.lower() if name.lower() in COLUMNS else name for name in names]
    rows = [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]
    needed = (PATH, PID, SPLIT) if need_split else (PATH, PID)
    missing = [name for name in needed if name not in header]
    if missing or len(set(header)) < len(header) or not all(header):
        return ImageList(file, [], problems=[_header_problem(header, missing)])
    conditions = tuple(name for name in header if name not in COLUMNS)
    reader = _RowReader(file, header, conditions, need_split)
    images = [image for number, cells in rows if (image := reader.read(number, cells))]
    problems = reader.findings.problems("line")
    if CAMID not in header:
        problems += [_likely_cameras(name) for name in conditions if name.lower() in _CAMERAS]
    if not rows:
        problems.append(DatasetProblem(True, "no lines after the header"))
    return checked_list(file, images, problems, conditions, need_split=need_split)


def write_image_csv(file: Path, images: ImageList) -> None:
    """Writes a list of images atomically, in the format that `read_image_csv` reads."""
    with_cameras = any(image.camid for image in images.images)
    columns = [name for name in COLUMNS if with_cameras or name != CAMID]
    with (
        write_atomically(file) as part,
        part.open("w", newline="", encoding="utf-8", errors=_ERRORS) as lines,
    ):
        writer = csv.writer(lines)
        writer.writerow([*columns, *images.conditions])
        for image in images.images:
            path = Path(os.path.relpath(image.path, absolute_path(file).parent)).as_posix()
            cells = {PATH: path, PID: image.pid, CAMID: image.camid, SPLIT: image.split}
            writer.writerow([*(cells[name] for name in columns), *image.conditions])


def _likely_cameras(name: str) -> DatasetProblem:
    return DatasetProblem(
        False, f"column {name} is read as a condition; if it is the camera, name it {CAMID}"
    )


def _header_problem(header: list[str], missing: list[str]) -> DatasetProblem:
    found = one_line(",".join(header)) or "nothing"
    wrong = f"without {', '.join(missing)}" if missing else "with an empty or repeated name"
    hint = ""
    if missing == [SPLIT]:
        hint = "; scripts/check_dataset.py --split 0.5 --write-csv FILE makes a split"
    return DatasetProblem(
        True,
        f"header {wrong}: expected {','.join(COLUMNS)} (camid only if cameras are known) and "
        f"any conditions, found {found}{hint}",
    )


class _RowReader:
    """Reads rows, and collects their mistakes."""

    def __init__(
        self, file: Path, header: list[str], conditions: tuple[str, ...], need_split: bool
    ) -> None:
        self.folder, self.header, self.conditions = absolute_path(file).parent, header, conditions
        self.splits = SPLITS if need_split else (*SPLITS, "")
        self.findings = Findings()
        self.seen: dict[Path, list[ListedImage]] = {}

    def read(self, number: int, cells: list[str]) -> ListedImage | None:
        """One row's image; None if something is wrong with it."""
        if len(cells) != len(self.header):
            mistake = f"with a number of cells other than the header's {len(self.header)}"
            self.findings.add(mistake, f"line {number} ({len(cells)} cells)")
            return None
        row = dict(zip(self.header, cells, strict=True))
        texts = {name: cell.strip() for name, cell in row.items()}
        split = texts.get(SPLIT, "").lower()
        path = self._find(row[PATH])
        mistakes = [f"without a {name}" for name in (PATH, PID) if not texts[name]]
        if split not in self.splits:
            mistakes.append(f"with a split other than {', '.join(SPLITS)}")
        if texts[PATH] and path is None:
            mistakes.append("with an image that does not exist")
        where = f"line {number}: {one_line(texts[PATH])}"
        for mistake in mistakes:
            self.findings.add(
                mistake, f"{where} {one_line(split)!r}" if "split" in mistake else where
            )
        if mistakes or path is None:
            return None
        image = ListedImage(
            path,
            plain_id(texts[PID]),
            plain_id(texts.get(CAMID, "")),
            split,
            tuple(texts[name] for name in self.conditions),
        )
        return None if self._is_repeated(image, where) else image

    def _find(self, cell: str) -> Path | None:
        """The image's file, also if the list was written on another system.

        Unicode can encode an accented letter in two ways (NFC and NFD); Windows writes backslashes.
        """
        plain = cell.strip()
        forms = (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))
        for text in itertools.chain((cell, plain), forms, (plain.replace("\\", "/"),)):
            path = absolute_path(self.folder / text)
            if os.path.isfile(path):  # noqa: PTH113  Path.is_file raises if the name is too long
                return path
        return None

    def _is_repeated(self, image: ListedImage, where: str) -> bool:
        """Whether earlier rows have this image; the same image may be query and gallery, once."""
        earlier = self.seen.setdefault(image.path, [])
        both = len(earlier) == 1 and {earlier[0].split, image.split} == {QUERY, GALLERY}
        if not earlier or (both and earlier[0][:3] == image[:3]):
            earlier.append(image)
            return False
        self.findings.add("repeating an image", where)
        return True
