from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import struct
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.sources import archives
from saccade.data.sources.archives import unpack
from saccade.data.sources.sources import folder_of
from saccade.errors import ArchiveError, DataError

TREE = {
    "boots/1.jpg": b"one",
    "boots/deep/2.jpg": b"two" * 5000,
    "Schuhe für Zoë/靴.png": b"three",
    "empty.txt": b"",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name, content in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "no files").mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def in_cache(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def zip_member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix
    info.external_attr = (mode | 0o777) << 16
    return info


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def assert_refused(archive: Path, cache: Path, *words: str) -> None:
    """It is refused in words, and nothing of it remains, in the cache or beside it."""
    beside = set(archive.parent.iterdir())
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, cache)
    for word in (str(archive), *words):
        assert word in str(caught.value)
    assert in_cache(cache) == []
    assert set(archive.parent.iterdir()) - beside <= {cache}


def test_a_zip_file_is_unpacked_as_it_was(tree, cache, make_zip):
    assert content_of(unpack(make_zip(tree, tree.parent / "a.zip"), cache)) == TREE


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_tar_file_is_unpacked_as_it_was_whatever_its_name(tree, cache, make_tar, kind):
    folder = unpack(make_tar(tree, tree.parent / "a.data", f"w:{kind}"), cache)
    assert content_of(folder) == TREE
    assert (folder / "no files").is_dir()


def test_an_archive_is_unpacked_once(tree, cache, make_zip):
    archive = make_zip(tree, tree.parent / "a.zip")
    folder = unpack(archive, cache)
    (folder / "boots" / "1.jpg").unlink()
    assert unpack(archive, cache) == folder
    assert not (folder / "boots" / "1.jpg").exists()
    assert in_cache(cache) == [folder]


def test_a_changed_archive_is_unpacked_anew(tree, cache, make_zip):
    archive = make_zip(tree, tree.parent / "a.zip")
    old = unpack(archive, cache)
    (tree / "boots" / "1.jpg").write_bytes(b"ONE")
    make_zip(tree, archive)
    os.utime(archive, (time.time() + 5,) * 2)
    new = unpack(archive, cache)
    assert (old / "boots" / "1.jpg").read_bytes() == b"one"
    assert (new / "boots" / "1.jpg").read_bytes() == b"ONE"


def test_archives_of_the_same_name_do_not_mix(tree, cache, make_zip):
    (tree.parent / "other").mkdir()
    one = unpack(make_zip(tree / "boots", tree.parent / "a.zip"), cache)
    two = unpack(make_zip(tree, tree.parent / "other" / "a.zip"), cache)
    assert one != two


def test_simultaneous_calls_get_the_same_complete_folder(tree, cache, make_tar):
    archive = make_tar(tree, tree.parent / "a.tgz", "w:gz")
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(unpack, [archive] * 8, [cache] * 8))
    assert in_cache(cache) == [*folders]
    assert content_of(folders.pop()) == TREE


def test_remains_of_a_killed_process_are_removed(tree, cache, make_zip):
    archive = make_zip(tree, tree.parent / "a.zip")
    folder = unpack(archive, cache)
    shutil.rmtree(folder)
    folder.with_name(f"{folder.name}.part").mkdir()
    (folder.with_name(f"{folder.name}.part") / "half").touch()
    assert content_of(unpack(archive, cache)) == TREE
    assert in_cache(cache) == [folder]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_unpacked_files_are_readable_whatever_their_mode(tmp_path, cache):
    folder = unpack(write_zip(tmp_path / "a.zip", (zip_member("a.jpg", stat.S_IFREG), b"x")), cache)
    assert not stat.S_IMODE((folder / "a.jpg").stat().st_mode) & 0o111


