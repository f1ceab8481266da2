"""The files of recipes: what is wrong with one is said in a line."""

import pytest

from aion.training.toml import check_sections, read_toml


def test_what_is_no_recipe_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    with pytest.raises(FileNotFoundError, match="no recipe"):
        read_toml(path)
    path.write_text("[model\n")
    with pytest.raises(ValueError, match="is not TOML"):
        read_toml(path)
    path.write_text("[modle]\nwidth = 3\n")
    assert read_toml(path) == {"modle": {"width": 3}}
    with pytest.raises(ValueError, match="unknown section 'modle'; did you mean 'model'"):
        check_sections(path, read_toml(path), {"model"})
    with pytest.raises(ValueError, match="lacks model"):
        check_sections(path, {"data": {}}, {"data", "model", "seed"}, {"seed"})
    check_sections(path, {"data": {}}, {"data", "seed"}, {"seed"})
