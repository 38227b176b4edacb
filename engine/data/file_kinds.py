"""What a file or folder among a user's images is, by its name and its first bytes: data, or what a program left there.

Images are what the decoder reads: BMP, GIF, JPEG, PNG, TIFF, WebP, AVIF, JPEG 2000, PNM, QOI, DDS, TGA, PCX, SGI, Sun
raster and DICOM; HEIF and JPEG XL where a package for Pillow is installed. A file with one of the usual suffixes is one
of them. Any other is looked at: its first bytes tell, so a photograph without a suffix counts, and a text or an archive
does not.

Some formats look like images and are not read, though Pillow opens a few of them: camera raw files (what Pillow finds
in them is a thumbnail), drawings (SVG, EPS, WMF: another program has to draw them), work files of editors (PSD, XCF),
and what has no white (FITS, EXR, medical and microscope volumes). Icons, which are those of folders, and backups, parts
of downloads and thumbnails, which would be copies of images, are no data at all, whatever their content.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

Kind = Literal["image", "unused image", "placeholder", "other"]

HEAD = 256  # bytes that tell a format


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\S+", text))


DICOM_SUFFIXES = _words(".dcm .dicom")
IMAGE_SUFFIXES = DICOM_SUFFIXES | _words(
    ".apng .avif .bmp .dds .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pgm .png .pnm"
    " .ppm .qoi .tga .tif .tiff .webp"
)
UNUSED_SUFFIXES = _words(
    ".3fr .ai .arw .bpg .cr2 .cr3 .crw .czi .djvu .dng .emf .eps .erf .exr .fit .fits .fts .hdp .iiq .jxr .kdc .kra"
    " .lif .mha .mhd .mrw .nd2 .nef .nii .nrrd .nrw .oib .oif .orf .pam .pef .pfm .psb .psd .raf .rw2 .rwl .sr2 .srf"
    " .srw .svg .svgz .wdp .wmf .x3f .xcf"
)
# never looked into: icons, backups and the like, and what lies beside images by the thousand
OTHER_SUFFIXES = _words(
    ".ani .bak .crdownload .csv .cur .download .htm .html .icns .ico .ini .json .md .old .orig .part .partial .swp"
    " .temp .thm .tmp .txt .xml .xmp .yaml .yml"
)
BACKUP = re.compile(r"~$|_original$", re.IGNORECASE)  # of editors; of exiftool
CONFLICT = re.compile(r"\bconflicted copy\b|\.sync-conflict-\d{8}-|^~syncthing~|\(case conflict", re.IGNORECASE)

LFS = b"version https://git-lfs.github.com/spec"
LFS_REMEDY = "a git-lfs pointer instead of the image: git lfs pull"
# what synchronising programs leave in place of a file that is on their server: "photo.jpg.nextcloud"
PLACEHOLDERS = {
    ".icloud": "What ends in .icloud is still in iCloud: download it in Finder",
    ".nextcloud": "What ends in .nextcloud is still on the server: make it available locally",
    ".owncloud": "What ends in .owncloud is still on the server: make it available locally",
}
TEXT = re.compile(rb"[\x09\x0a\x0d\x20-\x7e\x80-\xff]*")


class Plugin(NamedTuple):
    """A package that lets Pillow read a format, and what it is imported as."""

    format: str
    module: str
    package: str

    @property
    def installed(self) -> bool:
        """Whether it can be imported, which is not tried."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def remedy(self) -> str:
        """What the user is told who lacks it."""
        return f"{self.format} is read by a package: pip install {self.package} (or save it as JPEG)"


HEIF = Plugin("HEIC (HEIF)", "pillow_heif", "pillow-heif")
JPEG_XL = Plugin("JPEG XL", "pillow_jxl", "pillow-jxl-plugin")
PLUGINS = {".heic": HEIF, ".heif": HEIF, ".hif": HEIF, ".jxl": JPEG_XL}

# lower case. Of NAS systems, Windows, macOS, Python, and programs that synchronise or back up
HELPER_FOLDERS = _words(
    "@eadir @recently-snapshot @recycle @tmp #recycle #snapshot .@__thumb .snapshot ~snapshot lost+found"
    " $recycle.bin recycled recycler __macosx .appledouble .ipynb_checkpoints __pycache__ _gsdata_ .dropbox.cache"
    " .stfolder .stversions .sync .tmp.drivedownload .tmp.driveupload .thumbnails _thumbnails thumbnails"
) | {"system volume information", "network trash folder", "temporary items"}
HELPER_FOLDER = re.compile(r"\.trash.*|found\.\d{3}")
THUMBNAILS = frozenset(["thumb", "thumbs", "_thumb", "_thumbs", "thumbnail"])

