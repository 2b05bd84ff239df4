"""Which images an argument leads to, and in which order: folders, links, patterns."""

from pathlib import Path

from predicting import picture

from nettailor.core.image_paths import find_images


def names_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_images([str(folder)])]


def test_what_a_folder_holds(photos):
    assert names_in(photos) == ["C.PNG", "a.jpg", "b.png", "sub/d.png", "sub/deeper/e.png"]


def test_a_hidden_folder_may_be_named_itself(photos):
    assert names_in(photos / ".thumbnails") == ["f.png"]


def test_links(photos):
    before = names_in(photos)
    (photos / "sub" / "up").symlink_to(photos, target_is_directory=True)
    (photos / "zz-again.png").symlink_to(photos / "b.png")
    assert names_in(photos) == before
    picture(photos.parent / "elsewhere" / "h.png")
    (photos / "linked").symlink_to(photos.parent / "elsewhere", target_is_directory=True)
    assert names_in(photos) == sorted([*before, "linked/h.png"])


def test_order_and_duplicates(photos, monkeypatch):
    monkeypatch.chdir(photos)
    given = ["sub/d.png", "b.png", "./b.png", str(photos / "sub"), ".", "*.jpg"]
    assert list(map(str, find_images(given))) == [
        "sub/d.png", "b.png", str(photos / "sub/deeper/e.png"), "C.PNG", "a.jpg",
    ]  # fmt: skip


def test_patterns(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert list(map(str, find_images(["*.png"]))) == ["b.png"]
    assert list(map(str, find_images(["**/*.png"]))) == ["b.png", "sub/d.png", "sub/deeper/e.png"]
    assert list(map(str, find_images(["s?b"]))) == ["sub/d.png", "sub/deeper/e.png"]
    picture(photos / "[ab].png")
    assert list(map(str, find_images(["[ab].png"]))) == ["[ab].png"], "a name that is there"
