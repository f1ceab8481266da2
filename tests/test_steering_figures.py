import math
import shutil

import pytest
import torch

from aion.steering import animate


def test_an_animation_has_every_frame(tmp_path, generator):
    from PIL import Image

    field = torch.randn(5, 12, 16, generator=generator)
    lost = field.clone()
    lost[3:] = math.nan
    animate({"baseline": field, "steered": lost}, tmp_path / "flow.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["flow.gif"]
    with Image.open(tmp_path / "flow.gif") as image:
        assert image.n_frames == 5
        image.seek(4)
        assert len(set(image.convert("L").tobytes())) > 10


@pytest.mark.parametrize(
    ("name", "shapes", "match"),
    [("a.png", [(2, 3, 3)], "gif or"), ("a.gif", [(2, 3, 3), (3, 3, 3)], "as many frames"), ("a.gif", [], "wanted")],
)
def test_animations_that_cannot_be(tmp_path, name, shapes, match):
    with pytest.raises(ValueError, match=match):
        animate({str(i): torch.zeros(shape) for i, shape in enumerate(shapes)}, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("ffmpeg") is not None, reason="ffmpeg is here")
def test_mp4_says_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match="ffmpeg"):
        animate({"a": torch.zeros(2, 4, 4)}, tmp_path / "a.mp4")