# of Synology, QNAP, macOS, GNOME, KDE and Windows
NOTES_OF_SYSTEM = _words(
    "@eadir .@__thumb .appledouble .directory .ds_store .localized .thumbnails __macosx desktop.ini ehthumbs.db"
    " thumbs.db"
) | {"icon\r"}


def is_helper_folder(name: str, inside_class: bool = False) -> bool:
    """Whether some program made the folder for itself: trash, thumbnails, snapshots, what is being synchronised.

    Inside a class `thumbs` holds small copies of its images; beside classes it can be one itself, as of gestures.
    """
    if name in ("recycled", "recycler"):  # a class of waste: Windows writes its own with capitals
        return False
    name = name.lower()
    return name in HELPER_FOLDERS or bool(HELPER_FOLDER.fullmatch(name)) or (inside_class and name in THUMBNAILS)


def is_notes_of_system(name: str) -> bool:
    """Whether a system left the file or folder beside what it shows, and makes it anew: how it shows it, small copies.

    Trash, old versions and what is being synchronised are none: these can hold the one copy of what is a user's.
    """
    return name.lower() in NOTES_OF_SYSTEM or name.startswith("._")


def visible(folder: Path) -> list[Path]:
    """What a user sees in a folder, sorted: nothing hidden, nothing that programs made for themselves."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and not is_helper_folder(entry.name) and not is_notes_of_system(entry.name)
    )


def is_conflict_copy(name: str) -> bool:
    """Whether a program that synchronises folders made the file, as a copy of another that was changed elsewhere."""
    return bool(CONFLICT.search(name))


def is_foreign(path: PurePath) -> bool:
    """Whether a file, by its path below the data's folder, is what a program left there."""
    return is_conflict_copy(path.name) or any(map(is_helper_folder, path.parts[:-1]))


def kind_of(name: str, head: Callable[[], bytes]) -> Kind:
    """What a file is, by its name and, where that does not tell, its first HEAD bytes, which `head` reads."""
    suffix = suffix_of(name)
    if suffix in OTHER_SUFFIXES or BACKUP.search(name) or name == "DICOMDIR":
        return "other"
    if suffix in UNUSED_SUFFIXES:
        return "unused image"
    if suffix in IMAGE_SUFFIXES:
        return "placeholder" if head().startswith(LFS) else "image"
    if suffix in PLACEHOLDERS:
        return "placeholder" if suffix_of(name[: -len(suffix)].lstrip(".")) in {*IMAGE_SUFFIXES, *PLUGINS} else "other"
    first = head()
    if plugin := PLUGINS.get(suffix) or plugin_of(first):
        return "image" if plugin.installed else "unused image"
    if first.startswith(b"8BPS"):  # an editor's work file
        return "unused image"
    return "image" if is_dicom(first) or format_of(first) else "other"


def remedy_for(name: str, head: bytes) -> str:
    """What makes a file readable that looks like an image and is not read; "" where nothing here does."""
    if head.startswith(LFS):
        return LFS_REMEDY
    if placeholder := PLACEHOLDERS.get(suffix_of(name)):
        return placeholder
    plugin = PLUGINS.get(suffix_of(name)) or plugin_of(head)
    return plugin.remedy if plugin else ""


def suffix_of(name: str) -> str:
    """The end of a file's name from its last dot on, in lower case; "" where there is none."""
    stem, dot, end = name.rpartition(".")
    return f".{end.lower()}" if stem and dot else ""


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM, as far as that can be told of a file without its usual preamble."""
    return head[128:132] == b"DICM"


def plugin_of(head: bytes) -> Plugin | None:
    """The package without which Pillow does not read a file that begins so."""
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        return None if b"avif" in head[12:48] else HEIF
    return JPEG_XL if head.startswith(b"\0\0\0\x0cJXL \r\n\x87\n") else None


def format_of(head: bytes) -> str:
    """The image format that a file that begins so has, of those that Pillow reads; "": none that is known here."""
    for start, name in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"qoif", "QOI"),
        (b"DDS |", "DDS"),
        (b"\x59\xa6\x6a\x95", "Sun raster"),
    ):
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[12:48]):
        return "AVIF"
    if re.match(rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]", head):
        return "SGI"
    # of text, too, the first letters can be BM or P5: the numbers that follow have to fit
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    return "PNM" if re.match(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s", head) else ""


_BMP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]


def what_else(head: bytes) -> str:
    """What a file that begins so is instead of an image, and what to do; "" where that can't be told."""
    if not head:
        return "empty"
    if head.startswith(LFS):
        return LFS_REMEDY
    if re.match(rb"\s*(<!doctype html|<html|<\?xml)", head, re.IGNORECASE):
        return "a web page, as servers answer instead of an image"
    if head.startswith(b"%PDF"):
        return "a PDF, no image: take the pictures out of it"
    if head[4:8] == b"ftyp":
        return "a film, no image"
    return "text, no image" if TEXT.fullmatch(head) else ""
