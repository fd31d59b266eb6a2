"""Files that are broken, or made to hurt: refused with one clear line, in little time and memory."""

import contextlib
import json
import os
import resource
import zipfile

import coremltools as ct
import numpy as np
import pytest
from click.testing import CliRunner
from mil_facts import X, text

import anex
from anex import mb
from anex.cli import main

MORE = 2 << 30  # bytes of address space above what the process has


@pytest.fixture(autouse=True)
def bounded_memory():
    """What asks for gigabytes is a MemoryError, which no test here expects."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A package with weights in a file."""

    @anex.graph(x=(1, 64, 1, 8))
    def program(x):
        return mb.conv(x=x, weight=np.ones((64, 64, 1, 1)), name="y")

    path = tmp_path_factory.mktemp("good") / "m.mlpackage"
    anex.compile(program, device="cpu").save(path)
    return path


@pytest.fixture
def package(good, tmp_path):
    """A copy to be spoilt: the package, its protobuf, its weight file."""
    import shutil

    path = tmp_path / "m.mlpackage"
    shutil.copytree(good, path)
    (proto,) = path.rglob("*.mlmodel")
    (weights,) = path.rglob("weight.bin")
    return path, proto, weights


def refused(model, words=""):
    with pytest.raises(anex.Error) as found:
        anex.explain(model)
    message = str(found.value)
    assert words in message, message
    assert len(message) < 2000
    return message


# ---- text ---------------------------------------------------------------------------------------


def nested_blocks(levels):
    """cond in cond in cond."""
    inner = f"{X} z = relu(x = x);"
    for _ in range(levels):
        inner = f"{X} z = cond(pred = p) {{ {inner} }} -> (z), {{ }} -> (x);"
    return text(f"bool p = const()[val = bool(true)]; {inner} {X} y = relu(x = z);")


TEXTS = {
    "brackets": "(" * 1_000_000,
    "types": text(f"{'tensor<' * 5000}fp16{', [1]>' * 5000} y = relu(x = x);"),
    "values": text(f"{X} y = add(x = x, y = {'(' * 5000}{')' * 5000});"),
    "blocks": nested_blocks(2000),
    "cycle": text(f"{X} y = relu(x = h); {X} h = relu(x = y);"),
    "itself": text(f"{X} y = relu(x = y);"),
    "twice": text(f"{X} y = relu(x = x); {X} y = relu(x = y);"),
    "rank": text(f"tensor<fp16, [{', '.join(['1'] * 5000)}]> y = relu(x = x);"),
    "overflow": text("tensor<fp16, [99999999999999999999999]> y = relu(x = x);"),
    "minus": text("tensor<fp16, [-5]> y = relu(x = x);"),
    "string": text(f'{X} y = relu(x = x)[name = string("' + "y" * 1_000_000 + ");"),
    "name": text(f"{X} {'y' * 1_000_000} = relu(x = z);"),
    "no end": text(f"{X} y = relu(x = x);")[:-20],
    "blob": text(f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("/dev/zero"), offset=uint64(64))));'),
    "up": text(f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("@model_path/../../../../etc/passwd"),'
               "offset=uint64(64))));"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_is_refused(tmp_path, name):
    file = tmp_path / "model.mil"
    file.write_text(TEXTS[name])
    refused(file)


ONES = "fill(shape = tensor<int32, [{n}]>([{dims}]), value = fp16(0x1p+0))"
VALUES = {  # each asks for gigabytes to terabytes of constants in a line of text
    "fill": f"tensor<fp16, [100000,100000]> z = {ONES.format(n=2, dims='100000,100000')};",
    "range": "tensor<int32, [2000000000]> z = range_1d(start = int32(0), end = int32(2000000000), step = int32(1));",
    "tile": f"tensor<fp16, [1000000]> a = {ONES.format(n=1, dims='1000000')}; tensor<fp16, [100000000000]> z = "
            "tile(x = a, reps = tensor<int32, [1]>([100000]));",
    "outer": f"tensor<fp16, [1000000,1]> a = {ONES.format(n=2, dims='1000000,1')}; tensor<fp16, [1,1000000]> b = "
             f"{ONES.format(n=2, dims='1,1000000')}; tensor<fp16, [1000000,1000000]> z = add(x = a, y = b);",
    "pad": f"tensor<fp16, [4]> a = {ONES.format(n=1, dims='4')}; tensor<fp16, [2000000004]> z = pad(x = a, pad = "
           'tensor<int32, [2]>([0, 2000000000]), mode = string("constant"), constant_val = fp16(0x0p+0));',
    "many": "".join(f"tensor<fp16, [20000,2000]> z{i} = {ONES.format(n=2, dims='20000,2000')};" for i in range(60)),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_constants_of_gigabytes_are_not_computed_while_a_program_is_read(tmp_path, name):
    file = tmp_path / "model.mil"
    file.write_text(text(f"{VALUES[name]} {X} y = relu(x = x);"))
    with contextlib.suppress(anex.Error):
        assert anex.explain(file)["y"].unit == "ane"


@pytest.mark.parametrize("offset", [1, 63, 1 << 20, (1 << 63) - 64, (1 << 64) - 64, 1 << 64])
def test_absurd_offsets_of_weights_are_refused(package, offset, tmp_path):
    _, _, weights = package
    (tmp_path / "w").mkdir()
    (tmp_path / "w/weight.bin").write_bytes(weights.read_bytes())
    file = tmp_path / "w/model.mil"
    file.write_text(text(f'{X} y = add(x = x, y = tensor<fp16, [8]>(BLOBFILE(path=string("@model_path/weight.bin"),'
                         f"offset=uint64({offset}))));"))  # fmt: skip
    refused(file)


# ---- packages -----------------------------------------------------------------------------------


def manifest(package, change):
    file = package / "Manifest.json"
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


@pytest.mark.parametrize("path", ["../../../../../../etc/passwd", "/etc/passwd", "../outside.mlmodel", "", "."])
def test_a_manifest_that_points_elsewhere_is_refused(package, path, tmp_path):
    folder, proto, _ = package
    (tmp_path / "outside.mlmodel").write_bytes(proto.read_bytes())

    def change(found):
        found["itemInfoEntries"][found["rootModelIdentifier"]]["path"] = path

    manifest(folder, change)
    refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b"{}", b"\xff\xfe", b'{"fileFormatVersion": "1.0.0", "rootModelIdentifier": 3}'],
    ids=["empty", "cut", "deep", "bare", "bytes", "kind"],
)
def test_a_broken_manifest_is_refused(package, content):
    (package[0] / "Manifest.json").write_bytes(content)
    refused(package[0])


