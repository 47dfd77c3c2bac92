import pytest

from doubtmap.datasets import KNOWN, UNKNOWN, VOID, ComponentSizes, open_dataset
from doubtmap.errors import DataError, UsageError

GOOD = """
name = "dubai"
images = "images/{frame}.jpg"
labels = "labels/{frame}.png"
void = 255
unknown = [8, 9]
known = 5

[classes]
land = 0
vegetation = [1, 7]

[components]
predicted = 50
labelled = 10
"""


def small(folder, description, rows=((0, 1, 7), (255, 9, 5))):
    folder.image("images/a.jpg")
    folder.label("labels/a.png", rows)
    folder.text("doubtmap.toml", description)
    return open_dataset(f"folder:{folder.root}")


def test_a_described_folder(folder):
    dataset = small(folder, GOOD)
    assert dataset.name == "dubai"
    assert dataset.class_names == ("land", "vegetation")
    assert dataset.component_sizes == ComponentSizes(predicted=50, labelled=10)
    assert dataset[0].label.tolist() == [[0, 1, 1], [VOID, UNKNOWN, KNOWN]]


def test_files_may_lie_elsewhere(folder, tmp_path):
    small(folder, GOOD)
    for root, place in ((str(folder.root), tmp_path / "a"), ("../data set", tmp_path / "b")):
        place.mkdir()
        (place / "doubtmap.toml").write_text(f'root = "{root}"\n{GOOD}')
        dataset = open_dataset(f"folder:{place}")
        assert dataset[0].label.tolist() == [[0, 1, 1], [VOID, UNKNOWN, KNOWN]]
    (place / "doubtmap.toml").write_text(f'root = "gone"\n{GOOD}')
    with pytest.raises(DataError, match=r'doubtmap.toml: expected root = "gone" to be a folder'):
        open_dataset(f"folder:{place}")


def test_shell_patterns_and_the_fields_of_the_image(folder):
    description = (
        'images = "**/*.jpg"\nlabels = ["gone/{stem}.png", "labels/{stem}.png"]\n'
        'other = "void"\n[classes]\nroad = 1\n'
    )
    dataset = small(folder, description)
    assert dataset.name == "data set"
    assert dataset.component_sizes is None
    assert dataset[0].label.tolist() == [[VOID, 0, VOID], [VOID, VOID, VOID]]


def test_a_label_pattern_that_fits_twice(folder):
    folder.label("labels/a_old.png", [[0] * 3] * 2)
    message = r"images/a\.jpg: expected one label, found 2, .*a\.png and .*a_old\.png.*exact"
    message += r" \(masks/\{path\}"
    with pytest.raises(DataError, match=message):
        small(folder, GOOD.replace("labels/{frame}", "labels/{frame}*"))


def test_a_label_that_two_images_share(folder):
    folder.image("images/b.jpg")
    message = r"labels/a\.png: expected to be the label of one image.*a\.jpg and .*b\.jpg"
    with pytest.raises(DataError, match=message):
        small(folder, GOOD.replace("labels/{frame}", "labels/a"))


