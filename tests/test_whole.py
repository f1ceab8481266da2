"""Files appear whole or not at all."""

import pytest
import torch

from safetensors.torch import save_file

from aion.whole import whole


def test_a_file_appears_in_the_end(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("older")
    with whole(path) as temporary:
        temporary.write_text("new")
        assert (temporary.parent, temporary.suffix) == (path.parent, ".html")
        assert path.read_text() == "older"
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


def test_whoever_may_read_a_new_file_may_read_this(tmp_path):
    (tmp_path / "plain").touch()
    with whole(tmp_path / "tensors.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_nothing_is_changed(tmp_path, error):
    path = tmp_path / "page.html"
    path.write_text("older")

    def fail():
        with whole(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["older"]
