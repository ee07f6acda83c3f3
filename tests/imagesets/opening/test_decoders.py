"""One file cannot take its reader down: it is refused by name, and the pictures before and behind it are read."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from imagesets.errors import DecoderError, PictureError
from imagesets.files import FileInFolder
from imagesets.framing import make_frame
from imagesets.masks import SampleMask
from imagesets.opening.decoders import Decoders, DecodersStopped, Examined
from imagesets.opening.decoding_process import DecodingLimits, DecodingProcess
from imagesets.pictures import examine_picture, open_picture, render
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
from tests.imagesets.making import MAX_PIXELS, WHITE, encoded, endless_jpeg, noise, orientation_exif, png, scene

ROOT = Path(__file__).parents[3]
LIMITS = DecodingLimits.for_pixels(4_000_000)


def flawed(word: str) -> bytes:
    """Return a sound picture over which the decoder of `hostile_child` fails."""
    text = PngInfo()
    text.add_text("Comment", f"flaw: {word}")
    return encoded(scene(), "PNG", pnginfo=text)


def test_a_picture_that_ends_its_decoder_is_refused_and_those_around_it_are_read(
    tmp_path: Path, hostile_decoders: Decoders
) -> None:
    """Every way in which it can end is in `adversarial`; here is the order, with pictures for several requests."""
    for index in range(40):
        (tmp_path / f"{index:02d}.png").write_bytes(encoded(scene(40 + index, 48)))
    for name, word in (("00", "segfault"), ("07", "stumble"), ("08", "spin"), ("39", "segfault")):
        (tmp_path / f"{name}.png").write_bytes(flawed(word))
    report = scan_sources([FolderSource(tmp_path)], decoders=hostile_decoders)
    good = [index for index in range(40) if index not in {0, 7, 8, 39}]
    assert [sample.name for sample in report.samples] == [f"{index:02d}.png" for index in good]
    assert [sample.original_size for sample in report.samples] == [(40 + index, 48) for index in good]
    assert [bad.name for bad in report.bad] == ["00.png", "07.png", "08.png", "39.png"]
    crash, stumble, slow, last = (bad.reason for bad in report.bad)
    assert crash == last
    assert crash.startswith("decoding it ends the process that does so (SIGSEGV)")
    assert stumble == "it cannot be opened: LookupError: of a kind no decoder should raise"
    assert slow.startswith("decoding it takes more than 1 seconds of work")


def test_pixels_of_another_size_than_asked_for_are_refused(hostile_decoders: Decoders) -> None:
    content = flawed("shrink")
    sha256, frame = hashlib.sha256(content).hexdigest(), make_frame((48, 64), (32, 32), "center")
    mask = SampleMask(0.0, 1.0, "mask.png", sha256, lambda: content)
    with pytest.raises(PictureError, match="it talks nonsense"):
        hostile_decoders.render(lambda: content, sha256, WHITE, MAX_PIXELS, frame)
    with pytest.raises(PictureError, match="it talks nonsense"):
        hostile_decoders.render_mask(mask, MAX_PIXELS, frame)
    sound = encoded(scene())
    pixels = hostile_decoders.render(lambda: sound, hashlib.sha256(sound).hexdigest(), WHITE, MAX_PIXELS, frame)
    assert pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("word", ["wait", "stop"])
def test_a_decoder_that_waits_without_working_is_not_waited_for(word: str) -> None:
    limits = DecodingLimits(LIMITS.memory_bytes, cpu_seconds=30.0, wall_seconds=4.0, max_pixels=4_000_000)
    with Decoders(limits, 1, "tests.imagesets.opening.hostile_child") as decoders:
        refused, good = decoders.examine(
            [(lambda: flawed(word), None), (lambda: encoded(scene()), None)], WHITE, MAX_PIXELS
        )
    assert isinstance(refused, PictureError)
    assert str(refused).startswith("decoding it takes more than 30 seconds of work or 4 in all")
    assert isinstance(good, Examined)


def test_a_progressive_jpeg_of_endless_scans_is_a_matter_of_time(tmp_path: Path) -> None:
    """A real file of 200 kB that takes Pillow minutes; nothing is played here."""
    content = endless_jpeg(4096, 4096, num_scans=5000)
    assert len(content) < 400_000
    (tmp_path / "endless.jpg").write_bytes(content)
    (tmp_path / "sound.jpg").write_bytes(encoded(scene(), "JPEG", progressive=True))
    limits = DecodingLimits.for_pixels(MAX_PIXELS)
    with Decoders(DecodingLimits(limits.memory_bytes, 1.0, 60.0, MAX_PIXELS)) as decoders:
        report = scan_sources([FolderSource(tmp_path)], decoders=decoders)
    assert [sample.name for sample in report.samples] == ["sound.jpg"]
    assert [bad.name for bad in report.bad] == ["endless.jpg"]
    assert "as a file does that is made to hold a machine up" in report.bad[0].reason


def test_where_the_system_keeps_no_limit_memory_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: what is resident is looked at every tenth of a second."""
    limits = DecodingLimits(300 * 2**20, cpu_seconds=60.0, wall_seconds=120.0, max_pixels=4_000_000)
    with Decoders(limits, 1, "tests.imagesets.opening.unlimited_child") as decoders:
        refused, good = decoders.examine(
            [(lambda: flawed("eat"), None), (lambda: encoded(scene()), None)], WHITE, MAX_PIXELS
        )
    assert isinstance(refused, PictureError)
    assert str(refused).startswith("decoding it takes more than 300 MiB of memory")
    assert isinstance(good, Examined)