@pytest.mark.parametrize("which", [1, 2], ids=["model", "weights"])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/urandom", "/etc/passwd", "itself", "a copy outside", "/nowhere"])
def test_links_out_of_a_package_are_refused(package, which, target, tmp_path):
    link = package[which]
    content = link.read_bytes()
    link.unlink()
    if target == "a copy outside":
        target = tmp_path / "copy.bin"
        target.write_bytes(content)
    link.symlink_to(link if target == "itself" else target)
    refused(package[0])


def test_links_inside_a_package_and_to_the_blobs_of_a_download_are_followed(package, tmp_path):
    folder, proto, weights = package
    weights.rename(weights.with_name("other.bin"))
    weights.symlink_to("other.bin")
    assert anex.explain(folder).residency == 1
    cache = tmp_path / "models--someone--m"
    (cache / "snapshots/abc").mkdir(parents=True)
    (cache / "blobs").mkdir()
    proto.rename(cache / "blobs/123")
    proto.symlink_to(cache / "blobs/123")
    folder.rename(cache / "snapshots/abc/m.mlpackage")
    assert anex.explain(cache / "snapshots/abc/m.mlpackage").residency == 1


@pytest.mark.parametrize("which", [1, 2], ids=["model", "weights"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "sparse", "empty"])
def test_what_is_no_plain_file_is_refused_and_nothing_waits_for_it(package, which, kind):
    path = package[which]
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40 if kind == "sparse" else 0)
    refused(package[0])


def test_a_package_cut_anywhere_is_refused(package):
    folder, proto, weights = package
    whole, values = proto.read_bytes(), weights.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        proto.write_bytes(whole[:length])
        refused(folder)
    proto.write_bytes(whole)
    for length in (0, 1, 63, 64, 127, 128, len(values) - 1):
        weights.write_bytes(values[:length])
        refused(folder)


def test_bytes_changed_at_random_are_refused_or_read_and_nothing_else(package):
    folder, proto, _ = package
    whole, rng = proto.read_bytes(), np.random.default_rng(5)
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            spoilt[place] = rng.integers(0, 256)
        proto.write_bytes(bytes(spoilt))
        with contextlib.suppress(anex.Error):
            anex.explain(folder)


def test_blocks_nested_beyond_measure_in_a_protobuf_are_refused(tmp_path):
    model = ct.proto.Model_pb2.Model(specificationVersion=9)
    function = model.mlProgram.functions["main"]
    function.opset = "CoreML8"
    block = function.block_specializations["CoreML8"]
    for _ in range(90):
        op = block.operations.add(type="cond")
        block = op.blocks.add()
    path = tmp_path / "m.mlmodel"
    path.write_bytes(model.SerializeToString())
    refused(path)


def test_a_zip_is_no_model_whatever_it_would_unpack_to(tmp_path):
    path = tmp_path / "m.mlpackage"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil", bytes(1 << 26))
    refused(path)
    assert not (tmp_path.parent.parent / "evil").exists()


# ---- commands -----------------------------------------------------------------------------------

BROKEN = {
    "empty.mil": b"",
    "cut.mil": b"program(1.3) {",
    "bytes.mlmodel": bytes(range(256)),
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "nothing.mlpackage": None,
}


@pytest.mark.parametrize("command", ["explain", "cost", "advise"])
@pytest.mark.parametrize("name", [*BROKEN, "not there"])
def test_every_command_that_takes_a_model_tells_what_is_wrong_with_it_in_one_line(tmp_path, command, name):
    path = tmp_path / name
    if name in BROKEN:
        path.mkdir() if BROKEN[name] is None else path.write_bytes(BROKEN[name])
    done = CliRunner().invoke(main, [command, str(path)])
    assert done.exit_code == 1, done.output
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1, done.output
