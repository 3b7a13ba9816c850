"""Checkpoints made to harm: nothing of them runs, nothing is allocated on their word, each is one clear line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import random_tensors, torch_state

from ascseg_cli.errors import WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing
from ascseg_cli.weights.importing import import_weights

STATE = torch_state(random_tensors())


class Attack:
    """Unpickled anywhere, it makes a folder named `fell`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder / "fell"),))


def refused(source: Path, words: str) -> WeightsError:
    output = source.with_name("output.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        import_weights(source, output)
    assert not output.exists()
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["root", "beside", "key", "optimiser", "inside"])
def test_an_attack_runs_nothing_wherever_it_hides(place: str, legacy: bool, tmp_path: Path) -> None:
    attack = Attack(tmp_path)
    content: Any = {
        "root": attack,
        "beside": {"state_dict": STATE, "extra": attack},
        "key": {"state_dict": STATE, attack: 1},
        "optimiser": {"state_dict": STATE, "optimizer": {"state": {0: [attack]}}},
        "inside": {"state_dict": {**STATE, "encoder.eb1.ipc.0.weight": attack}},
    }[place]
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    error = refused(tmp_path / "best.pth", r"names \w+\.mkdir in its pickle, which only running code could build")
    assert 'torch.save(model.state_dict(), "best_state.pth")' in error.hint
    assert not (tmp_path / "fell").exists()
    pickle.loads(pickle.dumps(attack))  # the attack is real: unpickled, it strikes
    assert (tmp_path / "fell").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_bytes(pickle.dumps(Attack(tmp_path), protocol=protocol))
    refused(tmp_path / "best.pth", r"\.mkdir" if protocol >= 2 else "neither a torch checkpoint nor a safetensors")
    assert not (tmp_path / "fell").exists()