def test_litter_of_macos_is_left_out(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", ("cat/1.jpg", b"x"), ("__MACOSX/cat/._1.jpg", b"y"))
    assert content_of(unpack(archive, cache)) == {"cat/1.jpg": b"x"}


def test_backslashes_of_windows_are_folders(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", ("cat\\1.jpg", b"x"))
    assert content_of(unpack(archive, cache)) == {"cat/1.jpg": b"x"}


def test_utf8_names_that_are_not_marked_as_such(tmp_path, cache):
    archive = tmp_path / "a.zip"
    write_zip(archive, ("Zoë.jpg", b"x"))
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = b"\0\0"  # the flags, of which one says that the name is UTF-8
    archive.write_bytes(data)
    assert content_of(unpack(archive, cache)) == {"Zoë.jpg": b"x"}


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "C:/evil.txt", "..\\evil.txt"])
def test_a_zip_member_that_would_land_outside_is_refused(tmp_path, cache, name):
    archive = write_zip(tmp_path / "a.zip", ("good.txt", b"x"), (name, b"evil"))
    assert_refused(archive, cache, "evil.txt", "outside")


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", ".."])
def test_a_tar_member_that_would_land_outside_is_refused(tmp_path, cache, name):
    archive = write_tar(tmp_path / "a.tar", (tar_member("good"), b""), (tar_member(name, size=1), b"x"))
    assert_refused(archive, cache, repr(name), "outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "a/../../secret"])
def test_a_tar_link_that_leads_outside_is_refused(tmp_path, cache, kind, target):
    (tmp_path / "secret").write_text("s")
    archive = write_tar(tmp_path / "a.tar", (tar_member("link", kind, target), b""))
    assert_refused(archive, cache, "'link'")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "1.jpg"])
def test_a_link_in_a_zip_file_is_refused(tmp_path, cache, target):
    archive = write_zip(tmp_path / "a.zip", ("a/1.jpg", b"x"), (zip_member("a/link", stat.S_IFLNK), target))
    assert_refused(archive, cache, "'a/link'", "link")


def test_no_file_is_written_through_a_link_that_leads_outside(tmp_path, cache):
    outside = tmp_path / "outside"
    outside.mkdir()
    for target in (str(outside), "../outside"):
        archive = write_tar(
            tmp_path / "a.tar",
            (tar_member("link", tarfile.SYMTYPE, target), b""),
            (tar_member("link/evil.txt", size=4), b"evil"),
        )
        assert_refused(archive, cache, "link")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_in_a_tar_file_is_refused(tmp_path, cache, kind):
    assert_refused(write_tar(tmp_path / "a.tar", (tar_member("dev", kind), b"")), cache, "'dev'", "device")


