"""Images become what the network reads, equal to what transformers makes, or are refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf  # which imports a processor when it is named
from PIL import Image
from torch import nn

from dubito.engine import Engine
from dubito.errors import DubitoError, InputError, TooLargeError
from dubito.preprocess import ImageBounds, TableFile, prepare
from dubito_nn import Bundle, ExportError, InputSpec, export, load_bundle, preprocess
from dubito_nn.manifest import Manifest
from dubito_nn.preprocess.given import read_given

from .pictures import (
    CLASSES,
    DIGITS,
    TAR,
    ZIP,
    archive,
    base64_of,
    digits,
    encoded,
    exported,
    folder,
    png,
)

BOUNDS = ImageBounds.of(25_000_000, 64 * 2**20)
PROCESSORS: dict[str, Callable[[], Any]] = {
    "vit": lambda: hf.ViTImageProcessorPil(size={"height": 32, "width": 32}),
    "clip": lambda: hf.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "convnext": lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 32}),
    "convnext, warped": lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "deit": lambda: hf.DeiTImageProcessorPil(
        size={"height": 40, "width": 36}, crop_size={"height": 33, "width": 48}
    ),
    "beit": lambda: hf.BeitImageProcessorPil(do_center_crop=True, do_normalize=False),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("digits") / "digits.dubito")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle, num_samples=4)


def _manifest(bundle: Bundle, part: preprocess.ImageInput, shape: tuple[Any, ...]) -> Manifest:
    """That of the bundle, with other images."""
    spec = InputSpec("image", "float32", shape)
    (read,) = read_given(part, [spec], {}) or ()
    return replace(bundle.manifest, inputs=(spec,), preprocess=(read,))


def _made(bundle: Bundle, part: preprocess.ImageInput, rows: Any, shape: Any = None) -> Any:
    """What a part makes of rows."""
    sizes = tuple(size or f"n{axis}" for axis, size in enumerate(part.shape))
    manifest = _manifest(bundle, part, shape or sizes)
    return prepare(rows, manifest, bounds=BOUNDS).arrays["image"]


def pictures(count: int, seed: int = 0) -> Iterator[tuple[bytes, Image.Image]]:
    """Files of many sizes, modes, formats and rotations, and what is seen in them."""
    random = np.random.default_rng(seed)
    modes = ("RGB", "L", "RGBA", "P", "CMYK", "1", "LA")
    for number in range(count):
        height, width = (int(side) for side in random.integers(9, 90, 2))
        coarse = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        seen = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        mode = modes[number % len(modes)]
        image = seen.convert("L").convert("LA") if mode == "LA" else seen.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(int(random.integers(0, 256)))
        formats = {"RGB": ("JPEG", "PNG", "WEBP", "TIFF"), "CMYK": ("TIFF", "JPEG")}
        formats |= {"L": ("JPEG", "PNG", "TIFF")}
        format = str(random.choice(formats.get(mode, ("PNG",))))
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 1
        yield encoded(image, format, exif=exif), image


def _seen(content: bytes) -> Image.Image:
    """A file as transformers loads it: turned, and in red, green and blue on white."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_become_what_the_processor_makes_of_them(bundle: Bundle, name: str) -> None:
    processor = PROCESSORS[name]()
    part = preprocess.from_transformers(processor)
    files = [content for content, _ in pictures({"clip": 200, "convnext, warped": 8}.get(name, 40))]
    found = _made(bundle, part, files)
    wanted = processor([_seen(file) for file in files], return_tensors="np")["pixel_values"]
    assert found.shape == wanted.shape
    span = wanted.max() - wanted.min()
    assert np.abs(found - wanted).max() <= 1e-3 * span
    assert found.std() > 0.1 * span


