"""Sources at URLs, from a real server: whole, cut off, in parts, with lies."""

from __future__ import annotations

import io
import json
import re
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import DataError, download, filesystem, load, remote
from edgecloud_trainer.data import source as reading
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.locate import find_source
from edgecloud_trainer.data.observer import Observer
from edgecloud_trainer.data.remembering import remember
from tests.unit.data.server import Site, serving
from tests.unit.data.tool import data, prepared, snapshot, verified
from tests.unit.trainer.pictures import encoded, idx_tree, pack, pixels, tree, write


def bitmap(seed: int) -> bytes:
    """An image file that is as large whatever it shows."""
    return encoded(pixels(seed), "BMP")


MODIFIED, LATER = (f"Wed, 29 Nov 2023 12:00:0{second} GMT" for second in range(2))
BITMAP, OTHER_BITMAP = bitmap(0), bitmap(99)
FILES = tree({"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}) | {"train/cat/000.bmp": BITMAP}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def tar(tmp_path: Path) -> bytes:
    """Some megabytes: what has come and isn't read when a connection ends is lost."""
    return pack(tmp_path / "source.tar", FILES | {"README": bytes(6 << 20)}).read_bytes()


@pytest.fixture
def expected(tmp_path: Path) -> str:
    return str(prepared(write(tmp_path / "source", FILES), tmp_path / "expected.images")["sha256"])


def test_an_archive(tar: bytes, expected: str, tmp_path: Path) -> None:
    import hashlib

    with serving(Site({"/pets.tar": tar})) as site:
        manifest = prepared(f"{site.url}/pets.tar?signature=secret", tmp_path / "a.images")
        private = prepared(site.url.replace("//", "//user:secret@") + "/pets.tar", tmp_path / "b.images")
    assert manifest["sha256"] == private["sha256"] == expected
    assert manifest["name"] == "pets"
    source = manifest["source"]
    assert (source["kind"], source["sha256"], source["bytes"]) == ("tar", hashlib.sha256(tar).hexdigest(), len(tar))
    assert source["location"] == private["source"]["location"] == f"{site.url}/pets.tar"
    for name in ("a", "b"):
        for path in (tmp_path / f"{name}.images", tmp_path / f"{name}.manifest.json"):
            assert b"secret" not in path.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_broken_images_are_named_by_their_url(tmp_path: Path) -> None:
    with serving(Site({"/a.tar": pack(tmp_path / "a.tar", {**FILES, "train/cat/z.png": b""}).read_bytes()})) as site:
        done = data("prepare", f"{site.url}/a.tar?signature=secret", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"edgecloud: {site.url}/a.tar: train/cat/z.png isn't an image")


class _Round(BaseHTTPRequestHandler):
    """Sends whoever asks to the same place again."""

    def do_HEAD(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.path}1")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Ftp(socketserver.StreamRequestHandler):
    """Lets nobody in, and says what for."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n331 go on\r\n")
        self.wfile.write(b"530 no: %s %s\r\n" % (self.rfile.readline().strip(), self.rfile.readline().strip()))


@pytest.mark.parametrize(
    ("scheme", "handler", "words", "passing"),
    [
        ("http", _Round, "can't be reached, or breaks off", True),
        ("ftp", _Ftp, r"can't be read \(530 no: USER ... PASS ...\): check the URL, its user and its password", False),
        ("ftp", socketserver.BaseRequestHandler, "can't be reached, or breaks off", True),
    ],
)
def test_what_another_library_says_of_a_url_with_secrets(
    scheme: str, handler: type[socketserver.BaseRequestHandler], words: str, passing: bool
) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        place = f"127.0.0.1:{server.server_address[1]}/a.tar"
        try:
            with pytest.raises(DataError, match=f"^{scheme}://{place} {words}") as caught:
                find_source(f"{scheme}://bobby:hunter2@{place}?signature=secret", Observer())
        finally:
            server.shutdown()
    assert not {"bobby", "hunter2", "secret"}.intersection(re.findall("[a-z0-9]+", str(caught.value)))
    assert caught.value.passing is passing


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_cuts_the_connection(ranges: bool, tar: bytes, expected: str, tmp_path: Path) -> None:
    """With ranges nothing is sent twice; without, it begins again, and may come through."""
    with serving(Site({"/a.tar": tar}, ranges=ranges, cut_after=len(tar) // 3, cuts=2)) as site:
        done = data("prepare", f"{site.url}/a.tar", "--out", tmp_path / "a.images", "-o", "json")
        assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == expected
    assert "trying again after" in done.stderr
    starts = [int(part[len("bytes=") : -1] or 0) for method, _, part in site.seen if method == "GET"]
    if ranges:
        assert len(starts) == 3 and 0 == starts[0] < starts[1] < starts[2] < len(tar)
        assert "from its middle on" not in done.stderr
    else:
        assert "can't be read from its middle on: starting over" in done.stderr


def test_a_server_that_always_cuts_without_ranges(tar: bytes, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = snapshot(tmp_path)
    with serving(Site({"/a.tar": tar}, ranges=False, cut_after=3 << 20)) as site:
        done = data("prepare", f"{site.url}/a.tar", "--out", target / "a.images")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f" bytes of {len(tar):,})" in done.stderr
    assert snapshot(tmp_path) == before


def test_a_transfer_goes_on_in_the_next_run(tar: bytes, expected: str, tmp_path: Path) -> None:
    half = len(tar) // 2
    with serving(Site({"/a.tar": tar}, cut_after=half, cuts=1)) as site:
        url = f"{site.url}/a.tar"
        site.files = _Vanishing({"/a.tar": tar}, reads=2)  # for HEAD and the first GET; then it is gone
        done = data("prepare", url, "--out", tmp_path / "a.images")
        assert done.exit_code == 2
        assert "the same command goes on from there" in done.stderr
        assert not (tmp_path / "a.images").exists()
        site.files, site.status, site.seen = {"/a.tar": tar}, None, []
        done = data("prepare", url, "--out", tmp_path / "a.images", "-o", "json")
        assert done.exit_code == 0, done.stderr
    assert "bytes that an earlier run has brought" in done.stderr
    (part,) = [part for method, _, part in site.seen if method == "GET"]
    assert 0 < int(part[len("bytes=") : -1]) <= half
    assert json.loads(done.stdout)["sha256"] == expected


class _Vanishing(dict[str, bytes]):
    """Files that are there for some requests, and then can't be read."""

    def __init__(self, files: dict[str, bytes], reads: int) -> None:
        super().__init__(files)
        self._reads = reads

    def __contains__(self, key: object) -> bool:
        self._reads -= 1
        if self._reads < 0:
            raise ConnectionError("gone")
        return super().__contains__(key)


def test_what_has_changed_is_brought_anew(tar: bytes, tmp_path: Path) -> None:
    """A half of one version and a half of another make no archive."""
    other = pack(tmp_path / "other.tar", tree({"train/cat": 9, "train/cow": 3, "test/cat": 1})).read_bytes()
    with serving(Site({"/a.tar": tar}, cut_after=len(tar) // 2)) as site:
        site.files = _Vanishing({"/a.tar": tar}, reads=2)
        assert data("prepare", f"{site.url}/a.tar", "--out", tmp_path / "a.images").exit_code == 2
        assert (tmp_path / "a.images.partial").exists()
        site.files, site.etag, site.cut_after = {"/a.tar": other}, '"2"', None
        manifest = prepared(f"{site.url}/a.tar", tmp_path / "a.images")
    assert manifest["classes"] == ["cat", "cow"]
    assert manifest["sha256"] == prepared(tmp_path / "other.tar", tmp_path / "b.images")["sha256"]


class _Replaced(dict[str, bytes]):
    """Files that are others after some requests."""

    def __init__(self, site: Site, others: dict[str, bytes], requests: int) -> None:
        super().__init__(site.files)
        self._site, self._others, self._left = site, others, requests

    def __getitem__(self, key: str) -> bytes:
        self._left -= 1
        if self._left >= 0:
            return super().__getitem__(key)
        if self._site.etag:
            self._site.etag = '"2"'
        return self._others[key]


@pytest.mark.parametrize(("etag", "heeds"), [("", True), ('"1"', True), ('"1"', False)])
def test_what_changes_while_it_is_brought_is_not_put_together(
    etag: str, heeds: bool, tar: bytes, tmp_path: Path
) -> None:
    """Another archive of the same size; whether the server says so, or only when it is looked at, or not at all."""
    other = tar.replace(BITMAP, OTHER_BITMAP)
    expected = prepared(_file(tmp_path / "other.tar", other), tmp_path / "other.images")["sha256"]
    with serving(Site({"/a.tar": tar}, etag=etag, heeds_if_range=heeds, cut_after=len(tar) // 2, cuts=1)) as site:
        site.files = _Replaced(site, {"/a.tar": other}, requests=2)  # for HEAD and the first GET
        assert prepared(f"{site.url}/a.tar", tmp_path / "a.images")["sha256"] == expected


def _file(path: Path, contents: bytes) -> Path:
    path.write_bytes(contents)
    return path


def test_what_has_no_version_is_brought_anew(tar: bytes, tmp_path: Path) -> None:
    """By the next process too: it can't know whether it is the same file still."""
    other = tar.replace(BITMAP, OTHER_BITMAP)
    expected = prepared(_file(tmp_path / "other.tar", other), tmp_path / "other.images")["sha256"]
    with serving(Site({"/a.tar": tar}, etag="", cut_after=len(tar) // 2)) as site:
        site.files = _Vanishing({"/a.tar": tar}, reads=2)
        done = data("prepare", f"{site.url}/a.tar", "--out", tmp_path / "a.images")
        assert done.exit_code == 2 and "goes on from there" not in done.stderr
        site.files, site.cut_after = {"/a.tar": other}, None
        assert prepared(f"{site.url}/a.tar", tmp_path / "a.images")["sha256"] == expected


def test_a_time_of_change_is_enough_to_go_on_from_the_middle(tar: bytes, expected: str, tmp_path: Path) -> None:
    site = Site({"/a.tar": tar}, etag="", modified=MODIFIED, cut_after=len(tar) // 2, cuts=1)
    with serving(site):
        assert prepared(f"{site.url}/a.tar", tmp_path / "a.images")["sha256"] == expected
    assert [part != "" for method, _, part in site.seen if method == "GET"] == [False, True]


@pytest.mark.parametrize("modified", ["", MODIFIED])
def test_the_query_says_which_file_it_is(modified: str, tar: bytes, tmp_path: Path) -> None:
    """Two archives of one size, from a server that gives no ETag."""
    files = {"/get?file=a&key=secret": tar, "/get?file=b&key=secret": tar.replace(BITMAP, OTHER_BITMAP)}
    with serving(Site(files, etag="", modified=modified, queries=True)) as site:
        sets = [load(DataSpec(source=site.url + path), seed=0, cache=tmp_path / "cache") for path in files]
        load(DataSpec(source=f"{site.url}/get?file=a&key=secret"), seed=0, cache=tmp_path / "cache")
    assert sets[0].digest != sets[1].digest
    assert [method for method, _, _ in site.seen] == ["HEAD", "GET", "HEAD", "GET", "HEAD"]
    for path in (tmp_path / "cache").iterdir():
        assert "secret" not in path.name and b"secret" not in path.read_bytes()


def test_a_signature_in_the_query_does_not_matter_where_there_is_an_etag(tar: bytes, tmp_path: Path) -> None:
    with serving(Site({"/a.tar": tar})) as site:
        for signature in "ab":
            load(DataSpec(source=f"{site.url}/a.tar?signature={signature}"), seed=0, cache=tmp_path / "cache")
    assert [method for method, _, _ in site.seen] == ["HEAD", "GET", "HEAD"]


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        ({"length_of_head": 10}, "bytes, as its server says at first, and"),
        ({"length_of_head": 10**9}, "bytes, as its server says at first, and"),
        ({"length_of_get": 10**9, "length_of_head": 10**9}, "breaks off"),
        ({"length_of_get": 10**17, "length_of_head": 10**17}, "are free in"),
        ({"length_of_get": 1000, "length_of_head": 1000}, "/a.tar can't be read"),
        ({"status": 500}, "its server answers 500"),
        ({"status": 403}, "its server answers 403"),
        ({"status": 404}, "its server answers 404"),
    ],
)
def test_a_server_that_lies_or_refuses(lie: dict[str, int], expected: str, tar: bytes, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = snapshot(tmp_path)
    with serving(Site({"/a.tar": tar}, ranges=False, **lie)) as site:  # type: ignore[arg-type]
        done = data("prepare", f"{site.url}/a.tar", "--out", target / "a.images")
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert expected in done.stderr
    assert snapshot(tmp_path) == before


def test_a_folder(expected: str, tmp_path: Path) -> None:
    files = {f"/pets/{name}": contents for name, contents in FILES.items()} | {"/pets/README": b"", "/other/x.png": b""}
    with serving(Site(files)) as site:
        manifest = prepared(f"{site.url}/pets/", tmp_path / "a.images")
        code, verdict = verified(f"{site.url}/pets/")
    assert (manifest["sha256"], manifest["name"], manifest["source"]["kind"]) == (expected, "pets", "folder")
    assert (code, verdict["images"]) == (0, 17)
    assert not any(path.startswith("/other") for _, path, _ in site.seen)


@pytest.mark.parametrize("says", ["an ETag", "a time", "a size"])
def test_a_folder_whose_images_are_replaced_is_another_set(says: str, tmp_path: Path) -> None:
    old, new = bitmaps(0), bitmaps(10)
    if says == "a size":
        new = {path: contents + b" " for path, contents in new.items()}
    etags, times = {"an ETag": ('"1"', '"2"')}, {"a time": (MODIFIED, LATER)}
    with serving(Site(old)) as site:
        sets = []
        for turn, files in enumerate((old, new)):
            site.files = files
            site.etag, site.modified = etags.get(says, ("", ""))[turn], times.get(says, ("", ""))[turn]
            sets += [load(DataSpec(source=f"{site.url}/pets/"), seed=0, cache=tmp_path / "cache").digest for _ in "12"]
    assert sets[0] == sets[1] != sets[2] == sets[3]
    assert sum(method == "GET" and path.endswith("bmp") for method, path, _ in site.seen) == len(old) + len(new)


def bitmaps(seed: int) -> dict[str, bytes]:
    folders = ("train/a", "train/b", "test/a", "test/b")
    return {f"/pets/{folder}/a.bmp": bitmap(seed + number) for number, folder in enumerate(folders)}


def test_of_a_large_folder_the_listing_says_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MAX_ASKED", 1)
    digests = []
    with serving(Site({}, etag="")) as site:
        for seed, minute in ((0, 0), (0, 0), (9, 1)):
            site.files = bitmaps(seed)
            site.beside = {"a.bmp": f"2023-11-29 12:0{minute}  1.2K"}
            digests.append(load(DataSpec(source=f"{site.url}/pets/"), seed=0, cache=tmp_path / "cache").digest)
    assert digests[0] == digests[1] != digests[2]
    assert "HEAD" not in {method for method, _, _ in site.seen}


@pytest.mark.parametrize(("etag", "goes_on"), [('"1"', True), ("", False)])
def test_a_folder_is_only_gone_on_with_where_its_files_have_versions(etag: str, goes_on: bool, tmp_path: Path) -> None:
    """A process was killed when it had half of the images; without versions they may be others by now."""
    files = {f"/pets/{name}": contents for name, contents in FILES.items()}
    with serving(Site(files, etag=etag)) as site:
        for _ in range(2):
            source = find_source(f"{site.url}/pets/", Observer())
            scratch = tmp_path / "scratch"
            scratch.mkdir(exist_ok=True)
            assert source.files is not None
            reading = Reading(scratch=scratch)
            source.here(reading).read(reading)
    fetched = sum(method == "GET" and path.endswith((".png", ".bmp")) for method, path, _ in site.seen)
    assert fetched == len(FILES) * (1 if goes_on else 2)


def test_an_archive_without_a_version_is_not_mixed_with_what_was_decoded_of_it(tar: bytes, tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    reading = Reading(scratch=scratch)
    with serving(Site({}, etag="")) as site:
        taken = []
        for site.files in ({"/a.tar": tar}, {"/a.tar": tar.replace(BITMAP, OTHER_BITMAP)}):
            train = find_source(f"{site.url}/a.tar", Observer()).here(reading).read(reading).parts["train"]
            taken.append(train.take(np.arange(1)).copy())
    assert np.array_equal(taken[0][0], pixels(0)) and np.array_equal(taken[1][0], pixels(99))


def test_names_that_html_or_a_url_writes_otherwise(tmp_path: Path) -> None:
    classes = [
        "Alzheimer's",
        "R&B",
        'the "other"',
        "a<b",
        "100%",
        "#1",
        "q?",
        "x;y",
        "a+b",
        "ünï",
        "two words",
        "&amp;",
    ]
    files = tree({f"train/{name}": 1 for name in classes})
    with serving(Site({f"/set/{name}": contents for name, contents in files.items()})) as site:
        manifest = prepared(f"{site.url}/set/", tmp_path / "a.images")
    assert manifest["classes"] == sorted(classes)
    assert manifest["sha256"] == prepared(write(tmp_path / "set", files), tmp_path / "b.images")["sha256"]


@pytest.mark.parametrize("url", ["{site}/pets/", "memory://empty-class"])
def test_an_empty_class_folder_is_refused_as_on_a_disk(url: str, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe({f"/empty-class/{name}": contents for name, contents in FILES.items()})
    fsspec.filesystem("memory").makedirs("/empty-class/train/cow")
    files = {f"/pets/{name}": contents for name, contents in FILES.items()} | {"/pets/train/cow/.keep": b""}
    with serving(Site(files)) as site:
        done = data("prepare", url.format(site=site.url), "--out", tmp_path / "a.images")
    fsspec.filesystem("memory").rm("/empty-class", recursive=True)
    assert done.exit_code == 2
    assert "the class folder train/cow holds no images that can be read: put some there, or remove it" in done.stderr


@pytest.mark.parametrize("page", [b"<a " * 100_000, b"<script>" + b"<a href='x/'>" * 50_000, b"<!" * 200_000])
def test_a_page_that_never_ends_a_tag(page: bytes, tmp_path: Path) -> None:
    with serving(Site({}, listing=page)) as site:
        done = data("prepare", f"{site.url}/set/", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert "the listing of http://" in done.stderr and "/set/ is too large, or isn't one" in done.stderr


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    with serving(Site({f"/mnist/{name}": contents for name, contents in idx_tree(packed=True).items()})) as site:
        manifest = prepared(f"{site.url}/mnist/", tmp_path / "a.images")
    assert (manifest["source"]["kind"], manifest["shape"], manifest["name"]) == ("idx", [1, 6, 7], "mnist")
    assert manifest["sha256"] == prepared(write(tmp_path / "m", idx_tree()), tmp_path / "b.images")["sha256"]


def test_a_numpy_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, pixels=np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), labels=np.arange(2))
    with serving(Site({"/a.npz": buffer.getvalue()})) as site:
        assert prepared(f"{site.url}/a.npz", tmp_path / "a.images")["shape"] == [3, 4, 4]


@pytest.mark.parametrize(
    "link", ["../../secret/a.png", "/secret/a.png", "http://127.0.0.1:9/set/a.png", "%2e%2e/a.png", "..\\a.png"]
)
def test_a_listing_that_leads_elsewhere(link: str, tmp_path: Path) -> None:
    with serving(Site({"/set/cat/a.png": b""}, listing=f'<a href="{link}">a</a>'.encode())) as site:
        done = data("prepare", f"{site.url}/set/", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert "holds no images" in done.stderr or "isn't there" in done.stderr
    assert {path for _, path, _ in site.seen} == {"/set/"} | ({"/set"} if ("GET", "/set", "") in site.seen else set())


def test_an_endless_listing(tmp_path: Path) -> None:
    with serving(Site({}, listing=b'<a href="x/">x</a>')) as site:
        done = data("prepare", f"{site.url}/set/", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert "folders deep" in done.stderr


def test_the_local_file_system_by_url(expected: str, tmp_path: Path) -> None:
    assert prepared(f"file://{tmp_path}/source", tmp_path / "a.images")["sha256"] == expected


def test_a_file_system_without_an_index_of_links(expected: str, tmp_path: Path) -> None:
    """fsspec's own, in memory: folders and files as S3 has them."""
    import fsspec  # type: ignore[import-untyped]

    memory = fsspec.filesystem("memory")
    for name, contents in FILES.items():
        memory.pipe(f"/pets/{name}", contents)
    memory.pipe("/pets.tar", pack(tmp_path / "pets.tar", FILES).read_bytes())
    try:
        assert prepared("memory://pets", tmp_path / "a.images")["sha256"] == expected
        assert prepared("memory://pets.tar", tmp_path / "b.images")["sha256"] == expected
    finally:
        memory.rm("/pets", recursive=True)
        memory.rm("/pets.tar")


# -- in a job


def test_a_job_reads_a_url_once(tar: bytes, expected: str, tmp_path: Path) -> None:
    with serving(Site({"/pets.tar": tar})) as site:
        spec = DataSpec(source=f"{site.url}/pets.tar")
        first, second = (load(spec, seed=0, cache=tmp_path / "cache") for _ in range(2))
        assert sum(method == "GET" for method, _, _ in site.seen) == 1
    assert first.digest == second.digest == expected
    assert first.name == "pets"


def test_a_job_reads_a_prepared_file_at_a_url(expected: str, tmp_path: Path) -> None:
    contents = (tmp_path / "expected.images").read_bytes()
    damaged = bytearray(contents)
    damaged[9000] ^= 1
    with serving(Site({"/a.images": contents, "/b.images": bytes(damaged)})) as site:
        dataset = load(DataSpec(source=f"{site.url}/a.images"), seed=0, cache=tmp_path / "cache")
        assert (dataset.digest, dataset.name) == (expected, "a")
        with pytest.raises(DataError, match=r"/b\.images holds other images or labels than it was written with"):
            load(DataSpec(source=f"{site.url}/b.images"), seed=0, cache=tmp_path / "cache")
    left = sorted(path.suffix for path in (tmp_path / "cache").iterdir())
    assert left == [".images", ".lock", ".lock", ".url"]


def test_a_network_that_is_down_may_pass(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(DataSpec(source="http://127.0.0.1:9/a.tar"), seed=0, cache=tmp_path / "cache")
    assert caught.value.passing
    with serving(Site({})) as site, pytest.raises(DataError) as caught:
        load(DataSpec(source=f"{site.url}/a.tar"), seed=0, cache=tmp_path / "cache")
    assert not caught.value.passing


def test_a_job_goes_on_without_its_server(tar: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts again while the server is away has the images; one without them waits for it, and so does
    one that has them as another release has read them."""
    with serving(Site({"/pets.tar": tar})) as site:
        spec = DataSpec(source=f"{site.url}/pets.tar", validation_fraction=0.5)
        first = load(spec, seed=0, cache=tmp_path / "cache")
    again = load(spec, seed=0, cache=tmp_path / "cache")
    assert (again.digest, again.name) == (first.digest, first.name)
    (tmp_path / "cache" / "torn.url").write_text("{")
    with pytest.raises(DataError, match="can't be reached, or breaks off") as caught:
        load(spec, seed=0, cache=tmp_path / "other")
    assert caught.value.passing
    monkeypatch.setattr(reading, "READING", reading.READING + 1)
    with pytest.raises(DataError, match="can't be reached, or breaks off"):
        load(spec, seed=0, cache=tmp_path / "cache")


def test_all_has_come_and_nobody_has_said_so(tar: bytes, expected: str, tmp_path: Path) -> None:
    """A process may be killed between the last byte and the note that it was the last."""
    with serving(Site({"/a.tar": tar}, cut_after=len(tar) // 2)) as site:
        site.files = _Vanishing({"/a.tar": tar}, reads=2)
        assert data("prepare", f"{site.url}/a.tar", "--out", tmp_path / "a.images").exit_code == 2
        (brought,) = (tmp_path / "a.images.partial" / "download").glob("a.tar")
        site.files, site.cut_after, site.seen = {"/a.tar": tar}, None, []
        brought.write_bytes(tar)
        assert prepared(f"{site.url}/a.tar", tmp_path / "a.images")["sha256"] == expected
    assert [method for method, _, _ in site.seen] == ["HEAD"]


def test_more_has_come_than_there_is(tar: bytes, expected: str, tmp_path: Path) -> None:
    with serving(Site({"/a.tar": tar}, cut_after=len(tar) // 2)) as site:
        site.files = _Vanishing({"/a.tar": tar}, reads=2)
        assert data("prepare", f"{site.url}/a.tar", "--out", tmp_path / "a.images").exit_code == 2
        (brought,) = (tmp_path / "a.images.partial" / "download").glob("a.tar")
        site.files, site.cut_after = {"/a.tar": tar}, None
        brought.write_bytes(tar + b"more")
        assert prepared(f"{site.url}/a.tar", tmp_path / "a.images")["sha256"] == expected


def test_a_prepared_file_that_is_damaged_is_named_by_its_url(tmp_path: Path) -> None:
    prepared("digits", tmp_path / "d.images")
    contents = (tmp_path / "d.images").read_bytes()
    with serving(Site({"/d.images": contents[:-9]})) as site:
        done = data("prepare", f"{site.url}/d.images", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"edgecloud: {site.url}/d.images has ")


def test_processes_that_are_called_alike_note_the_same_url(tmp_path: Path) -> None:
    """On a volume that Pods share, their processes have the same numbers, and all come at the same moment."""
    failed: list[BaseException] = []
    start = threading.Barrier(8)

    def note() -> None:
        try:
            start.wait(10)
            for number in range(40):
                remember(tmp_path, f"http://host/{number}.tar", key=f"{number}", name="a")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(list(tmp_path.iterdir())) == 40 and all(path.suffix == ".url" for path in tmp_path.iterdir())


def test_what_is_noted_already_is_not_written_again(tmp_path: Path) -> None:
    """The disk may be full by then."""
    remember(tmp_path, "http://host/a.tar", key="1", name="a")
    (noted,) = tmp_path.iterdir()
    before = noted.stat()
    remember(tmp_path, "http://host/a.tar", key="1", name="a")
    assert noted.stat().st_ino == before.st_ino
    remember(tmp_path, "http://host/a.tar", key="2", name="a")
    assert json.loads(noted.read_text())["key"] == "2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://bucket.host/d.images?X-Amz-Signature=abc#part", "https://bucket.host/d.images"),
        ("https://me:word@host:8443/d/", "https://host:8443/d/"),
        ("http://me:word@[::1]:80/d.images", "http://[::1]:80/d.images"),
        ("s3://bucket/images", "s3://bucket/images"),
        ("file:///images/a::b", "file:///images/a::b"),
        ("zip://a.images::http://me:word@host/d.zip?sig=1", "zip://a.images::http://host/d.zip"),
        ("zip://a?word::simplecache::http://me:word@host/d", "zip://a::simplecache::http://host/d"),
        ("simplecache::https://me:word@host/d?sig=1", "simplecache::https://host/d"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert filesystem.is_url(url) and filesystem.public(url) == shown


def test_a_name_server_that_does_not_answer() -> None:
    """It may the next time: as over http, the data aren't wrong for it."""
    with pytest.raises(DataError, match=r"^ftp://-/x can't be reached, .*: check the URL and the network$") as caught:
        filesystem.FileSystem("ftp://bob:hunter2@-/x")
    assert caught.value.passing


def test_listings_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder says that it holds more of them."""
    monkeypatch.setattr(filesystem, "MAX_FOLDERS", 40)
    rows = "".join(f'<a href="{number}/">{number}</a>' for number in range(9))
    with serving(Site({}, listing=f"<html>{rows}</html>".encode())) as site:
        done = data("prepare", f"{site.url}/set/", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert "/set/ holds more than 40 folders: pack them as a tar file" in done.stderr
    assert len(site.seen) < 20