def test_a_picture_is_not_refused_for_what_another_left_behind(tmp_path: Path) -> None:
    """The first picture breaks something that ends the process over the second, as a corrupt heap does."""
    for index, content in enumerate([flawed("later"), *[encoded(scene())] * 3]):
        (tmp_path / f"{index}.png").write_bytes(content)
    with Decoders(LIMITS, 1, "tests.imagesets.opening.hostile_child") as decoders:
        files = [(FileInFolder(tmp_path, f"{index}.png"), ".png") for index in range(4)]
        results = decoders.examine(files, WHITE, MAX_PIXELS)
    assert all(isinstance(result, Examined) for result in results)


def test_what_comes_back_is_what_this_process_would_see(tmp_path: Path) -> None:
    """Pixels and facts cross over unchanged, by file and by bytes."""
    content = encoded(noise(90, 60), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    frame = make_frame((90, 60), (48, 32), "random", flipped=True, key=(1, "crop"))
    with Decoders(LIMITS, 1) as decoders:
        for read in (FileInFolder(tmp_path, "a.jpg"), lambda: content):
            (examined,) = decoders.examine([(read, ".jpg")], WHITE, MAX_PIXELS)
            assert isinstance(examined, Examined)
            assert examined.facts == examine_picture(content, MAX_PIXELS, ".jpg")
            loaded = decoders.load(read, examined.sha256, WHITE, MAX_PIXELS)
            here = open_picture(content, WHITE, MAX_PIXELS)
            assert (loaded.mode, loaded.size) == ("RGB", here.size)
            assert np.array_equal(np.asarray(loaded), np.asarray(here))
            assert np.array_equal(decoders.render(read, examined.sha256, WHITE, MAX_PIXELS, frame), render(here, frame))


def test_several_threads_each_get_their_own_picture(hostile_decoders: Decoders) -> None:
    contents = [flawed("abort") if index % 7 == 3 else encoded(scene(32 + index, 64)) for index in range(28)]

    def height(content: bytes) -> int | None:
        (result,) = hostile_decoders.examine([(lambda: content, None)], WHITE, MAX_PIXELS)
        return result.facts.size[0] if isinstance(result, Examined) else None

    with ThreadPoolExecutor(8) as threads:
        heights = list(threads.map(height, contents))
    assert heights == [None if index % 7 == 3 else 32 + index for index in range(28)]


def test_the_bytes_that_cannot_be_had_are_a_refusal_and_the_next_are_asked_for() -> None:
    def gone() -> bytes:
        raise PictureError("the row holds no picture")

    with Decoders(LIMITS, 1) as decoders:
        results = decoders.examine([(gone, None), (lambda: encoded(scene()), None), (gone, None)], WHITE, MAX_PIXELS)
    assert [str(result) if isinstance(result, PictureError) else result.facts.size for result in results] == [
        "the row holds no picture",
        (48, 64),
        "the row holds no picture",
    ]


def test_a_decoding_process_loads_no_training_library_and_not_its_parents_program(tmp_path: Path) -> None:
    """`multiprocessing` would import the main module again: without a guard it would begin to train twice."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, types, psutil\n"
        f"open({str(tmp_path / 'starts')!r}, 'a').write('started\\n')\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'datasets')!r}]\n"
        "import torch\n"
        "from imagesets.opening.decoders import Decoders\n"
        "from imagesets.opening.decoding_process import DecodingLimits\n"
        f"content = open({str(tmp_path / 'a.png')!r}, 'rb').read()\n"
        "decoders = Decoders(DecodingLimits.for_pixels(1_000_000), 1)\n"
        "(result,) = decoders.examine([(lambda: content, None)], (0, 0, 0), 1_000_000)\n"
        "(child,) = psutil.Process().children()\n"
        "files = [map.path for map in child.memory_maps()]\n"
        "assert any('_imaging.' in path for path in files), files\n"
        "assert not any('torch' in path for path in files), files\n"
        "print(result.facts.size)\n",
        encoding="utf-8",
    )
    (tmp_path / "a.png").write_bytes(encoded(scene()))
    finished = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert finished.stdout == "(48, 64)\n", finished.stderr
    assert (tmp_path / "starts").read_text(encoding="utf-8") == "started\n"


SCANNING = """
import signal
import sys
from pathlib import Path
from imagesets.opening.decoders import Decoders
from imagesets.opening.decoding_process import DecodingLimits
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
# As at a terminal: a test that was started in the background has Ctrl-C switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
limits = DecodingLimits(400 * 2**20, 60.0, 300.0, 1_000_000)
decoders = Decoders(limits, 2, "tests.imagesets.opening.hostile_child")
print("begun", flush=True)
def tell(_done, _total):
    sys.stdout.write("one\\n")  # with its end of line, between which no Ctrl-C can come
    sys.stdout.flush()
try:
    scan_sources([FolderSource(Path(sys.argv[1]))], decoders=decoders, progress=tell)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def begin_scan(folder: Path, word: str) -> "subprocess.Popen[str]":
    """Start a scan that will not end by itself, and wait until it decodes."""
    for index in range(32):
        (folder / f"{index:02d}.png").write_bytes(flawed(word) if index >= 8 else encoded(scene()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "datasets")])}
    scan = subprocess.Popen(
        [sys.executable, "-c", SCANNING, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert scan.stdout is not None
    assert [scan.stdout.readline() for _ in range(2)] == ["begun\n", "one\n"]
    return scan


def children_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("word", ["spin", "wait"])
def test_ctrl_c_ends_a_scan_and_its_processes_at_once(tmp_path: Path, word: str) -> None:
    with begin_scan(tmp_path, word) as scan:
        children = children_of(scan)
        assert children
        scan.send_signal(signal.SIGINT)
        assert scan.stdout is not None
        assert scan.stdout.read().splitlines()[-1] == "interrupted"
        assert scan.wait(30) == 0
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_ctrl_c_in_who_is_told_of_the_progress_ends_the_processes_as_well(tmp_path: Path) -> None:
    for index in range(32):
        (tmp_path / f"{index:02d}.png").write_bytes(flawed("wait") if index >= 8 else encoded(scene()))
    before = set(psutil.Process().children())
    seen: list[psutil.Process] = []

    def press_ctrl_c(_done: int, _total: int) -> None:
        seen.extend(set(psutil.Process().children()) - before)
        raise KeyboardInterrupt

    limits = DecodingLimits(400 * 2**20, 60.0, 300.0, 1_000_000)
    decoders = Decoders(limits, 2, "tests.imagesets.opening.hostile_child")
    with pytest.raises(KeyboardInterrupt):
        scan_sources([FolderSource(tmp_path)], decoders=decoders, progress=press_ctrl_c)
    assert seen
    assert psutil.wait_procs(seen, timeout=10)[1] == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("word", ["spin", "wait"])
def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path, word: str) -> None:
    with begin_scan(tmp_path, word) as scan:
        children = children_of(scan)
        assert children
        scan.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_a_pool_that_is_no_longer_referred_to_ends_its_processes() -> None:
    decoders = Decoders(LIMITS, 1)
    before = set(psutil.Process().children())
    decoders.examine([(lambda: encoded(scene()), None)], WHITE, MAX_PIXELS)
    (child,) = set(psutil.Process().children()) - before
    del decoders
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_process_without_work_ends_and_the_next_picture_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(psutil.Process().children())
    with Decoders(LIMITS, 1, "tests.imagesets.opening.impatient_child") as decoders:
        for _ in range(2):
            (result,) = decoders.examine([(lambda: encoded(scene()), None)], WHITE, MAX_PIXELS)
            assert isinstance(result, Examined)
            (child,) = set(psutil.Process().children()) - before
            assert psutil.wait_procs([child], timeout=30)[1] == []


def test_stopping_tells_who_waits_and_leaves_the_pool_of_use() -> None:
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            decoders.examine([(lambda: flawed("wait"), None)], WHITE, MAX_PIXELS)
        except DecodersStopped as stopped:
            caught.append(stopped)

    with Decoders(LIMITS, 1, "tests.imagesets.opening.hostile_child") as decoders:
        decoders.examine([(lambda: encoded(scene()), None)], WHITE, MAX_PIXELS)
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        decoders.stop()
        thread.join(30)
        assert len(caught) == 1
        (result,) = decoders.examine([(lambda: encoded(scene()), None)], WHITE, MAX_PIXELS)
        assert isinstance(result, Examined)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of address space")
def test_on_linux_both_limits_are_the_kernels() -> None:
    process = DecodingProcess(LIMITS, "imagesets.opening.decoding_child")
    try:
        assert process.enforced == {"memory": True, "cpu": True}
        limits = (Path("/proc") / str(process.pid) / "limits").read_text(encoding="ascii").splitlines()
        soft = {line[:26].strip(): line[26:].split()[0] for line in limits}
        assert LIMITS.memory_bytes < int(soft["Max address space"]) < LIMITS.memory_bytes + 2 * 2**30
        assert soft["Max core file size"] == "0"
        assert soft["Max file size"] == "0"
    finally:
        process.kill()


def test_decoders_that_cannot_start_are_no_fault_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(scene()))
    with (
        Decoders(LIMITS, 1, "tests.imagesets.no_such_module") as decoders,
        pytest.raises(DecoderError, match=r"does not start: ModuleNotFoundError: No module named .*no_such_module"),
    ):
        scan_sources([FolderSource(tmp_path)], decoders=decoders)


