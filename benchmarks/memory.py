"""Peak memory of an extraction against the video's length: it must not grow.

    python benchmarks/memory.py VIDEO [--minutes 10 90]

The video's packets are repeated to each length, so that only the length differs. A small 2-D backbone keeps it short;
what is held (frames, clips, sums, the time table, the shard index) does not depend on the backbone's depth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
from common import machine

CHILD = """
import json, resource, sys
from pathlib import Path
from bas.data.sources import find_sources
from bas.extract.options import ExtractOptions, ExtractRunOptions
from bas.extract.run import extract
video, store = map(Path, sys.argv[1:])
options = ExtractOptions(backbone="tf_efficientnet_lite0", weights="none", size=(64, 36))
result = extract(find_sources([video]), store, options, ExtractRunOptions()).results[0]
print(json.dumps([result.num_rows, result.rows_per_second, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def repeat(video: Path, target: Path, *, minutes: float) -> None:
    """The video's packets over and over, with rising time stamps, until the length is reached."""
    with av.open(video) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        assert stream.time_base is not None
        length = sum(packet.duration or 0 for packet in packets)
        with av.open(target, "w") as copy:
            out = copy.add_stream_from_template(stream)
            offset, end = 0, minutes * 60 / stream.time_base
            while offset < end:
                for packet in packets:
                    if packet.pts is None or packet.dts is None or offset + packet.dts >= end:
                        continue
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts, again.duration = packet.pts + offset, packet.dts + offset, packet.duration
                    again.time_base, again.is_keyframe, again.stream = packet.time_base, packet.is_keyframe, out
                    copy.mux(again)
                offset += length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 90.0])
    arguments = parser.parse_args()
    print(machine())
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            video = Path(folder) / f"{minutes:g}.mp4"
            repeat(arguments.video, video, minutes=minutes)
            started = time.perf_counter()
            command = [sys.executable, "-c", CHILD, str(video), str(Path(folder) / f"{minutes:g}.zarr")]
            rows, rate, peak_mb = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds = time.perf_counter() - started
            peaks.append(peak_mb)
            print(
                f"{minutes:5g} minutes: {rows:7,} rows, {rate:7,.0f} frames/s, {seconds:5.0f} s, peak {peak_mb:,.0f} MB"
            )
    print(f"peak, longest against shortest: {peaks[-1] / peaks[0]:.3f}x")


if __name__ == "__main__":
    main()