def test_a_device_in_a_zip_file_is_refused(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", (zip_member("dev", stat.S_IFCHR), b""))
    assert_refused(archive, cache, "'dev'", "device")


def test_links_inside_lead_to_their_files(tmp_path, cache):
    archive = write_tar(
        tmp_path / "a.tar",
        (tar_member("b/early.jpg", tarfile.SYMTYPE, "../a/1.jpg"), b""),
        (tar_member("a/1.jpg", size=3), b"one"),
        (tar_member("b/2.jpg", tarfile.LNKTYPE, "a/1.jpg"), b""),
        (tar_member("c/3.jpg", tarfile.SYMTYPE, "../b/2.jpg"), b""),
    )
    folder = unpack(archive, cache)
    assert content_of(folder) == dict.fromkeys(["a/1.jpg", "b/early.jpg", "b/2.jpg", "c/3.jpg"], b"one")


def test_a_hard_link_to_nothing_is_refused(tmp_path, cache):
    assert_refused(write_tar(tmp_path / "a.tar", (tar_member("a", tarfile.LNKTYPE, "gone"), b"")), cache, "gone")


def test_a_member_below_a_file_is_refused(tmp_path, cache):
    assert_refused(write_zip(tmp_path / "a.zip", ("a", b"x"), ("a/b", b"y")), cache, "'a'")
    assert_refused(write_zip(tmp_path / "a.zip", ("a/b", b"y"), ("a", b"x")), cache, "'a'")


def test_more_than_the_disk_can_hold_is_refused(tmp_path, cache):
    archive = tmp_path / "bomb.tar"
    with archive.open("wb") as file:
        file.write(tar_member("a.bin", size=1 << 60).tobuf(format=tarfile.GNU_FORMAT))
        file.write(bytes(10_240))
    assert_refused(archive, cache, "free", "1.2 EB", "SACCADE_CACHE")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_content_much_larger_than_the_archive_is_refused_unless_it_is_allowed(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(archives, "_MAX_BYTES", 1_000_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(bytes(4_000_000))
    archive = Path(shutil.make_archive(str(tmp_path / "a"), {"zip": "zip", "tar.gz": "gztar"}[suffix], tmp_path / "in"))
    assert_refused(archive, cache, "4.0 MB or more", "is 1.0 MB", "SACCADE_MAX_UNPACKED_GB")
    monkeypatch.setenv("SACCADE_MAX_UNPACKED_GB", "0.005")
    assert content_of(unpack(archive, cache)) == {"a.bin": bytes(4_000_000)}


def test_hard_links_count_as_copies(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_BYTES", 1_000_000)
    links = [(tar_member(f"{number}.bin", tarfile.LNKTYPE, "a.bin"), b"") for number in range(200)]
    archive = write_tar(tmp_path / "a.tar", (tar_member("./a.bin", size=20_000), bytes(20_000)), *links)
    monkeypatch.setattr(archives, "_MAX_RATIO", 1)
    assert_refused(archive, cache, "is 1.0 MB", "SACCADE_MAX_UNPACKED_GB")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_very_many_members_are_refused(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 50)
    monkeypatch.setattr(archives, "_BYTES_OF_MEMBER", 10_000)
    if suffix == "zip":
        archive = write_zip(tmp_path / "a.zip", *((f"{number}.jpg", b"") for number in range(51)))
    else:
        archive = write_tar(tmp_path / "a.tar", *((tar_member(f"{number}.jpg"), b"") for number in range(51)))
    assert_refused(
        archive, cache, "51 or more members, and the limit for an archive of this size is 50", "SACCADE_MAX_UNPACKED_GB"
    )


def test_members_are_counted_before_one_is_written(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 50)
    monkeypatch.setattr(archives, "_BYTES_OF_MEMBER", 10_000)
    members = [(tar_member(f"{number}.jpg"), b"") for number in range(51)]
    monkeypatch.setattr(tarfile.TarFile, "extract", lambda *_, **__: pytest.fail("a member was written"))
    assert_refused(write_tar(tmp_path / "a.tar", *members), cache, "51 or more members")
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("members were read"))
    entries = b"".join(b"PK\1\2" + bytes(42) for _ in range(51))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 51, 51, len(entries), 0, 0)
    (tmp_path / "a.zip").write_bytes(entries + end)
    assert_refused(tmp_path / "a.zip", cache, "51 or more members")


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(kind: bytes, key: str, size: int) -> bytes:
    record = f" {key}={'x' * size}\n"
    record = f"{len(record) + len(str(len(record) + 4))}{record}"
    return tar_member("pax", kind, size=len(record)).tobuf(tarfile.USTAR_FORMAT) + padded(record.encode())


def sparse_header_without_end() -> bytes:
    header = bytearray(tar_member("a", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # more blocks follow
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + (b"00000000001\0" * 42 + b"\1" + bytes(7)) * 4000


HEADERS = {
    "long names": (tar_member("a", tarfile.GNUTYPE_LONGNAME, size=9).tobuf() + padded(b"x" * 9)) * 5000,
    "large names": (tar_member("a", tarfile.GNUTYPE_LONGNAME, size=90_000).tobuf() + padded(b"x" * 90_000)) * 5,
    "pax": pax(b"x", "a", 90_000) * 5,
    "global pax": b"".join(pax(b"g", str(num), 90_000) + tar_member(str(num)).tobuf() for num in range(5)),
    "sparse": sparse_header_without_end(),
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_without_end_are_refused(tmp_path, cache, headers):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(headers, 1))
    assert_refused(archive, cache, "headers of more than 262.1 kB")


@pytest.mark.parametrize("size", [3, 3000])
def test_a_wrong_size_in_a_zip_file_is_refused(tmp_path, cache, size):
    archive = write_zip(tmp_path / "a.zip", ("a.jpg", bytes(1000)))
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, size)
    archive.write_bytes(data)
    assert_refused(archive, cache, "broken archive", "a.jpg")


def test_names_that_differ_in_case_are_refused_where_they_are_one_file(tmp_path, cache, monkeypatch):
    members = [(tar_member(name, size=1), content) for name, content in (("A/1", b"x"), ("a/2", b"y"), ("a/2", b"z"))]
    archive = write_tar(tmp_path / "a.tar", *members)
    assert content_of(unpack(archive, cache)) == {"A/1": b"x", "a/2": b"z"}
    shutil.rmtree(cache)
    exists = Path.exists
    # As on a file system that ignores case.
    monkeypatch.setattr(Path, "exists", lambda path: exists(path) or exists(path.with_name(path.name.swapcase())))
    assert_refused(archive, cache, "'A' and 'a'")


def test_a_large_header_is_refused_before_it_is_read(tmp_path, cache):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz", pax_headers={"comment": "x" * 2_000_000}) as file:
        file.addfile(tar_member("a.jpg"))
    assert_refused(archive, cache, "headers of more than 262.1 kB")


@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 300 + ".jpg", "name of its member"), ("a/" * 1500 + "1.jpg", "deep"), ("", "without a name")],
    ids=["long", "deep", "empty"],
)
def test_names_that_a_file_cannot_have_are_refused(tmp_path, cache, name, words):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    assert_refused(write_zip(tmp_path / "a.zip", (info, b"x")), cache, words)
    if name:
        assert_refused(write_tar(tmp_path / "a.tar", (tar_member(name, size=1), b"x")), cache, words)