def largest(kind: str) -> tuple[bytes, str]:
    """Return a sound picture of just 64 megapixels, of a kind that takes much memory, and its ending."""
    side = 8000
    grain = np.tile(np.random.default_rng(0).integers(0, 256, (125, 125, 4), dtype=np.uint8), (64, 64, 1))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # By its name sRGB would be passed over; under another it is converted.
    profile = profile.replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    tags = {"exif": orientation_exif(6), "icc_profile": profile}
    if kind == "16-bit":
        rows = np.repeat(grain[:, :, :3].reshape(side, 3 * side), 2, axis=1)
        return png(side, side, 16, 2, rows), ".png"
    mode = "CMYK" if kind == "JPEG" else "RGBA"
    picture = Image.frombytes(mode, (side, side), grain.tobytes())
    options: dict[str, dict[str, object]] = {
        "JPEG": {"progressive": True, "exif": tags["exif"], "quality": 90},
        "PNG": {"compress_level": 1, **tags},
        "WEBP": {"method": 0, "quality": 80, **tags},
    }
    return encoded(picture, kind, **options[kind]), {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["WEBP", "PNG", "JPEG", "16-bit"])
def test_the_largest_pictures_keep_to_the_limits(tmp_path: Path, kind: str) -> None:
    """Else a good picture would be refused. A fifth of the memory and half of the time are left over."""
    content, ending = largest(kind)
    (tmp_path / f"a{ending}").write_bytes(content)
    whole = DecodingLimits.for_pixels(MAX_PIXELS)
    limits = DecodingLimits(int(whole.memory_bytes * 0.8), whole.cpu_seconds / 2, whole.wall_seconds, MAX_PIXELS)
    read = FileInFolder(tmp_path, f"a{ending}")
    frame = make_frame((8000, 8000), (1024, 1024), "center")
    with Decoders(limits, 1) as decoders:
        (examined,) = decoders.examine([(read, ending)], WHITE, MAX_PIXELS)
        assert isinstance(examined, Examined), examined
        assert decoders.load(read, examined.sha256, WHITE, MAX_PIXELS).size == (8000, 8000)
        assert decoders.render(read, examined.sha256, WHITE, MAX_PIXELS, frame).shape == (1024, 1024, 3)
