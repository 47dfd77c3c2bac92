import pytest

from doubtmap.datasets import collect_images
from doubtmap.errors import DataError


@pytest.fixture
def scenes(folder):
    for name in ("b.png", "a.JPG", "deep/er/c.webp", ".hidden/d.png", "._a.jpg"):
        folder.image(name, format="PNG")
    folder.text("notes.txt", "no image")
    return folder.root


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_a_folder_is_searched_to_the_bottom(scenes):
    assert names(collect_images([scenes]), scenes) == ["a.JPG", "b.png", "deep/er/c.webp"]


def test_a_file_is_taken_as_it_is(scenes):
    assert collect_images([str(scenes / "notes.txt")]) == [scenes / "notes.txt"]


def test_patterns(scenes):
    assert names(collect_images([f"{scenes}/*"]), scenes) == ["a.JPG", "b.png", "deep/er/c.webp"]
    assert names(collect_images([f"{scenes}/**/*.webp"]), scenes) == ["deep/er/c.webp"]


def test_each_image_once_in_the_order_asked(scenes):
    paths = collect_images([scenes / "b.png", scenes, f"{scenes}/*.png"])
    assert names(paths, scenes) == ["b.png", "a.JPG", "deep/er/c.webp"]


def test_a_file_whose_name_looks_like_a_pattern(folder):
    path = folder.image("frame[1].png")
    assert collect_images([path]) == [path]


def test_nothing_found(scenes, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing there"):
        collect_images([tmp_path / "gone.png"])
    with pytest.raises(DataError, match="expected images in this folder"):
        collect_images([tmp_path / "empty"])
    with pytest.raises(DataError, match="no image file matches this pattern"):
        collect_images([f"{scenes}/*.tif"])
    with pytest.raises(DataError, match="got no path"):
        collect_images([])
