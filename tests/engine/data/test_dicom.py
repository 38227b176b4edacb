"""DICOM images decoded to the RGB pixels that a viewer shows, or refused with a reason."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import JPEGLSLosslessDecoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from engine.data.images import decode, has_remedy, load
from engine.data.memory import TooLargeError
from engine.data.part import Pixels
from engine.errors import UnreadableError
from tests.engine.data.pictures import (
    COLOURS,
    GREY,
    PALETTE_COLOURS,
    PLACES,
    SMOOTH,
    TABLE,
    WIDE,
    encoded,
    three,
    unreadable,
)


def dicom(stored: npt.NDArray[Any], **attributes: Any) -> FileDataset:
    """A header with `stored` (H, W), (H, W, 3) or, with NumberOfFrames, (N, H, W) as its uncompressed pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = stored.ndim == 3 and "NumberOfFrames" not in attributes
    header.Rows, header.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = stored.dtype.itemsize * 8
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    if colour:
        header.PlanarConfiguration = 0
    for name, value in attributes.items():
        setattr(header, name, value)
    header.HighBit = header.BitsStored - 1
    header.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    header["PixelData"].VR = "OB" if header.BitsAllocated == 8 else "OW"
    return header


def table(bits: int, first: int, entries: npt.NDArray[Any], signed: bool = False, dtype: str = "<u2") -> Dataset:
    """An item of a LUT sequence."""
    item, data = Dataset(), entries.astype(dtype).tobytes()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    return item


Show = Callable[[FileDataset], Pixels]


@pytest.fixture
def shown(tmp_path: Path) -> Show:
    """Decodes a DICOM header and its pixels from a file."""

    def run(header: FileDataset) -> Pixels:
        header.save_as(tmp_path / "image.DCM", enforce_file_format=True)
        return decode(tmp_path / "image.DCM")

    return run


TWELVE = (np.arange(35, dtype=np.uint16).reshape(5, 7) * 120).astype(np.uint16)
TWELVE[0, 0], TWELVE[-1, -1] = 0, 4095
UNITS = np.array([[-1024, -160, -100, 40, 41], [100, 200, 240, 241, 3000]])  # Hounsfield's


