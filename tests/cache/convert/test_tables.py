"""Tables in files of other programs: what is read, block by block, and what is refused before it can do harm."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bas.cache.convert.tables import open_table
from bas.errors import InputError


def values(num_rows: int = 40, channels: int = 5, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(0).integers(0, 200, (num_rows, channels)).astype(dtype)


def written(path: Path, array: Any) -> Path:
    """The array in a file of the suffix's kind."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, feats=array)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("group/feats", data=array, chunks=(4, 3), compression="gzip", shuffle=True)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".hdf5"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.uint8, ">f4"])
def test_a_table_is_read_in_blocks(tmp_path: Path, suffix: str, dtype: Any) -> None:
    array = values(dtype=dtype)
    table = open_table(written(tmp_path / f"a{suffix}", array))
    assert table.shape == (40, 5)
    np.testing.assert_array_equal(table.read(0, 40), array)
    np.testing.assert_array_equal(table.read(33, 37), array[33:37])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_channels_first_and_fortran_order(tmp_path: Path, suffix: str) -> None:
    array = values()
    turned = open_table(written(tmp_path / f"a{suffix}", np.ascontiguousarray(array.T)), transpose=True)
    fortran = open_table(written(tmp_path / f"b{suffix}", np.asfortranarray(array)))
    for table in (turned, fortran):
        assert table.shape == (40, 5)
        np.testing.assert_array_equal(table.read(3, 31), array[3:31])


def test_a_compressed_npz_is_unpacked_once(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((300, 4))
    np.savez_compressed(tmp_path / "a.npz", feats=array, names=np.arange(3))
    table = open_table(tmp_path / "a.npz")
    np.testing.assert_array_equal(table.read(0, 256), array[:256])


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_one_of_several_tables_is_named(tmp_path: Path, suffix: str) -> None:
    path, first, second = tmp_path / f"a{suffix}", values(), values(20)
    if suffix == ".npz":
        np.savez(path, first=first, second=second)
    else:
        with h5py.File(path, "w") as file:
            file["first"], file["second"] = first, second
    np.testing.assert_array_equal(open_table(path, dataset="second").read(0, 20), second)
    with pytest.raises(InputError, match="no single two-dim") as caught:
        open_table(path)
    assert (caught.value.got, caught.value.cure) == ("first, second", "--dataset NAME says which")
    with pytest.raises(InputError, match="'third'"):
        open_table(path, dataset="third")


class Hostile:
    """Runs code where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_are_refused_by_name_and_never_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    array = np.array([[Hostile(tmp_path / "ran")]], object)
    np.save(path, array, allow_pickle=True) if suffix == ".npy" else np.savez(path, feats=array)
    with pytest.raises(InputError, match=r"a\.np.*: (damaged|not features)"):
        open_table(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4), "not a table of features"),
        (np.zeros((2, 3, 4)), "not a table of features"),
        (np.zeros((0, 4)), "not a table of features"),
        (np.zeros((4, 0)), "not a table of features"),
        (np.zeros((4, 2), np.int32), "not features"),
        (np.zeros((4, 2), complex), "not features"),
        (np.array([["a"]]), "not features"),
        (np.zeros((2, 2), [("a", "f4")]), "not features"),
        (np.zeros((4, 70_000), np.uint8), "too large for one match"),
    ],
)
def test_arrays_that_are_no_features(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        open_table(tmp_path / "a.npy")


def header(shape: str, descr: str = "'<f4'", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04pickle",
        header("(4, 2)", version=b"\x09\x00"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1),
        header("(4, 2")[:-5],
        header("__import__('os')"),
        header("(-4, 2)") + bytes(32),
        header("(4, 2)") + bytes(31),
        header("(1000000, 50000)"),
        header(f"({2**62}, {2**62})"),
        header("(" * 300 + ")" * 300),
    ],
)
def test_headers_that_lie(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged|not a table|too large"):
        open_table(tmp_path / "a.npy")


def test_a_file_that_is_missing_or_unknown(tmp_path: Path) -> None:
    for suffix in (".npy", ".npz", ".h5", ".pkl"):
        with pytest.raises(InputError, match="no known table"):
            open_table(tmp_path / f"a{suffix}")


def bomb(path: Path, shape: str = "(750000, 10)") -> None:
    """A zip member of 30 MB of zeros in 30 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("feats.npy", "w") as member:
        member.write(header(shape))
        for _ in range(30):
            member.write(bytes(1_000_000))


def understated(path: Path) -> None:
    """The directory says that the array is smaller than it is."""
    np.savez_compressed(path, feats=np.random.default_rng(0).random((50, 8)))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 400)
    path.write_bytes(bytes(data))


def flipped(path: Path) -> None:
    """One stored byte of a value is another."""
    np.savez(path, feats=np.ones((50, 8)))
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(bytes(data))


def encrypted(path: Path) -> None:
    np.savez(path, feats=np.ones((50, 8)))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


def not_arrays(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../feats.npy", "text")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (bomb, "claims more than it can hold"),
        (understated, "cannot be unpacked|damaged"),
        (flipped, "damaged"),
        (encrypted, "damaged"),
        (not_arrays, "damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "damaged"),
    ],
)
def test_zip_files_that_lie(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tmp_path / "a.npz")
    with pytest.raises(InputError, match=message):
        open_table(tmp_path / "a.npz").read(0, 50)


def external_link(file: Any, secret: Path) -> None:
    file["feats"] = h5py.ExternalLink(str(secret), "feats")


def soft_link(file: Any, _: Path) -> None:
    file["feats"] = h5py.SoftLink("/elsewhere")


def virtual(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout((40, 5), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "feats", (40, 5))
    file.create_virtual_dataset("feats", layout)


def external_file(file: Any, secret: Path) -> None:
    file.create_dataset("feats", (40, 5), "f4", external=[(str(secret), 0, 800)])


def shape_lie(file: Any, _: Path) -> None:
    file.create_dataset("feats", (1_000_000, 2000), "f4", chunks=(1000, 2000))


def huge_chunk(file: Any, _: Path) -> None:
    file.create_dataset("feats", (200_000, 400), "f4", chunks=(200_000, 400), compression="gzip")


def variable_length(file: Any, _: Path) -> None:
    file.create_dataset("feats", (4, 2), h5py.vlen_dtype(np.float32))


def unknown_filter(file: Any, _: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4, 2))
    properties.set_filter(307, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4, 2))
    h5py.h5d.create(file.id, b"feats", h5py.h5t.IEEE_F32LE, space, properties)


def loop(file: Any, _: Path) -> None:
    file["feats"] = values()
    file["again"] = file["/"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_link, "a link"),
        (soft_link, "a link"),
        (virtual, "lie in other files"),
        (external_file, "lie in other files"),
        (shape_lie, "claims more than it can hold"),
        (huge_chunk, "chunks are too large"),
        (variable_length, "not features"),
        (unknown_filter, "filter is not allowed"),
        (loop, "too many groups"),
    ],
)
def test_hdf5_files_that_lie(tmp_path: Path, make: Callable[[Any, Path], None], message: str) -> None:
    written(tmp_path / "secret.h5", values())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path / "secret.h5")
    with pytest.raises(InputError, match=message):
        open_table(tmp_path / "a.h5").read(0, 4)


def test_damaged_hdf5_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("feats", data=values(4000), chunks=(1000, 5), compression="gzip", fletcher32=True)
    data = path.read_bytes()
    for cut in (0, 100, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="damaged"):
            open_table(path)
    path.write_bytes(data[:-3000] + bytes(3000))
    with pytest.raises(InputError, match=r"damaged|claims"):
        open_table(path).read(0, 4000)
