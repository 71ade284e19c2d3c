"""Pictures and masks from files of any kind, at the size that the network sees."""

from __future__ import annotations

import contextlib
import math
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps

from n2n.errors import N2NError, reason
from n2n.settings import MaskRule, Resize

# `_open` refuses such an image in a sentence of its own
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# What a pixel depends on beside its file; raise the number where a decoder here changes.
DECODER = f"1-pillow{PIL.__version__}"
DIM = 4096  # 16-bit images without a value from here on hold 12 bits, unscaled


def decode_image(path: Path, size: int, resize: Resize = "bilinear") -> NDArray[np.uint8]:
    """Decode any image and resize it, (size, size, 3), without keeping the aspect ratio.

    All filters but ``nearest`` are antialiased: they widen with the step. Sixteen bits are scaled
    to eight, transparency is laid on white, the camera's rotation is applied, and an animation
    gives its first frame.

    Raises:
        N2NError: where the file is missing, damaged, not an image, huge, of floats or more than
            16 bits, or of 16 bits whose upper four are empty.
    """
    with _open(path) as image:
        if image.mode == "F":
            raise N2NError(
                f"{path} has floating-point pixels, of which nobody knows what is black and what "
                "is white; export it with 8 or 16 bits."
            )
        if image.mode.startswith("I"):
            brightest = np.asarray(image).max()
            if brightest > 65535:
                raise N2NError(f"{path} has more than 16 bits a pixel; export it with 8 or 16.")
            if 0 < brightest < DIM:
                raise N2NError(
                    f"{path} has no pixel above {brightest} of 65535, as from a camera of fewer "
                    "bits, and would be black; export it with 8 bits, or scaled to 16."
                )
        upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright).resize((size, size), Image.Resampling[resize.upper()])
        return np.asarray(rgb, dtype=np.uint8)


def decode_mask(
    path: Path, image: Path, size: int, mask_rule: MaskRule = "half"
) -> NDArray[np.bool_]:
    """Decode the mask of an image, (size, size); whatever is not black is anomalous.

    A pixel of the result is anomalous where ``half`` of it is covered, where ``any`` of it is, or
    where the ``nearest`` pixel of the mask is; where by that rule none is left, those that are
    covered most, so that no anomalous image is left without one.

    Raises:
        N2NError: where the file is missing, damaged or a JPEG, has another size than the image, or
            marks nothing.
    """
    with _open(path) as picture:
        if picture.format == "JPEG":
            raise N2NError(
                f"The mask {path} is a JPEG, whose losses mark pixels beside the defect; "
                "export it as PNG."
            )
        # Of a palette image the colours: Pillow itself writes palettes that begin with white
        values = np.asarray(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
    with _open(image) as original:
        upright = ImageOps.exif_transpose(original).size
    if picture.mode in ("LA", "RGBA"):
        values = values[..., :-1]  # without the opacity
    marked = values > 0 if values.ndim == 2 else (values > 0).any(-1)
    if marked.shape[::-1] != upright:
        raise N2NError(
            f"The mask {path} is {marked.shape[1]}x{marked.shape[0]} pixels, but its image {image} "
            f"is {upright[0]}x{upright[1]}; export the mask at the image's size."
        )
    if not marked.any():
        raise N2NError(
            f"The mask {path} marks no pixel of an anomalous image; draw the defect, or move the "
            "image to test/good."
        )
    area = Image.fromarray(marked.astype(np.float32))
    covered = np.asarray(area.resize((size, size), Image.Resampling.BOX))
    if mask_rule == "nearest":
        resized = np.asarray(area.resize((size, size), Image.Resampling.NEAREST)) > 0
    else:
        resized = covered >= 0.5 if mask_rule == "half" else covered > 0
    found: NDArray[np.bool_] = resized if resized.any() else covered == covered.max()
    return found


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong until the end of the block becomes one sentence."""
    try:
        with Image.open(path) as image:
            # Pillow only warns between once and twice its limit; a part's photograph is below it.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            yield image
    except N2NError:
        raise
    except Image.DecompressionBombError as error:
        raise N2NError(f"{path} has too many pixels to be a photograph; reduce it.") from error
    except FileNotFoundError as error:
        raise N2NError(f"There is no file {path}; restore it.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if path.is_file() and getattr(error, "errno", None):  # the system's, not Pillow's
            raise N2NError(
                f"{path} cannot be read ({reason(error)}); see to that and start again."
            ) from error
        state = "a folder, or a link that leads nowhere"
        if path.is_file():
            state = "truncated or not an image" if path.stat().st_size else "empty"
        raise N2NError(f"{path} cannot be read: it is {state}; restore or remove it.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits: Pillow's own conversion would clip them
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return image.convert("RGB")