def test_a_name_that_is_not_unicode_is_refused(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", ("Zoë.jpg", b"x"))
    archive.write_bytes(archive.read_bytes().replace("Zoë".encode(), b"Zo\xff\xfe"))
    assert_refused(archive, cache, "broken archive", "utf-8")


def test_a_link_to_a_folder_is_refused(tmp_path, cache):
    archive = write_tar(
        tmp_path / "a.tar", (tar_member("a/1.jpg", size=1), b"x"), (tar_member("b", tarfile.SYMTYPE, "a"), b"")
    )
    assert_refused(archive, cache, "'b' is a link to a folder")


def test_an_encrypted_zip_file_is_refused(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", ("a.jpg", b"x"))
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1  # the flag of an encrypted member
    archive.write_bytes(data)
    assert_refused(archive, cache, "encrypted")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><p>Please log in</p>", b"PK\x03\x04 and no more"])
def test_other_files_are_refused(tmp_path, cache, content):
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    assert_refused(archive, cache, "not a zip or tar file", repr(content[:24]))


def test_a_damaged_zip_file_is_refused(tmp_path, cache):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.bin", random.Random(0).randbytes(5000))
    data = bytearray(archive.read_bytes())
    data[1000:1010] = bytes(10)
    archive.write_bytes(data)
    assert_refused(archive, cache, "broken")


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_tar_file_that_was_cut_is_refused(tmp_path, cache, make_tar, kind, kept):
    for number in range(30):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.bin").write_bytes(random.Random(number).randbytes(1500))
    archive = make_tar(tmp_path / "in", tmp_path / "a.tar", f"w:{kind}")
    data = archive.read_bytes()[: 30 * 2048] if not kind else archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    assert_refused(archive, cache)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_file_with_another_checksum_is_refused(tree, cache, make_tar, kind):
    archive = make_tar(tree, tree.parent / f"a.tar.{kind}", f"w:{kind}")
    whole = archive.read_bytes()
    for damaged in (whole[:-4], whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]):
        archive.write_bytes(damaged)
        assert_refused(archive, cache, "broken")


@pytest.mark.parametrize("kind", ["", "gz"])
def test_content_after_the_end_of_a_tar_file_is_not_passed_over(tree, cache, make_tar, kind):
    archive = make_tar(tree, tree.parent / "a.tar", f"w:{kind}")
    whole = archive.read_bytes()
    archive.write_bytes(whole + bytes(2**20))
    assert content_of(unpack(archive, cache / "padded")) == TREE
    shutil.rmtree(cache)
    archive.write_bytes(whole + whole)
    assert_refused(archive, cache, "a second archive")


@pytest.mark.parametrize("start", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd", b"LZIP\x01"])
def test_other_kinds_of_archives_are_named(tmp_path, cache, start):
    (tmp_path / "a.zip").write_bytes(start + bytes(100))
    assert_refused(tmp_path / "a.zip", cache, "only zip and tar files can be unpacked", "unpack it yourself")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DataError, match="neither a folder nor a regular file"):
        folder_of(tmp_path / "a.zip")


def test_members_of_a_zip_file_that_share_their_content_count_as_often(tmp_path, cache, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", ("x", bytes(1000)))
    whole = archive.read_bytes()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entries = whole[start:end] * 500
    counts = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 500, 500, len(entries), start, 0)
    archive.write_bytes(whole[:start] + entries + counts)
    monkeypatch.setattr(archives, "_MAX_BYTES", 1)
    monkeypatch.setattr(archives, "_MAX_RATIO", 1)
    assert_refused(archive, cache, "SACCADE_MAX_UNPACKED_GB")


@pytest.mark.parametrize("name", ["CON", "a/nul.txt", "a/b.", "a:stream", "a\\b"])
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_names_that_windows_gives_to_devices_are_refused_there(tmp_path, cache, monkeypatch, name, suffix):
    monkeypatch.setattr(archives, "_IS_WINDOWS", True)
    archive = tmp_path / f"a.{suffix}"
    if suffix == "zip" and "\\" not in name:
        assert_refused(write_zip(archive, (name, b"x")), cache, "Windows does not accept")
    elif suffix == "tar":
        assert_refused(write_tar(archive, (tar_member(name, size=1), b"x")), cache, "Windows does not accept")


def test_a_sparse_member_counts_with_its_holes(tmp_path, cache):
    member = tar_member("a", size=0)
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a"}
    member.pax_headers["GNU.sparse.realsize"] = str(50 * 2**30)
    member.size = 512
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))
    assert_refused(tmp_path / "a.tar", cache, "53.7 GB or more", "SACCADE_MAX_UNPACKED_GB")