OPCODES = {
    "global": b"cos\nmkdir\n(X\x04\x00\x00\x00felltR.",
    "instance": b"(X\x04\x00\x00\x00fellios\nmkdir\n.",
    "object": b"(cos\nmkdir\nX\x04\x00\x00\x00fello.",
    "extension": b"\x82\x01.",
    "stack global": b"X\x02\x00\x00\x00osX\x05\x00\x00\x00mkdir\x93X\x04\x00\x00\x00fell\x85R.",
    "newobj": b"cos\nmkdir\nX\x04\x00\x00\x00fell\x85\x81.",
    "build": b"cos\nmkdir\n}X\x01\x00\x00\x00aK\x01sb.",
    "computed name": b"K\x01K\x02\x93.",
    "getattr": b"cbuiltins\ngetattr\n(cos\nX\x05\x00\x00\x00mkdirtR.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_no_operation_of_pickle_calls_anything(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("best.pth").write_bytes(b"\x80\x02" + OPCODES[name])
    refused(Path("best.pth"), "best.pth")
    assert os.listdir() == ["best.pth"]


class Net(torch.nn.Module):
    """Somebody's own class, which their file names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 8, 7)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"epoch": 1, "model": m}], ids=["bare", "wrapped"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_model_is_refused_with_the_line_that_saves_its_state(
    wrap: Callable[[Any], Any], legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, Net.__module__, __import__("types").SimpleNamespace(Net=Net))
    torch.save(wrap(Net()), tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    error = refused(tmp_path / "best.pth", "holds a whole pickled model")
    assert 'torch.save(model.state_dict(), "best_state.pth")' in error.hint


def rezipped(source: Path, **changes: Any) -> None:
    """Write a checkpoint's archive anew with some of its entries changed, added or compressed."""
    with zipfile.ZipFile(source) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    for name, data in changes.get("entries", {}).items():
        entries[f"best/{name}"] = data
    with zipfile.ZipFile(source, "w", changes.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in entries.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_archives_that_torch_never_writes_are_refused(saved: Path) -> None:
    original = saved.read_bytes()
    for changes, words in (
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed or encrypted, which torch.save never writes"),
        ({"entries": {"data/0": b"short"}}, "storage 0 has 5 bytes, not"),
        ({"entries": {"data/0": None}}, "its zip archive lacks data/0"),
        ({"entries": {"data.pkl": None}}, "not one of torch.save's"),
        ({"entries": {"constants.pkl": b""}}, "TorchScript archive"),
        ({"entries": {"data.pkl": b"\x80\x02}."}}, "holds no ASC-Seg network"),
        ({"entries": {"data.pkl": b""}}, "its pickle is malformed"),
        ({"entries": {"data.pkl": b"0" * (16 * 2**20 + 1)}}, "its pickle is longer than 16,777,216 bytes"),
        ({"entries": {"data.pkl": b"\x80\x02" + b"N0" * 1_000_000 + b"N."}}, "more than 2,000,000 operations"),
    ):
        saved.write_bytes(original)
        rezipped(saved, **changes)
        refused(saved, words)


def test_a_flipped_bit_is_found_by_the_archive_s_own_sum(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        data[archive.getinfo("best/data/0").header_offset + 600] ^= 1
    saved.write_bytes(data)
    refused(saved, "its zip archive is damaged")


def test_a_bomb_of_entries_that_share_their_bytes_is_refused(saved: Path) -> None:
    """Every entry of the directory points at the first one's bytes, so the sum exceeds the file."""
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        most = max(archive.infolist(), key=lambda entry: entry.file_size)
    at = data.rfind(b"PK\x05\x06")
    directory = struct.unpack_from("<I", data, at + 16)[0]
    while data[directory : directory + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<HHH", data, directory + 28)
        struct.pack_into("<II", data, directory + 20, most.file_size, most.file_size)
        directory += 46 + sum(lengths)
    saved.write_bytes(data)
    refused(saved, r"claims [\d,]+ bytes in a file of")


def test_paths_in_an_archive_lead_nowhere(saved: Path, tmp_path: Path) -> None:
    rezipped(saved, entries={"../../../escaped": b"x", "/absolute": b"y"})
    import_weights(saved, tmp_path / "w.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pth", "w.safetensors"]


def pickled_tensor(storage: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    """A pickle of {"encoder.eb1.ipc.0.weight": one tensor}, its parts given as pickle code."""
    name = b"encoder.eb1.ipc.0.weight"
    key = b"X" + struct.pack("<I", len(name)) + name
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    empty = b"ccollections\nOrderedDict\n)R"
    return (
        b"\x80\x02}" + key + rebuild + b"(" + storage + b"Q" + offset + shape + strides + b"\x89" + empty + b"tRs."
    )


def storage(count: bytes, kind: bytes = b"FloatStorage") -> bytes:
    return b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"t"


HUGE = b"\x8a\x07\x00\x00\x00\x00\x00\x00\x01"  # 2**48
LIES = {
    "a huge storage": (storage(HUGE), b"K\x00", b"K\x01\x85", b"K\x01\x85", "contradicts itself"),
    "a huge shape": (storage(b"K\x04"), b"K\x00", HUGE + b"\x85", b"K\x01\x85", "impossible shape"),
    "an expanded view": (
        storage(b"K\x04"),
        b"K\x00",
        b"J\x00\x00\x00\x7f\x85",
        b"K\x00\x85",
        "beyond its storage",
    ),
    "an offset outside": (storage(b"K\x04"), b"K\x04", b"K\x01\x85", b"K\x01\x85", "beyond its storage"),
    "a negative offset": (storage(b"K\x04"), b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85", "impossible shape"),
    "a negative stride": (storage(b"K\x04"), b"K\x00", b"K\x02\x85", b"J\xff\xff\xff\xff\x85", "impossible shape"),
    "unequal lengths": (storage(b"K\x04"), b"K\x00", b"K\x01K\x01\x86", b"K\x01\x85", "impossible shape"),
    "too many axes": (
        storage(b"K\x04"),
        b"K\x00",
        b"(" + b"K\x01" * 9 + b"t",
        b"(" + b"K\x01" * 9 + b"t",
        "impossible",
    ),
    "a shape of text": (storage(b"K\x04"), b"K\x00", b"X\x01\x00\x00\x00a\x85", b"K\x01\x85", "impossible shape"),
    "no storage": (b"K\x01", b"K\x00", b"K\x01\x85", b"K\x01\x85", "in a way that torch never writes"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_about_its_size_is_refused_before_it_is_read(lie: str, saved: Path) -> None:
    *parts, words = LIES[lie]
    rezipped(saved, entries={"data.pkl": pickled_tensor(*parts)})
    refused(saved, words)


def test_many_names_for_one_storage_cost_no_memory(saved: Path) -> None:
    """A tuple doubled sixty times would be 2**60 items to whoever walks it."""
    doubled = b"\x80\x02}X\x01\x00\x00\x00aN" + b"".join(b"q%cK\x00h%c\x86" % (i, i) for i in range(60)) + b"s."
    rezipped(saved, entries={"data.pkl": doubled})
    refused(saved, "holds no ASC-Seg network")
    nested = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."  # a dict that holds itself
    rezipped(saved, entries={"data.pkl": nested})
    refused(saved, "holds no ASC-Seg network")


def test_truncated_and_foreign_files_are_one_line(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    for length in (0, 1, 2, 4, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "neither a torch checkpoint|zip archive is")
    torch.save(STATE, saved, _use_new_zipfile_serialization=False)
    data = saved.read_bytes()
    for length in (3, 20, 100, 5000, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "can't be imported: its (pickle is malformed|storages are truncated|header is damaged)")
    refused(tmp_path / "none.pth", "no such file")
    refused(tmp_path, "is not a file")


def test_an_oversized_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "best.pth").open("wb") as file:
        file.truncate(513 * 2**20)  # sparse: no disk is used
    refused(tmp_path / "best.pth", r"has 537,919,488 bytes; a checkpoint has at most 536,870,912")


def test_control_characters_of_a_file_do_not_reach_a_message(saved: Path) -> None:
    code = b"\x80\x04\x8c\x05\x1b[31m\x8c\x02\nx\x93)R."
    rezipped(saved, entries={"data.pkl": code})
    error = refused(saved, r"names \\x1b\[31m\.\\nx in its pickle")
    assert "\x1b" not in error.message


def test_a_header_of_a_hundred_thousand_axes_costs_no_time(tmp_path: Path) -> None:
    """Their product would have millions of digits; the test's own time limit is the judge."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**32 - 1] * 900_000, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(path, "neither a torch checkpoint nor a safetensors file, or is damaged")
    metadata = Metadata(
        name="w",
        variant="tiny",
        channels=(8, 16, 24, 32),
        preprocessing=Preprocessing(rule="stretch_bilinear", size=(64, 64)),
    )
    header = header[:-1] + b', "__metadata__": ' + json.dumps({"ascseg": metadata.to_json()}).encode() + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="a has a shape or place that is no count"):
        checkpoint.read(path)


def test_a_damaged_name_does_not_spill_the_file_into_the_message(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        struct.pack_into("<H", data, archive.getinfo("best/data.pkl").header_offset + 26, 60_000)
    saved.write_bytes(data)
    assert len(refused(saved, "its zip archive is damaged").message) < 300
