"""Random clips from long video: frames a second, beside plain sequential decoding of the same file.

    python benchmarks/seek_speed.py VIDEO [VIDEO...] [--frames 6000] [--frames-720 3000] [--repeats 5] [--threads 1,2]

The videos are joined (and repeated, where they are too short) to long ones of 25 frames/s, encoded as named in the
table (x264, medium, crf 23), and copied as `bas data proxy` does it. A clip is 50 steps with stride 2, 398x224 RGB: a
stretch of 100 frames. `random` counts these 100 frames of each clip, of which 50 are handed out; `sequential` decodes
from the start and hands out every frame; `at keys` are clips that begin at key frames, with nothing to decode before
them: the limit for a clip. There are no key frames at cuts, so that groups are as long as named. Rates are medians of
rounds in which every file has its turn.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from common import interleaved, machine, median_ratio, spread

from bas.data.proxy import CopyReport, copy_video
from bas.data.settings import ProxySettings
from bas.extract.video.clips import ClipPlace, ClipReader
from bas.extract.video.picture import PictureFormat
from bas.extract.video.reader import Video, open_video

PICTURE = PictureFormat(width=398, height=224)
CLIP_STEPS, STRIDE = 50, 2
CLIP_FRAMES = CLIP_STEPS * STRIDE
SEQUENTIAL_FRAMES = 600


@dataclass(frozen=True)
class Source:
    """A long video as somebody might have it."""

    name: str
    height: int
    params: str


SOURCES = (
    Source("224p keyint 250", 224, "keyint=250"),
    Source("224p keyint 25", 224, "keyint=25"),
    Source("224p keyint 12", 224, "keyint=12"),
    Source("720p keyint 250", 720, "keyint=250"),
)


def main() -> None:
    """Make the files, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--frames", type=int, default=6000, help="of the 224p videos")
    parser.add_argument("--frames-720", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--clips", type=int, default=8, help="clips a round")
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(arguments.videos, Path(folder), arguments)
        for threads in map(int, arguments.threads.split(",")):
            measure(files, threads=threads, repeats=arguments.repeats, num_clips=arguments.clips)


def make_files(sources: list[Path], folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Name -> file: the sources, and the proxies of the two with long groups."""
    files: dict[str, Path] = {}
    for source in SOURCES:
        num_frames = arguments.frames if source.height == PICTURE.height else arguments.frames_720
        files[source.name] = folder / f"{len(files)}.mp4"
        encode(sources, files[source.name], source, num_frames=num_frames)
        print(f"{source.name}: {describe(files[source.name], num_frames)}")
    for name in ("224p keyint 250", "720p keyint 250"):
        proxy = f"proxy of {name[:4]}"
        files[proxy] = folder / f"{len(files)}.mp4"
        report = copy_video(files[name], files[proxy], ProxySettings(max_bad_share=0))
        print(f"{proxy}: {describe(files[proxy], report.num_frames)}, {likeness(report)}")
    return files


def encode(sources: list[Path], target: Path, source: Source, *, num_frames: int) -> None:
    """The videos one after the other, again and again, at 25 frames/s."""
    width = PICTURE.width if source.height == PICTURE.height else source.height * 16 // 9
    options = {"crf": "23", "x264-params": f"{source.params}:scenecut=0:log-level=none"}
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, source.height, "yuv420p"
        for number, frame in enumerate(islice(all_frames(sources), num_frames)):
            scaled = frame.reformat(width, source.height, "yuv420p", interpolation="BICUBIC")
            scaled.pts, scaled.time_base, scaled.pict_type = number, Fraction(1, 25), PictureType.NONE
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


def all_frames(sources: list[Path]) -> Iterator[VideoFrame]:
    """Decoded frames without end."""
    for path in cycle(sources):
        with av.open(str(path)) as container:
            yield from container.decode(video=0)


def describe(path: Path, num_frames: int) -> str:
    """Length, rate and key frames of a file."""
    video = open_video(path, fps=None, picture=PICTURE, threads=1)
    kbit_per_s = path.stat().st_size * 8 / 1000 / (num_frames / 25)
    return f"{num_frames:,} frames, {int(video.table.is_key.sum())} key frames, {kbit_per_s:,.0f} kbit/s"


def likeness(report: CopyReport) -> str:
    """How a copy came out."""
    speed = report.num_frames / max(report.seconds, 1e-9)
    psnr = f"mean {report.mean_psnr_db:.1f} dB, worst {report.worst_psnr_db:.1f} dB"
    return f"{psnr}, {speed:,.0f} frames/s made and compared by one process"


def measure(files: dict[str, Path], *, threads: int, repeats: int, num_clips: int) -> None:
    """One table: every file's rates, and what the proxies gain."""
    with ExitStack() as stack:
        tasks: dict[str, Callable[[], float]] = {}
        for number, (name, path) in enumerate(files.items()):
            video = open_video(path, fps=None, picture=PICTURE, threads=threads)
            reader = stack.enter_context(ClipReader([video], threads=threads, ahead=2 * threads))
            rng = np.random.default_rng(number)
            tasks[f"{name}, sequential"] = partial(sequential, video)
            clips = partial(random_clips, video, reader, rng, num_clips=num_clips * threads)
            tasks[f"{name}, at keys"] = partial(clips, at_keys=True)
            tasks[f"{name}, random"] = partial(clips, at_keys=False)
        rates = interleaved(tasks, repeats=repeats)
    titles = f"{'sequential':>12}{'at keys':>12}{'random (min to max)':>30}{'of its limit':>14}{'x its source':>14}"
    print(f"\n{threads} thread(s); frames/s\n{'file':<18}{titles}")
    for name in files:
        random, limit = rates[f"{name}, random"], rates[f"{name}, at keys"]
        source = f"{name.removeprefix('proxy of ')[:4]} keyint 250"
        print(
            f"{name:<18}{statistics.median(rates[f'{name}, sequential']):>12,.0f}{statistics.median(limit):>12,.0f}"
            f"{spread(random):>30}{median_ratio(random, limit):>14.2f}"
            f"{median_ratio(random, rates[f'{source}, random']):>14.2f}"
        )


def sequential(video: Video) -> float:
    """Frames from the start on, each a picture."""
    return float(sum(1 for _ in video.frames(0, SEQUENTIAL_FRAMES)))


def random_clips(video: Video, reader: ClipReader, rng: np.random.Generator, *, num_clips: int, at_keys: bool) -> float:
    """Frames that the clips span."""
    starts = np.arange(video.num_steps - CLIP_FRAMES)
    if at_keys:
        starts = starts[video.table.is_key[: len(starts)]]
    places = [ClipPlace(0, int(start), CLIP_STEPS, STRIDE) for start in rng.choice(starts, num_clips)]
    return float(sum(len(clip) * STRIDE for clip in reader.clips(places)))


if __name__ == "__main__":
    main()