def test_splits_of_a_described_folder(folder):
    folder.image("images/dusk/a.jpg")
    folder.label("labels/dusk/a.png", [[0, 0, 1]] * 2)
    common = 'images = "images/{split}/*.jpg"\nlabels = "labels/{split}/{stem}.png"\nunknown = 1\n'
    folder.text("doubtmap.toml", common + "known = 0")
    assert open_dataset(f"folder:{folder.root}:dusk").name == "data set:dusk"
    with pytest.raises(UsageError, match=r"needs a split, .*Splits there: dusk"):
        open_dataset(f"folder:{folder.root}")
    folder.text("doubtmap.toml", common + 'known = 0\nsplit = "dusk"')
    assert len(open_dataset(f"folder:{folder.root}")) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "dubai"', "name = ", "expected TOML, got a mistake: .*line 2"),
        ('name = "dubai"', "name = 3", "expected name as text"),
        pytest.param('name = "dubai"', f"name = {'[' * 99_999}", "expected TOML", id="nested"),
        ('images = "images/{frame}.jpg"', "", "expected images as a path pattern.*got nothing"),
        ('labels = "labels/{frame}.png"', "labels = 7", "expected labels as a path pattern.*got 7"),
        ('labels = "labels/{frame}.png"', "labels = []", "expected labels as a path pattern"),
        ("labels/{frame}", "labels/{name}", r"uses \{name\}, which images .* lacks"),
        ("images/{frame}.jpg", "images/{stem}.jpg", r"\{stem\} in images is filled by doubtmap"),
        ('"images/', '"../images/', "expected images inside the folder"),
        ("images/{frame}", "images/{2x}", r"expected fields in images .*got \"\{2x\}\""),
        ("labels/{frame}", "labels/{a b}", r"expected fields in labels .*got \"\{a b\}\""),
        ('"images/', '"/images/', "expected images inside the folder"),
        ('"labels/', '"C:/labels/', "expected labels inside the folder"),
        ("void =", "viod =", r"got viod\. Did you mean void\?"),
        (
            "predicted =",
            "predict =",
            r"got components\.predict\. Did you mean components\.predicted",
        ),
        (
            "predicted = 50",
            "predicted = -1",
            r"expected components\.predicted as a number of pixels",
        ),
        ("void = 255", "void = 9", "the value 9 is listed for both unknown and void"),
        ("void = 255", "void = 7", "the value 7 is listed for both vegetation and void"),
        ("land = 0", "land = 1", "the value 1 is listed for both land and vegetation"),
        ("land = 0", "land = -32769", r"expected classes\.land as whole numbers .*got -32769"),
        ("land = 0", "land = 70000", r"expected classes\.land as whole numbers .*got 70000"),
        ("land = 0", "land = true", r"expected classes\.land as whole numbers .*got True"),
        ("land = 0", "land = '#12'", r"expected classes\.land as a colour such as .*got .#12"),
        ("land = 0", "land = []", r"expected at least one value for classes\.land"),
        ("known = 5", 'other = "nothing"', 'expected other = "known", "unknown" or "void"'),
        ("known = 5", 'split = "test"', r"needs a \{split\} in images"),
        ("[classes]", "[clases]", r"got clases\. Did you mean classes\?"),
    ],
)
def test_mistakes_name_the_file_and_the_key(folder, old, new, message):
    assert old in GOOD
    with pytest.raises(DataError, match=r"doubtmap\.toml: .*" + message):
        small(folder, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("void = 255", r"expected \[classes\], known or unknown values, got none"),
        ("classes = 3", "expected classes as a table"),
        ("known = 0\ncomponents = 3", "expected components as a table"),
        ("[classes]\nRoad = 0\nroad = 1", "the classes Road and road are the same name"),
    ],
)
def test_mistakes_in_the_whole(folder, extra, message):
    with pytest.raises(DataError, match=message):
        small(folder, f'images = "images/*.jpg"\nlabels = "labels/{{stem}}.png"\n{extra}\n')


def test_no_description(folder):
    folder.image("images/a.jpg")
    with pytest.raises(DataError, match=r"doubtmap\.toml: expected a description"):
        open_dataset(f"folder:{folder.root}")


def test_description_that_is_no_text(folder):
    folder.image("images/a.jpg")
    (folder.root / "doubtmap.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"doubtmap\.toml: expected UTF-8"):
        open_dataset(f"folder:{folder.root}")


SPLITS = """
images = "images/{tile}_{frame}.jpg"
labels = "labels/{tile}_{frame}.png"
known = 0
unknown = 1
split = "test"

[splits]
train = { tile = ["a", "b*"] }
test = { tile = "c", frame = ["1", "2"] }
evening = { stem = "*_3" }
"""


@pytest.fixture
def tiles(folder):
    for tile in ("a", "b", "bb", "c"):
        for frame in (1, 2, 3):
            folder.image(f"images/{tile}_{frame}.jpg")
            folder.label(f"labels/{tile}_{frame}.png", [[0, 0, 1]] * 2)
    folder.text("doubtmap.toml", SPLITS)
    return folder


def test_splits_by_the_fields_of_the_images(tiles):
    def stems(split):
        dataset = open_dataset(f"folder:{tiles.root}{split}")
        return [dataset.sample_name(index) for index in range(len(dataset))]

    assert stems(":train") == [
        f"{tile}_{frame}" for tile in ("a", "b", "bb") for frame in (1, 2, 3)
    ]
    assert stems("") == stems(":test") == ["c_1", "c_2"]
    assert stems(":evening") == ["a_3", "b_3", "bb_3", "c_3"]
    with pytest.raises(DataError, match=r"split val.*Splits there: evening, test, train\."):
        stems(":val")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('train = { tile = ["a", "b*"] }', "train = 3", r"expected splits as tables of fields"),
        ('train = { tile = ["a", "b*"] }', "train = {}", r"expected splits as tables of fields"),
        ("{ tile = [", "{ title = [", r"got splits\.train\.title\. Did you mean .*tile\?"),
        ('["a", "b*"]', '["a", 3]', r"expected splits\.train\.tile as text or a list"),
        ('["a", "b*"]', "[]", r"expected splits\.train\.tile as text or a list"),
        ("[splits]", "[split]", r"expected TOML|expected split as text|got split"),
    ],
)
def test_mistakes_in_splits_name_the_key(tiles, old, new, message):
    assert old in SPLITS
    tiles.text("doubtmap.toml", SPLITS.replace(old, new, 1))
    with pytest.raises(DataError, match=r"doubtmap\.toml: .*(" + message + ")"):
        open_dataset(f"folder:{tiles.root}:train")