def windowed(values: npt.NDArray[Any], centre: float, width: float) -> npt.NDArray[Any]:
    """PS3.3 C.11.2.1.2.1, onto 0 to 255."""
    return np.round(((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1) * 255)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(dicom(GREY), GREY, id="8 bits"),
        pytest.param(dicom(GREY, PhotometricInterpretation="MONOCHROME1"), 255 - GREY, id="inverted"),
        pytest.param(dicom(TWELVE, BitsStored=12), np.round(TWELVE / 4095 * 255), id="12 bits in 16, no window"),
        pytest.param(dicom(WIDE), np.round(WIDE / 257), id="16 bits"),
        pytest.param(
            dicom(TWELVE, BitsStored=12, WindowCenter=1000, WindowWidth=800), windowed(TWELVE, 1000, 800), id="window"
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, WindowCenter=[1000, 9], WindowWidth=[800, 9]),
            windowed(TWELVE, 1000, 800),
            id="the first of two windows",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, WindowCenter=None, WindowWidth=None),
            np.round(TWELVE / 4095 * 255),
            id="an empty window",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, WindowCenter=None, WindowWidth=400),
            np.round(TWELVE / 4095 * 255),
            id="half a window",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=1000, WindowWidth=800),
            255 - windowed(TWELVE, 1000, 800),
            id="inverted window",
        ),
        pytest.param(
            dicom(
                (UNITS // 2 + 512).astype(np.int16),
                BitsStored=12,
                RescaleSlope=2,
                RescaleIntercept=-1024,
                WindowCenter=40,
                WindowWidth=400,
            ),
            windowed(UNITS // 2 * 2, 40, 400),
            id="signed, rescaled, window",
        ),
        pytest.param(
            dicom(UNITS.astype(np.int16), BitsStored=13, RescaleSlope=1, RescaleIntercept=-24),
            np.round((UNITS + 4096) / 8191 * 255),
            id="signed, rescaled, no window",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, RescaleSlope="0.0001", RescaleIntercept=3),
            np.round(TWELVE / 4095 * 255),
            id="a slope that leaves less than 1",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095),
            255 - np.round(TWELVE / 4095 * 255),
            id="a slope that inverts",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=1000, WindowWidth=800),
            windowed(4095 - TWELVE.astype(int), 1000, 800),
            id="a slope that inverts, and a window",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, RescaleSlope=None, RescaleIntercept=None),
            np.round(TWELVE / 4095 * 255),
            id="an empty slope",
        ),
        pytest.param(dicom(np.full((2, 2), 7, np.uint8), RescaleSlope=0, RescaleIntercept=0), [[0] * 2] * 2, id="flat"),
        pytest.param(
            dicom(TWELVE, BitsStored=12, VOILUTSequence=[table(12, 0, 4095 - np.arange(4096))]),
            np.round((4095 - TWELVE) / 4095 * 255),
            id="VOI table",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, VOILUTSequence=[table(8, 1000, np.arange(1000) // 4)]),
            (TWELVE.astype(int) - 1000).clip(0, 999) // 4,
            id="VOI table of 8 bits",
        ),
        pytest.param(
            dicom(GREY, VOILUTSequence=[table(8, 100, np.arange(101) + 50, dtype="u1")]),
            (GREY.astype(int) - 100).clip(0, 100) + 50,
            id="VOI table of single bytes, and one to make them even",
        ),
        pytest.param(
            dicom(
                UNITS.astype(np.int16),
                RescaleSlope=1,
                RescaleIntercept=0,
                VOILUTSequence=[table(16, -200, np.arange(500) * 100, signed=True)],
                WindowCenter=1,
                WindowWidth=2,
            ),
            np.round((UNITS + 200).clip(0, 499) * 100 / 257),
            id="VOI table before a window, signed",
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, VOILUTSequence=[]), np.round(TWELVE / 4095 * 255), id="an empty VOI sequence"
        ),
        pytest.param(
            dicom(TWELVE, BitsStored=12, ModalityLUTSequence=[table(16, 0, np.arange(4096) * 5)]),
            np.round(TWELVE.astype(int) * 5 / 257),
            id="modality table",
        ),
        pytest.param(
            dicom(
                TWELVE,
                BitsStored=12,
                ModalityLUTSequence=[table(16, 0, np.arange(4096) * 5)],
                WindowCenter=9000,
                WindowWidth=6001,
            ),
            windowed(TWELVE.astype(int) * 5, 9000, 6001),
            id="modality table and window",
        ),
        pytest.param(
            dicom(np.stack([GREY, 255 - GREY, GREY // 2]), NumberOfFrames=3), GREY, id="the first of several frames"
        ),
    ],
)
def test_dicom_grey(header: FileDataset, expected: npt.NDArray[Any], shown: Show) -> None:
    np.testing.assert_array_equal(shown(header), three(np.asarray(expected)))


@pytest.mark.parametrize("planes", [0, 1])
def test_dicom_rgb(planes: int, shown: Show) -> None:
    header = dicom(COLOURS, PlanarConfiguration=planes)
    header.PixelData = (COLOURS.transpose(2, 0, 1) if planes else COLOURS).tobytes() + b"\0"
    np.testing.assert_array_equal(shown(header), COLOURS)


def test_dicom_ybr(shown: Show) -> None:
    ybr = np.asarray(Image.fromarray(COLOURS).convert("YCbCr"))
    pixels = shown(dicom(ybr, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(pixels.astype(int), COLOURS, atol=3)


@pytest.mark.parametrize("bits", [8, 16])
def test_dicom_palette(bits: int, shown: Show) -> None:
    header = dicom(PLACES, PhotometricInterpretation="PALETTE COLOR")
    for name, column in zip(("Red", "Green", "Blue"), TABLE.T.astype(int), strict=True):
        setattr(header, f"{name}PaletteColorLookupTableDescriptor", [4, 0, bits])
        entries = (column * 257).astype("<u2") if bits == 16 else column.astype(np.uint8)
        header.add_new(f"{name}PaletteColorLookupTableData", "OW", entries.tobytes())
    np.testing.assert_array_equal(shown(header), PALETTE_COLOURS)


@pytest.mark.parametrize("pixels", [SMOOTH[..., 0], SMOOTH], ids=["grey", "colour"])
def test_dicom_with_a_jpeg_inside(pixels: Pixels, shown: Show) -> None:
    header = dicom(pixels, PhotometricInterpretation="MONOCHROME2" if pixels.ndim == 2 else "YBR_FULL_422")
    jpeg = encoded(Image.fromarray(pixels), "JPEG", quality=95)
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate([jpeg])
    expected = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    np.testing.assert_allclose(shown(header).astype(int), expected, atol=2)


def test_a_real_radiograph(shared_data: Path) -> None:
    (path,) = (shared_data / "rsna" / "format_sample_not_rsna").glob("*.dcm")
    pixels = decode(path)
    assert pixels.shape == (1024, 1024, 3)
    np.testing.assert_array_equal(pixels, three(pydicom.dcmread(path).pixel_array))
    assert pixels.std() > 20


@pytest.mark.parametrize("name", ["IM0001", "image.dicom", "1.2.840.10008", "image.png"])
def test_dicom_under_another_name(name: str, tmp_path: Path) -> None:
    dicom(GREY).save_as(tmp_path / name, enforce_file_format=True)
    np.testing.assert_array_equal(decode(tmp_path / name), three(GREY))


def test_dicom_without_pixels(tmp_path: Path) -> None:
    header = dicom(GREY)
    del header.PixelData
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert unreadable(tmp_path / "image.dcm") == "a DICOM file without pixels"


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"a text\n" * 99, "not a DICOM file")])
def test_not_dicom(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(data)
    assert unreadable(tmp_path / "image.dcm") == reason


@pytest.mark.parametrize("left", [0.5, 0.95])
def test_truncated_dicom(left: float, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    dicom(WIDE.repeat(20, 0)).save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    (tmp_path / "image.dcm").write_bytes(data[: int(len(data) * left)])
    unreadable(tmp_path / "image.dcm")


def test_dicom_of_a_coding_that_is_not_what_it_says(tmp_path: Path) -> None:
    header = dicom(GREY)
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.PixelData = encapsulate([b"no such stream"])
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert "cannot identify image file" in unreadable(tmp_path / "image.dcm")


def test_dicom_that_takes_a_package_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    header = dicom(GREY)
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    header.PixelData = encapsulate([b"a stream"])
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    reason = unreadable(tmp_path / "image.dcm")
    assert reason == "JPEG-LS Lossless Image Compression is read by a package: pip install 'pylibjpeg[all]'"
    assert has_remedy(reason)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "its RescaleSlope is nan, which no image can be scaled by"),
        ({"RescaleSlope": "inf", "RescaleIntercept": 0}, "its RescaleSlope is inf, which"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": 0}, "its RescaleSlope is 1e+300, which"),
        ({"RescaleSlope": "1e-300", "RescaleIntercept": 0}, "its RescaleSlope is 1e-300, which"),
        ({"RescaleSlope": 1, "RescaleIntercept": "nan"}, "its RescaleIntercept is nan, which"),
        ({"RescaleSlope": 1, "RescaleIntercept": "-inf"}, "its RescaleIntercept is -inf, which"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "its RescaleSlope 0 and RescaleIntercept 5 leave a single grey"),
        (
            {"RescaleSlope": 1, "RescaleIntercept": "1e25"},
            "RescaleSlope 1 and RescaleIntercept 1e+25 leave a single grey",
        ),
        ({"WindowCenter": "nan", "WindowWidth": 400}, "its WindowCenter is nan, which"),
        ({"WindowCenter": 40, "WindowWidth": "nan"}, "its WindowWidth is nan, which"),
        ({"WindowCenter": 40, "WindowWidth": ["inf", "40"]}, "its WindowWidth is inf, which"),
        (
            {"WindowCenter": 40, "WindowWidth": "-3"},
            "Window Width must be greater than or equal to 1",
        ),
        ({"BitsStored": 0}, "'Bits Stored' value of '0'"),
        ({"BitsStored": 17}, "'Bits Stored' value of '17'"),
        ({"PhotometricInterpretation": "INFRARED"}, "'Photometric Interpretation' value 'INFRARED'"),
        ({"PhotometricInterpretation": "RGB"}, "its PhotometricInterpretation is 'RGB' of 1 samples, which"),
        ({"Rows": 6}, "The number of bytes of pixel data is less than expected (70 vs 84 bytes)"),
        ({"Rows": 0}, "'Rows' value of '0'"),
        (
            {"Rows": 60_000, "Columns": 60_000},
            "60,000 x 60,000 pixels take up to 144.0 GB of memory",
        ),
        ({"VOILUTSequence": [table(40, 0, np.arange(9))]}, "a table of its greys has 40 bits instead of 1 to 16"),
        ({"VOILUTSequence": [table(0, 0, np.arange(9))]}, "a table of its greys has 0 bits instead of 1 to 16"),
    ],
)
def test_a_header_that_can_not_be_right(attributes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    header = dicom(TWELVE)
    with pydicom.config.disable_value_validation():
        for name, value in attributes.items():
            setattr(header, name, value)
        header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableError) as caught:
        load(tmp_path / "image.dcm", 1e9)
    assert reason.lower() in str(caught.value).lower()


def test_a_table_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    item = table(8, 0, np.arange(9))
    item.LUTDescriptor = [4096, 0, 8]
    dicom(TWELVE, VOILUTSequence=[item]).save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert unreadable(tmp_path / "image.dcm") == "a table of its greys is shorter than its 4,096 entries"


@pytest.mark.parametrize("coding", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_pixels_of_another_size_than_the_headers(coding: Any, tmp_path: Path) -> None:
    """Its decoder would make what the stream says."""
    if coding == JPEG2000Lossless:
        stream = encoded(Image.fromarray(SMOOTH[..., 0]), "JPEG2000", no_jp2=True)
    else:
        stream = encoded(Image.fromarray(SMOOTH[..., 0]), "JPEG")
    if coding == JPEGLSLossless:
        stream = stream.replace(b"\xff\xc0", b"\xff\xff\xf7")
    header = dicom(GREY)
    header.file_meta.TransferSyntaxUID = coding
    header.PixelData = encapsulate([stream])
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert unreadable(tmp_path / "image.dcm") == "its pixels are 48 x 40, but its header says 7 x 5"


def test_a_deflated_file(tmp_path: Path) -> None:
    """It is unpacked as a whole by who reads it: what it unpacks to is looked at first."""
    header = dicom(GREY)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(decode(tmp_path / "image.dcm"), three(GREY))
    header = dicom(np.zeros((3000, 3000), np.uint16))
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert (tmp_path / "image.dcm").stat().st_size < 30_000
    with pytest.raises(TooLargeError, match=r"^more than [0-9,]+ bytes, packed into a file, take up to 0\.0 GB"):
        load(tmp_path / "image.dcm", 1e7)