def test_the_network_gives_the_same_predictions_of_files_as_of_tensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    processor = PROCESSORS["clip"]()
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(400, 3))
    )
    example = torch.randn(4, 3, 32, 32)
    declared = preprocess.from_transformers(processor)
    options: Any = {"task": "classification", "output": "logits", "classes": ["a", "b", "c"]}
    made = export(network, example, tmp_path / "a.dubito", preprocess=declared, **options)
    engine = Engine.load(made, num_samples=4)
    files = [content for content, _ in pictures(14)]
    tensors = processor([_seen(file) for file in files], return_tensors="pt")["pixel_values"]
    wanted = engine.predict({"input": tensors}).mean
    for rows in (files, [base64_of(file) for file in files], [_opened(file) for file in files]):
        np.testing.assert_allclose(engine.predict(rows).mean, wanted, atol=1e-5)


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_processors_that_resize_otherwise_are_refused_by_name() -> None:
    backend = type("TorchvisionBackend", (), {})
    kinds = {
        "ViTImageProcessor on torchvision": type(
            "ViTImageProcessor", (backend,), {"image_processor": None}
        ),
        "of the common steps": type(
            "OwnProcessor", (hf.ViTImageProcessorPil,), {"resize": lambda self, image: image}
        ),
    }
    for reason, kind in kinds.items():
        given = kind()
        given.image_processor = given
        with pytest.raises(ExportError, match=reason):
            preprocess.from_transformers(given)
    with pytest.raises(ExportError, match=r"or an image processor, got builtins\.int"):
        preprocess.from_transformers(3)
    with pytest.raises(ExportError, match="expects fields of mode, size"):
        preprocess.from_transformers(PROCESSORS["vit"](), sharpen=True)
    named = preprocess.from_transformers(PROCESSORS["vit"](), input="x", background=None)
    assert (named.input, named.background) == ("x", None)
    padded = hf.ViTImageProcessorPil(do_pad=True)
    with pytest.raises(ExportError, match="without `do_pad`"):
        preprocess.from_transformers(padded)
    with pytest.raises(ExportError, match="shortest_edge"):
        preprocess.from_transformers(
            hf.ViTImageProcessorPil(size={"max_height": 3, "max_width": 4})
        )


def test_modes_layouts_and_sizes_are_as_declared(bundle: Bundle) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    plain = {"scale": 1.0}
    file = [png(pixels)]
    for fields, wanted in (
        ({}, pixels.transpose(2, 0, 1)),
        ({"layout": "HWC"}, pixels),
        ({"mode": "BGR", "layout": "HWC"}, pixels[:, :, ::-1]),
        ({"mode": "L", "layout": "HW"}, np.asarray(Image.fromarray(pixels).convert("L"))),
        ({"crop": (2, 2), "layout": "HWC"}, pixels[1:3]),
        ({"crop": (1, 1), "layout": "HWC", "mean": (1.0, 2.0, 3.0), "std": 2.0}, None),
    ):
        part = preprocess.ImageInput(**{**plain, **fields})
        expected = (pixels[1:2, :1] - np.array([1.0, 2.0, 3.0])) / 2 if wanted is None else wanted
        np.testing.assert_allclose(_made(bundle, part, file)[0], expected)
    around = preprocess.ImageInput(scale=1.0, crop=(5, 4), fill=7, layout="HWC")
    made = _made(bundle, around, file)[0]
    np.testing.assert_array_equal(made[1:, 1:3], pixels)
    assert (made[0] == 7).all()
    assert (made[:, 3] == 7).all()
    long = preprocess.ImageInput(longer_side=8)
    assert _made(bundle, long, file).shape == (1, 3, 8, 4)
    short = preprocess.ImageInput(shorter_side=3)
    assert _made(bundle, short, file).shape == (1, 3, 6, 3)


