"""A thousand damaged files: each is refused with one line, or works; nothing in them ever runs."""

import copy
import json
import pickle
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pack_runs import images, run_of
from payload import Payload
from PIL import Image
from safetensors.torch import load_file, save_file

from nettailor import answering
from nettailor.classifier import Classifier
from nettailor.core.errors import UserError
from nettailor.core.families import make_network
from nettailor.library import Library
from nettailor.network import load_network
from nettailor.packing import add_to_library

GIGABYTE = 1 << 30
CLASSES = 4
# what a key may be turned into: of a wrong type, out of range, absurd
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3.5, float("nan"), float("inf"), -float("inf"), 1e308, 1e-308,
    10**9, 2**31, 2**63, 10**30, "", "x", "all", "frozen", "resnet18", "convnext_xxlarge",
    "regnety_2560", "test_efficientnet", "../..", "\n", "\ud800", "a" * 10_000, [], [[]], {},
    {"a": 1}, [0, 1, "block"], [[0, 5, "exit"]], [str(number) for number in range(200_000)],
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _little_memory():
    """Whoever asks for a gigabyte more than is in use gets an error that is no UserError."""
    in_use = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use * resource.getpagesize() + GIGABYTE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, a library with its pack, and an image."""
    folder = tmp_path_factory.mktemp("fuzz")
    torch.manual_seed(0)
    save_file(make_network("test_resnet", 7).state_dict(), folder / "test_resnet.safetensors")
    run = run_of(
        folder / "zoo", folder / "test_resnet.safetensors", classes=CLASSES, adapters=True, skips=1
    )
    add_to_library(run, folder / "library")
    Image.effect_noise((40, 40), 50).convert("RGB").save(folder / "image.png")
    return folder


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    """Bits of the first kilobytes, where a header is, or of the last nine tenths."""
    damaged = bytearray(data)
    reach = dice.choice((range(min(2000, len(data))), range(len(data) // 10, len(data))))
    for _ in range(dice.choice((1, 1, 8, 100))):
        damaged[dice.choice(reach)] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.choice((0, 1, 7, 8, 9, 100, len(data) - 1, dice.randrange(len(data))))]


def extend(data: bytes, dice: random.Random) -> bytes:
    return data + dice.randbytes(dice.choice((1, 8, 1000)))


def lie_of_length(data: bytes, dice: random.Random) -> bytes:
    """Another length of the header, up to 2^64 - 1."""
    length = dice.choice((0, 1, len(data), 10**8, 2**31, 2**32, 2**63, 2**64 - 1))
    return length.to_bytes(8, "little") + data[8:]


def lie_of_a_tensor(data: bytes, dice: random.Random) -> bytes:
    """A header that is well-formed but says something else of one tensor."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = dice.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match dice.randrange(5):
        case 0:
            entry["dtype"] = dice.choice(("I32", "U32", "BF16", "F8_E4M3", "F4", "C64", "Q", 5))
        case 1:
            entry["shape"] = dice.choice(([], [10**12], [-1], entry["shape"] * 2, [0], "x"))
        case 2:
            entry["shape"] = entry["shape"][::-1]
        case 3:
            entry["data_offsets"] = dice.choice(([0, 2**62], [5, 1], [], [0, 0]))
        case _:
            header[dice.choice(("x", "x\ny" * 500, "\u202e"))] = header.pop(name)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def noise(data: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(len(data) % 5000 + 1)


BINARY = [
    flip_bits,
    flip_bits,
    truncate,
    extend,
    lie_of_length,
    lie_of_a_tensor,
    lie_of_a_tensor,
    noise,
]


def places_in(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document but the whole."""
    pairs: Any = ()
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list):
        pairs = enumerate(content)
    for key, value in pairs:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def edit_json(data: bytes, dice: random.Random) -> bytes:
    content = json.loads(data)
    for _ in range(dice.choice((1, 1, 1, 3))):
        *way, last = dice.choice(list(places_in(content)))
        owner = content
        for key in way:
            owner = owner[key]
        match dice.randrange(6):
            case 0:
                del owner[last]
            case 1 if isinstance(owner, list):
                owner.insert(dice.randrange(len(owner) + 1), copy.deepcopy(owner[last]))
            case 2 if isinstance(owner[last], int) and not isinstance(owner[last], bool):
                owner[last] += dice.choice((-1, 1))
            case 3 if isinstance(owner, dict):
                owner[dice.choice(("new", "a\nb", "x" * 5000))] = dice.choice(STRANGE)
            case _:
                owner[last] = copy.deepcopy(dice.choice(STRANGE))
        if not content:
            break
    return json.dumps(content).encode()


def nest(data: bytes, dice: random.Random) -> bytes:
    depth = dice.choice((50, 900, 5000, 100_000))
    inner = dice.choice(("[", '{"a":'))
    return (b'{"architecture":' + inner.encode() * depth) + dice.choice((b"", b"1" + b"]" * depth))


def absurd_text(data: bytes, dice: random.Random) -> bytes:
    return dice.choice((b"", b"null", b"[]", b"\xff\xfe", b"1" * 10_000, b"\0" * 100, b'"x"', b"{"))


JSON = [edit_json] * 12 + [nest, absurd_text, truncate, flip_bits]


def use_pack(folder: Path) -> torch.Tensor:
    library = Library(folder / "library")
    return library["zoo"](images(count=2))


def use_run(folder: Path) -> torch.Tensor:
    """As the command does, which answers for what the network computes."""
    network, architecture = load_network(folder / "zoo")
    classifier = Classifier(network, architecture.classes, architecture.preprocessing, {})
    (said,) = answering.predict(
        classifier, [folder / "image.png"], top_k=len(architecture.classes), batch_size=1,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert isinstance(said, answering.Predicted), said
    return torch.tensor([[probability for _, probability in said.predictions]])


def outcome(
    use: Callable[[Path], torch.Tensor], folder: Path
) -> tuple[BaseException | None, torch.Tensor]:
    """What was raised, if anything, and what was computed."""
    try:
        return None, use(folder)
    except BaseException as fault:
        return fault, torch.empty(0)


TARGETS: list[tuple[str, list[Any], Callable[[Path], torch.Tensor], int]] = [
    ("library/packs/zoo/pack.safetensors", BINARY, use_pack, 150),
    ("library/packs/zoo/pack.json", JSON, use_pack, 300),
    ("library/backbone/backbone.safetensors", BINARY, use_pack, 60),
    ("library/backbone/backbone.json", JSON, use_pack, 90),
    ("zoo/architecture.json", JSON, use_run, 250),
    ("zoo/model.safetensors", BINARY, use_run, 150),
]


assert sum(count for *_, count in TARGETS) >= 1000


def test_memory_is_short():
    """Else the others would not notice."""
    with pytest.raises(RuntimeError, match="memory"):
        torch.zeros(2 * GIGABYTE, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("file", "kinds", "use", "count"), TARGETS, ids=[file for file, *_ in TARGETS]
)
def test_damaged_files(place, tmp_path, file, kinds, use, count):
    folder = shutil.copytree(place, tmp_path / "place")
    path = folder / file
    whole = path.read_bytes()
    assert torch.isfinite(use(folder)).all()
    refused = 0
    for seed in range(count):
        kind = kinds[seed % len(kinds)]
        path.write_bytes(kind(whole, random.Random(seed)))
        fault, output = outcome(use, folder)
        case = f"seed {seed}, {kind.__name__}: {fault!r}"
        if fault is None:
            assert output.shape[-1] == CLASSES, case
            assert torch.isfinite(output).all(), case
            continue
        refused += 1
        assert isinstance(fault, UserError), case
        assert str(fault).isprintable(), case
        assert len(str(fault)) < 2000, case
    assert refused > count / 2
    payload = Payload(tmp_path / "touched")
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        write({"stem.conv1.weight": payload}, path)
        with pytest.raises(UserError):
            use(folder)
    assert not payload.victim.exists()
    pickle.loads(pickle.dumps(payload))
    assert payload.victim.exists(), "the payload must be a live one"
    path.write_bytes(whole)
    assert torch.isfinite(use(folder)).all()


MANY = [str(number) for number in range(60_000)]
# every path that there could be, with as many classes as there may be
PATHS = [
    *([node - 1, node, "block"] for node in range(1, 17)),
    *([node, 17, "exit"] for node in range(17)),
    *([source, node, "proxy"] for node in range(1, 17) for source in range(node)),
]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"backbone": "convnext_xxlarge", "student": None}, "weights of another network"),  # 3.4 GB
        ({"backbone": "regnety_2560", "student": None}, "weights of another network"),  # 5.1 GB
        ({"classes": MANY}, "weights of another network"),
        ({"classes": [str(number) for number in range(70_000)]}, r"classes: .*at most 65536"),
        (
            {"backbone": "resnet50", "classes": MANY, "student": {"paths": PATHS}},
            "weights of another network",
        ),
    ],
    ids=["3.4 GB", "5.1 GB", "classes", "too many classes", "paths"],
)
def test_nobody_makes_it_allocate_gigabytes(place, tmp_path, edit, words):
    folder = shutil.copytree(place, tmp_path / "place")
    path = folder / "zoo" / "architecture.json"
    content = json.loads(path.read_bytes())
    student = edit.get("student") and content["student"] | edit["student"]
    edit = edit | {"student": student} if "student" in edit else edit
    path.write_text(json.dumps(content | edit), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_network(folder / "zoo")


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.float64, torch.complex64])
def test_numbers_of_another_type(place, tmp_path, dtype):
    folder = shutil.copytree(place, tmp_path / "place")
    for file, use in (("library/packs/zoo/pack", use_pack), ("zoo/model", use_run)):
        path = folder / f"{file}.safetensors"
        tensors = {name: t.to(dtype) for name, t in load_file(path).items()}
        save_file(tensors, path)
        with pytest.raises(UserError, match=r"is torch\..*, expected torch\."):
            use(folder)
