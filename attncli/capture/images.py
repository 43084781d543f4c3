"""What a vision model reads: an image file, made ready as the model's folder says, or random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attncli.capture.model import import_transformers, loading_arguments, translate_errors
from attncli.capture.model_folder import ModelSource
from attncli.capture.request import RANDOM_IMAGE, CaptureRequest
from attncli.errors import CannotError, InputError, Location
from attncli.text import shorten
from attncli.types import Json

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import PreTrainedConfig

_USUAL_SIZE = 224  # pixels
_MAX_EXTRA_TOKENS = 8  # before those of the patches: a class, registers


def read_image(path: str) -> Image:
    """Read an image file, as red, green and blue.

    Raises:
        CannotError: Pillow is missing.
        InputError: there is no such file, or it is no image.
    """
    try:
        import PIL.Image
    except ImportError as error:
        message = f"an image file needs the package Pillow: {error}"
        raise CannotError("missing-extra", message, help="pip install pillow") from None
    try:
        with PIL.Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        help = "--image FILE, or --image random for random numbers"
        raise InputError("no-such-file", f"there is no image {shorten(path)}", help=help) from None
    except IsADirectoryError:
        raise InputError("not-a-file", f"{shorten(path)} is a folder", help="--image FILE") from None
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"{shorten(path)} cannot be read as an image: {shorten(first_line, 200)}"
        raise InputError("bad-file", message, location=Location(file=path)) from None


def prepare_image(source: ModelSource, request: CaptureRequest, image: Image) -> Json:
    """Return what the model is called with, made by the image processor of its folder.

    Raises:
        InputError: there is none, or it cannot be loaded.
        CannotError: a package is missing.
    """
    import torch

    transformers = import_transformers()
    with translate_errors(source, "the image processor"):
        processor = transformers.AutoImageProcessor.from_pretrained(
            source.path, backend="pil", **loading_arguments(source, request)
        )
        made = processor(images=image, return_tensors="pt")
    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}


def draw_image(config: PreTrainedConfig) -> Json:
    """Return random numbers of the size that a vision model takes: normal, as the values of an image are after its processor."""
    import torch

    vision = _vision_config(config)
    size = getattr(vision, "image_size", None)
    height, width = size if isinstance(size, list | tuple) else (size or _USUAL_SIZE,) * 2
    channels = getattr(vision, "num_channels", 3)
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.randn(1, channels, height, width, generator=generator)}


def _vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    return getattr(config, "vision_config", None) or config


def label_patches(config: PreTrainedConfig, pixels: torch.Tensor, count: int) -> list[str]:
    """Return labels for the tokens of an image, by the row and the column of their patch; empty where they are no patches.

    Args:
        config: of the model.
        pixels: what it reads, (B, C, height, width).
        count: of tokens. Those before the patches are a class, and what follows it.
    """
    size = getattr(_vision_config(config), "patch_size", None)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if not isinstance(height, int) or not isinstance(width, int) or pixels.dim() != 4:
        return []
    rows, columns = pixels.shape[-2] // height, pixels.shape[-1] // width
    extra = count - rows * columns
    if rows * columns < 2 or not 0 <= extra <= _MAX_EXTRA_TOKENS:
        return []
    before: Iterator[str] = (f"[{i}]" if i else "[CLS]" for i in range(extra))
    return [*before, *(f"r{row}c{column}" for row in range(rows) for column in range(columns))]


def is_random(request: CaptureRequest) -> bool:
    """Whether random numbers stand for an image."""
    return request.image == RANDOM_IMAGE
