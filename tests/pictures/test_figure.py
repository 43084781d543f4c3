"""The pictures of the documentation are what its commands draw today."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.pictures.figure import COMMANDS, IMAGES, draw


@pytest.mark.parametrize("name", COMMANDS)
def test_the_figures_of_the_documentation_are_up_to_date(tmp_path, name):
    draw(name, tmp_path / name)
    drawn, shown = (Image.open(folder / name).convert("RGB") for folder in (tmp_path, IMAGES))

    assert drawn.size == shown.size
    assert np.abs(np.asarray(drawn, float) - np.asarray(shown, float)).mean() < 1  # other builds round text otherwise