def test_a_tar_file_that_was_cut_between_two_members_is_refused(tmp_path, cache):
    archive = write_tar(tmp_path / "a.tar", *((tar_member(name, size=512), bytes(512)) for name in "abc"))
    archive.write_bytes(archive.read_bytes()[:2048])
    assert_refused(archive, cache, "too early")


def test_unpacking_a_large_archive_is_reported(tree, cache, make_zip, capsys, monkeypatch):
    archive = make_zip(tree, tree.parent / "a.zip")
    unpack(archive, cache / "1")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(archives, "_LONG_ARCHIVE_BYTES", 1)
    unpack(archive, cache / "2")
    assert capsys.readouterr().err.startswith("Unpacking a.zip (")
    unpack(archive, cache / "3", quiet=True)
    assert capsys.readouterr().err == ""


@given(
    names=st.lists(
        st.lists(st.sampled_from(["a", "b", ".", "..", "/", "\\", "C:", "é"]), min_size=1, max_size=8).map("".join),
        max_size=6,
    ),
    links=st.lists(st.text(st.sampled_from("ab./"), min_size=1, max_size=6), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_no_archive_writes_outside_its_folder(tmp_path_factory, names, links):
    base = tmp_path_factory.mktemp("fuzz", numbered=True)
    inside = base / "work" / "cache"
    inside.parent.mkdir()
    members = [(tar_member(name, size=1), b"x") for name in names]
    members += [(tar_member(f"a{at}", tarfile.SYMTYPE, target), b"") for at, target in enumerate(links)]
    write_tar(base / "work" / "a.tar", *members)
    try:
        folder = unpack(base / "work" / "a.tar", inside)
    except ArchiveError:
        assert in_cache(inside) == []
    else:
        assert in_cache(inside) == [folder]
        assert all(path.resolve().is_relative_to(folder) for path in folder.rglob("*"))
    assert {path.name for path in base.iterdir()} == {"work"}
    assert {path.name for path in inside.parent.iterdir()} == {"a.tar", "cache"}