def test_grey_of_sixteen_bits_keeps_or_loses_its_bits_evenly(bundle: Bundle) -> None:
    values = np.array([[0, 128, 129], [257, 65_000, 65_535]], np.uint16)
    for format in ("PNG", "TIFF"):
        file = [encoded(Image.fromarray(values), format)]
        deep = preprocess.ImageInput(mode="I;16", scale=1.0, layout="HW")
        np.testing.assert_array_equal(_made(bundle, deep, file)[0], values)
        flat = preprocess.ImageInput(mode="L", scale=1.0, layout="HW")
        np.testing.assert_array_equal(
            _made(bundle, flat, file)[0], np.floor((values + 128.0) / 257)
        )
    grey = preprocess.ImageInput(mode="I;16", scale=1.0, layout="HW")
    np.testing.assert_array_equal(
        _made(bundle, grey, [png(np.full((2, 2), 255, np.uint8))]), np.full((1, 2, 2), 65_535.0)
    )


def test_what_shines_through_is_as_declared(bundle: Bundle) -> None:
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    index = Image.new("P", (2, 2), 0)
    index.putpalette([10, 20, 30, 1, 1, 1])
    files = [encoded(clear, "PNG"), encoded(index, "PNG", transparency=0)]
    for background, wanted in (((1, 2, 3), (1, 2, 3)), (None, (10, 20, 30))):
        part = preprocess.ImageInput(scale=1.0, layout="HWC", background=background)
        np.testing.assert_array_equal(_made(bundle, part, files)[:, 0, 0], [wanted, wanted])


def test_rows_of_all_kinds_give_the_same_predictions(engine: Engine, tmp_path: Path) -> None:
    files = folder(24)
    images = digits()[0][:24]
    wanted = engine.predict({"image": torch.tensor(images[:, None] / 16, dtype=torch.float32)})
    path = tmp_path / "one.png"
    path.write_bytes(png(images[0]))
    assert engine.predict([path]).mean[0].argmax() == wanted.mean[0].argmax()
    named = {"image": [png(image) for image in images]}
    url = [f"data:image/png;base64,{base64_of(png(image))}" for image in images]
    for rows in (named, named["image"], url, [Image.fromarray(image) for image in images]):
        np.testing.assert_allclose(engine.predict(rows).mean, wanted.mean, atol=1e-6)
    order = sorted(range(24), key=lambda row: list(files)[row])
    for kind in (ZIP, TAR):
        made = prepare(
            TableFile(kind, archive(files, kind)), engine.manifest, beside=["file", "label"]
        )
        np.testing.assert_allclose(made.arrays["image"][:, 0] * 16, images[order])
        assert made.beside["file"] == sorted(files)
        assert made.beside["label"] == [name[0] for name in sorted(files)]


