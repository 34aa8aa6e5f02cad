"""Run by the reliability tests: `bas` in processes of its own, that may be slowed down, broken and killed.

reliability_child.py bas ARGUMENT...   the plain command line; hears Ctrl-C even where the tests run in the background
reliability_child.py fork              imports and converts once, then forks one `bas` for each request on stdin:
    {"arguments": [...], "output": FILE, "errors": FILE, "faults": {...}}  ->  its pid
    {"wait": PID}                                                          ->  its exit code
"""

import functools
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from bas import cli


def hold(what: tuple[int, str]) -> None:
    """No append beyond so many rows of a match until there is a file; progress is saved at every 256th row."""
    from bas.cache.writer import MatchWriter

    append, (num_rows, path), seen = MatchWriter.append, what, dict[int, int]()

    def held_append(self: MatchWriter, rows: Any, valid: Any) -> None:
        seen[id(self)] = seen.get(id(self), 0) + len(valid)
        while seen[id(self)] > num_rows and not Path(path).exists():
            time.sleep(0.005)
        self._journal_seconds = 0.0
        append(self, rows, valid)

    MatchWriter.append = held_append  # type: ignore[method-assign]


def kill_after(what: tuple[int, float, str]) -> None:
    """kill -9 some seconds after a step: an append or an fsync; step 0 is the start. The file counts the steps."""
    from bas.cache.writer import MatchWriter

    append, sync, (step, seconds, count_file), count = MatchWriter.append, os.fsync, what, [0]

    def die() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def another() -> None:
        count[0] += 1
        Path(count_file).write_text(str(count[0]))
        if count[0] == step:
            threading.Thread(target=die, daemon=True).start()

    def counted_append(self: MatchWriter, *rows: Any, **valid: Any) -> None:
        another()
        self._journal_seconds = 0.0
        append(self, *rows, **valid)

    def counted_sync(handle: int) -> None:
        another()
        sync(handle)

    MatchWriter.append, os.fsync = counted_append, counted_sync  # type: ignore[method-assign, assignment]
    if step == 0:
        threading.Thread(target=die, daemon=True).start()


def limit_files(num_bytes: int) -> None:
    """No file may grow over so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def remove_after(what: list[str]) -> None:
    """Delete the file what[1] once the function what[0] of the extraction is through."""
    from bas.cache.store import FeatureStore
    from bas.data import sources
    from bas.extract.extractor import Extractor

    owner: Any = {"find_sources": sources, "check": Extractor, "writer": FeatureStore}[what[0]]
    real = getattr(owner, what[0])

    def then_remove(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        Path(what[1]).unlink(missing_ok=True)
        return result

    setattr(owner, what[0], then_remove)


def touch_after_append(path: str) -> None:
    """Something writes to the video while it is read."""
    from bas.cache.writer import MatchWriter

    append = MatchWriter.append

    def then_touch(self: MatchWriter, *rows: Any, **valid: Any) -> None:
        append(self, *rows, **valid)
        os.utime(path)

    MatchWriter.append = then_touch  # type: ignore[method-assign]


def break_worker(where: str) -> None:
    """A bug, as far as the pipeline knows: an exception that nobody expects, after some good work."""
    from bas.extract.engines.openvino import OpenvinoEngine
    from bas.extract.video.decode import Decoder

    calls = [0]
    pictures, feed = Decoder.pictures, OpenvinoEngine.feed

    def bad_pictures(self: Decoder, *arguments: Any) -> Iterator[Any]:
        for count, picture in enumerate(pictures(self, *arguments)):
            if count == 40:
                raise RuntimeError("bug in decode")
            yield picture

    def bad_feed(self: OpenvinoEngine) -> Any:
        begin = feed(self)

        def bad_begin(*arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] == 10:
                raise RuntimeError("bug in engine")
            return begin(*arguments)

        return bad_begin

    if where == "decode":
        Decoder.pictures = bad_pictures  # type: ignore[method-assign, assignment]
    else:
        OpenvinoEngine.feed = bad_feed  # type: ignore[method-assign]


def run_and_vanish() -> NoReturn:
    """The command line, then the end without the interpreter's own (1.6 s); exit code 99 if a thread was left."""
    code = 1
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if threading.active_count() == 1 else 99)


FAULTS: dict[str, Callable[[Any], None]] = {
    "hold": hold,
    "kill_after": kill_after,
    "limit_files": limit_files,
    "remove_after": remove_after,
    "touch_after_append": touch_after_append,
    "break_worker": break_worker,
}


def warm_up() -> None:
    """Import everything; build backbone and graph once per kind (4 s), for all forks. Starts no thread."""
    import torch
    import typer._adapters  # noqa: F401 (typer imports it, and pydantic, at the first call)

    from bas.extract import run
    from bas.extract.backbones.weights import load_weights
    from bas.extract.engines import openvino
    from bas.extract.engines.pytorch import Normalised

    torch.set_num_threads(1)
    graphs: dict[tuple[int, ...], Any] = {}
    load, real_graph = functools.cache(load_weights), openvino._graph

    def graph(net: Any, shape: tuple[int, ...]) -> Any:
        if shape not in graphs:
            graphs[shape] = real_graph(net, shape)
        return graphs[shape]

    openvino._graph = graph
    setattr(run, "load_weights", load)  # noqa: B010 (as an assignment mypy refuses it)
    module, record = load("x3d_xs", 4, "none")
    graph(Normalised(module, mean=record.mean, std=record.std).eval(), (1, 16, 36, 64, 3))


def serve() -> None:
    """Answer requests until stdin ends. Returns in each forked child, which is to run `bas`."""
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            say(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]))
        elif pid := os.fork():
            say(pid)
        else:
            take_role(request)
            return
    os._exit(0)


def say(number: int) -> None:
    """One line for the tests to read."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def take_role(request: dict[str, Any]) -> None:
    """Make this fork the `bas` that was asked for."""
    for number, name in ((0, os.devnull), (1, request["output"]), (2, request["errors"])):
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC * (number > 0), 0o644)
        os.dup2(handle, number)
        os.close(handle)
    sys.argv = ["bas", *request["arguments"]]
    for name, value in request["faults"].items():
        FAULTS[name](value)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.argv[1] == "fork":
        warm_up()
        say(threading.active_count())
        serve()
        run_and_vanish()
    sys.argv = sys.argv[1:]
    cli.main()