def test_a_table_in_an_archive_names_what_its_files_are(bundle: Bundle) -> None:
    image = png(digits()[0][0])
    table = b"file_name,label,age\nb/y.png,no,4\nx.png,yes,\n"
    files = {"x.png": image, "b/y.png": image, "metadata.csv": table, ".hidden": b"x"}
    made = prepare(TableFile(ZIP, archive(files, ZIP)), bundle.manifest, beside=["label", "age"])
    assert made.beside == {"label": ["no", "yes"], "age": [4, None]}
    short = {**files, "metadata.csv": table.replace(b"x.png", b"z.png")}
    with pytest.raises(InputError, match=r"`file_name` of each file, got none of 'x.png'"):
        prepare(TableFile(ZIP, archive(short, ZIP)), bundle.manifest, beside=["label"])


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(width: int, height: int) -> bytes:
    """A PNG of nothing but one colour, which is short."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = packer.compress(bytes((width // 8 + 1) * height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    )


def _frames(format: str) -> bytes:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 120, 240)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


def _jpeg() -> bytes:
    return encoded(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), "JPEG")


HOSTILE: dict[str, tuple[type[DubitoError], str, bytes]] = {
    "a bomb": (TooLargeError, "pixels", bomb(20_000, 20_000)),
    "one that Pillow opens": (TooLargeError, "5100 x 5000", bomb(5100, 5000)),
    "a huge ratio": (InputError, "once it is resized", bomb(30_000, 1)),
    "a truncated JPEG": (InputError, "damaged", _jpeg()[:-80]),
    "a truncated PNG": (InputError, "damaged", png(np.eye(50, dtype=np.uint8))[:-60]),
    "a GIF": (InputError, "a GIF", _frames("GIF")),
    "an SVG": (InputError, "markup, such as an SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "a PDF": (InputError, "a PDF", b"%PDF-1.4"),
    "a ZIP": (InputError, "a ZIP archive", archive({"a.png": b""}, ZIP)),
    "nothing": (InputError, "something else", b""),
    "a PNG in words alone": (InputError, "damaged", b"\x89PNG\r\n\x1a\n"),
    "a moving PNG": (InputError, "one frame", _frames("PNG")),
    "a moving WebP": (InputError, "one frame", _frames("WEBP")),
    "a TIFF of pages": (InputError, "one frame", _frames("TIFF")),
    "a JPEG of many scans": (InputError, "at most 100 scans", _jpeg() + b"\xff\xda" * 101),
    "numbers of 32 bits": (
        InputError,
        "mode F",
        encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    ),
    "grey beyond 16 bits": (
        InputError,
        "grey of 16 bits",
        encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused(bundle: Bundle, name: str) -> None:
    kind, reason, content = HOSTILE[name]
    part = preprocess.ImageInput(shorter_side=700, crop=(8, 8))
    with pytest.raises(kind, match=f"input `image`, row 1: .*{reason}"):
        _made(bundle, part, [png(np.eye(8, dtype=np.uint8)), content])


def test_damaged_exif_turns_nothing(bundle: Bundle) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"):
        file = encoded(Image.fromarray(pixels), "PNG", exif=exif)
        np.testing.assert_allclose(_made(bundle, DIGITS, [file])[0, 0] * 16, pixels, atol=1e-4)


def test_the_bounds_of_a_request_hold_before_anything_is_decoded(bundle: Bundle) -> None:
    grey = bomb(4000, 4000)
    with pytest.raises(TooLargeError, match=r"400000000 pixels in all images, got more by row 25"):
        _made(bundle, DIGITS, [grey] * 40)
    large = preprocess.ImageInput(size=(4000, 4000))
    with pytest.raises(TooLargeError, match="images that become at most"):
        _made(bundle, large, [png(np.eye(8, dtype=np.uint8))] * 3)
    free = preprocess.ImageInput(mode="L")
    sizes = [png(np.eye(side, dtype=np.uint8)) for side in (8, 9)]
    with pytest.raises(InputError, match="images of one size"):
        _made(bundle, free, sizes)


CELLS = {
    "numbers": ([[1.0, 2.0]], "in base64, got list"),
    "an empty cell": ([None], "an empty cell"),
    "no base64": (["photo.png"], "in base64, got other text"),
    "no ASCII": (["\u00e9"], "in base64, got other text"),
    "one text": ("iVBORw0KGgo=", "a list of images"),
    "an array": (np.zeros((2, 1, 8, 8)), r"an array of shape \(2, 1, 8, 8\)"),
}


@pytest.mark.parametrize("name", CELLS)
def test_what_is_no_image_is_refused(engine: Engine, name: str) -> None:
    rows, reason = CELLS[name]
    with pytest.raises(InputError, match=reason):
        engine.predict(rows)  # type: ignore[arg-type]


def linked(kind: str) -> bytes:
    import tarfile

    out = io.BytesIO()
    if kind == ZIP:
        with zipfile.ZipFile(out, "w") as packed:
            info = zipfile.ZipInfo("a.png")
            info.external_attr = 0o120777 << 16
            packed.writestr(info, "/etc/passwd")
    else:
        with tarfile.TarFile(fileobj=out, mode="w") as tar:
            info_tar = tarfile.TarInfo("a.png")
            info_tar.type, info_tar.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info_tar)
    return out.getvalue()


def entries(count: int) -> bytes:
    """A ZIP archive of nothing but its directory."""
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 5) + bytes(16) + b"a.png"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(one) * count, 0, 0)
    return one * count + end


def test_hostile_archives_are_refused(bundle: Bundle) -> None:
    image = png(np.eye(8, dtype=np.uint8))
    good = archive({"a.png": image}, ZIP)
    flipped = bytearray(good)
    flipped[45] ^= 255
    huge = archive({"a.png": image}, TAR)
    stated = bytearray(huge)
    stated[124:136] = b"77777777777\0"
    twice = archive({"a.png": image, "b.png": image}, ZIP).replace(b"b.png", b"a.png")
    cases = [
        (ZIP, twice, "'a.png' twice"),
        (TAR, huge[:1024] + huge, "'a.png' twice"),  # a header and what fits into one block
        (ZIP, archive({"../a.png": image}, ZIP), "names below it"),
        (TAR, archive({"../a.png": image}, TAR), "names below it"),
        (ZIP, archive({"/a.png": image}, ZIP), "names below it"),
        (ZIP, archive({"b\\a.png": image}, ZIP), "names below it"),
        (ZIP, linked(ZIP), "a link"),
        (TAR, linked(TAR), "a link"),
        (ZIP, archive({"b.zip": good}, ZIP), "'b.zip'"),
        (ZIP, archive({"a.gif": image}, ZIP), "'a.gif'"),
        (ZIP, archive({".a": image}, ZIP), "got none"),
        (ZIP, entries(600_000), "at most 1003 files"),
        (ZIP, good + b"PK", "without a comment"),
        (ZIP, good[:-30], "without a comment"),
        (ZIP, bytes(flipped), "something else"),
        (ZIP, b"", "without a comment"),
        (TAR, b"\xff" * 2000, "something else"),
        (TAR, huge[:600], "the beginning of one|something else"),
        (TAR, bytes(stated), "something else|got more"),
        (TAR, archive({f"{'x' * 2**21}.png": image}, TAR), "too long"),
        (ZIP, archive({f"{row}.png": image for row in range(4)}, ZIP), "at most 3 rows"),
    ]
    for kind, content, reason in cases:
        with pytest.raises((InputError, TooLargeError), match=reason):
            prepare(TableFile(kind, content), bundle.manifest, most_rows=3, bounds=BOUNDS)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a.png", bytes(10**7))
    with pytest.raises(TooLargeError, match="files of at most 1000000 bytes together"):
        prepare(TableFile(ZIP, packed.getvalue(), 10**6), bundle.manifest)


def test_a_declaration_is_kept_as_data_and_covered_by_the_digest(
    bundle: Bundle, tmp_path: Path
) -> None:
    other = exported(tmp_path / "other.dubito", replace(DIGITS, scale=1 / 15))
    assert other.digest != bundle.digest
    for made, part in ((bundle, DIGITS), (other, replace(DIGITS, scale=1 / 15))):
        (kept,) = made.manifest.preprocess or ()
        assert asdict(kept) == {**asdict(part), "input": "image"}
    (read,) = load_bundle(tmp_path / "other.dubito").manifest.preprocess or ()
    assert (read, other.manifest.classes) == (kept, CLASSES)


def test_images_that_are_no_rows_of_the_input_are_refused() -> None:
    spec = InputSpec("image", "float32", (1, 8, 8))
    for part, reason in (
        (preprocess.ImageInput(size=(8, 8)), r"\(3, 8, 8\), the network takes \(1, 8, 8\)"),
        (preprocess.ImageInput(mode="L"), r"\(1, any, any\)"),
        (preprocess.ImageInput(mode="L", size=(8, 8), layout="HW"), r"\(8, 8\)"),
    ):
        with pytest.raises(ExportError, match=reason):
            read_given(part, [spec], {})
