"""The server under load: throughput and latency beside the bare pipeline and LitServe, and memory over a long time.

    python -m benchmarks.serving --data DIR --weights DIR --model mobilenetv2_100
    python -m benchmarks.serving --run RUN --clients 64 --soak-s 600

All alternatives predict the same files with the same predictor, in processes of their own. They are measured in turns;
those that are not measured are stopped meanwhile. So is the process of the clients one of its own, which keeps its
connections. The bare pipeline predicts batches of as many files as there are clients. Ratios are means
over rounds, with their standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.measuring import ROOT, table, write_json
from benchmarks.photos import make_photos

MAX_BATCH = 64
BUDGET_MS = 10.0  # for which an image waits for others, in both servers
NUM_FILES = 128  # different files that are sent
BOUNDARY = "saccade-benchmark"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# The processes


def serve_by_litserve(run: str, port: int) -> None:
    """Run LitServe with the same pipeline and batches."""
    import litserve

    from benchmarks.litserve_api import PredictorApi  # a module of its own, since LitServe pickles the object

    api = PredictorApi(run, max_batch_size=MAX_BATCH, batch_timeout=BUDGET_MS / 1e3, api_path="/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


def predict_bare(run: str, files: list[bytes]) -> None:
    """For each line ``batch_size seconds`` on standard input, print throughput and seconds of a batch."""
    from saccade import ImagePredictor
    from saccade.serve.models import ServedPredictor

    served = ServedPredictor(ImagePredictor.load(run, verbosity=0))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        batch_size, seconds = line.split()
        endless = itertools.cycle(files)
        taken: list[float] = []
        end_s = time.perf_counter() + float(seconds)
        while not taken or time.perf_counter() < end_s:
            start_s = time.perf_counter()
            # The pipeline decodes the files itself, in threads.
            served.predict(list(itertools.islice(endless, int(batch_size))))
            taken.append(time.perf_counter() - start_s)
        images_per_s = len(taken) * int(batch_size) / sum(taken)
        print(json.dumps({"images_per_s": images_per_s, "batch_s": statistics.median(taken)}), flush=True)


def send_requests(files: list[bytes]) -> None:
    """For each line ``port clients seconds is_mixed`` on standard input, send requests and print what came back."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        port, num_clients, seconds, is_mixed = line.split()
        good = [_form(data) for data in files]
        requests = [*good, *_bad_requests(files)] if is_mixed == "True" else good
        print(json.dumps(asyncio.run(_clients(int(port), int(num_clients), float(seconds), requests))), flush=True)


async def _clients(port: int, num_clients: int, seconds: float, requests: list[bytes]) -> dict[str, Any]:
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    end_s = time.perf_counter() + seconds

    async def close(streams: Streams | None) -> None:
        if streams is not None:
            streams[1].transport.abort()
            with suppress(OSError):
                await streams[1].wait_closed()

    async def client(number: int) -> None:
        turn = number * 7
        streams: Streams | None = None
        while time.perf_counter() < end_s:
            turn += 1
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", port)
                reader, writer = streams
                start_s = time.perf_counter()
                writer.write(requests[turn % len(requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))  # type: ignore[index]
                statuses[head.split(b" ", 2)[1].decode()] += 1
                if head[9:12] == b"200":
                    latencies.append(time.perf_counter() - start_s)
                elif head[9:12] == b"503":
                    await asyncio.sleep(0.1)
                if b"connection: close" in head.lower():
                    streams = await close(streams)
            except (OSError, asyncio.IncompleteReadError):
                statuses["closed"] += 1
                streams = await close(streams)
        await close(streams)

    start_s = time.perf_counter()
    await asyncio.gather(*[client(number) for number in range(num_clients)])
    taken_s = time.perf_counter() - start_s
    latencies.sort()
    at = {
        f"p{percent}_ms": 1e3 * latencies[int(percent / 100 * (len(latencies) - 1))]
        for percent in (50, 99)
        if latencies
    }
    return {"images_per_s": len(latencies) / taken_s, **at, "statuses": dict(statuses)}


def _request(content_type: str, body: bytes, headers: str = "") -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _form(data: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n'
    body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return _request(f"multipart/form-data; boundary={BOUNDARY}", body)


def _bad_requests(files: list[bytes]) -> list[bytes]:
    """Return requests that a server must refuse, or that it answers on a connection that it closes."""
    return [
        _form(b"not an image"),
        _form(files[0][: len(files[0]) // 2]),
        _form(b""),
        _request("application/json", b'{"images": ["%%%"]}'),
        _request("application/json", b"{" * 1000),
        _request("text/plain", b"hello"),
        _request("image/jpeg", files[1], headers=f"X: {'a' * 100_000}\r\n"),
        _request("image/jpeg", b"x" * 33_000_000),
        b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"nonsense\r\n\r\n",
    ]


class _Process:
    """A process that is stopped unless it is used."""

    def __init__(self, *arguments: str, url_in: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        self.port = 0
        if url_in:
            found = re.search(r"http://[\d.]+:(\d+)", self._line())
            assert found is not None
            self.port = int(found[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with status {self.process.wait()}")
        return line

    def ask(self, *words: object) -> Any:
        """Write a line, if there are words, and return the JSON of the answer."""
        assert self.process.stdin is not None
        if words:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        return json.loads(self._line())

    @contextmanager
    def running(self) -> Iterator[None]:
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


# The measurement


def main(argv: list[str] | None = None) -> None:
    """Fit a predictor unless there is one, measure it, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a run folder; otherwise a predictor is fitted")
    parser.add_argument("--data", type=Path, help="a folder of photos, one folder a class; it may be in train/")
    parser.add_argument("--weights", help="a folder of pretrained weights")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--img-size", type=int, default=None)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak-s", type=float, default=0.0, help="seconds of mixed requests by 64 clients")
    parser.add_argument("--without-litserve", action="store_true")
    parser.add_argument("--json", type=Path)
    for name in ("bare", "client", "litserve"):
        parser.add_argument(f"--as-{name}", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--files", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.as_litserve:
        serve_by_litserve(given.run, given.port)
    elif given.as_bare or given.as_client:
        files = [Path(path).read_bytes() for path in json.loads(Path(given.files).read_text())]
        send_requests(files) if given.as_client else predict_bare(given.run, files)
    else:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            figures = measure(given, Path(folder), stack)
        write_json(given.json, given, figures)


def measure(given: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Start the processes in turns, and return all measurements."""
    data = given.data
    if data is None:
        data = folder / "photos"
        make_photos(data, 64, num_classes=4, size=(400, 300))
    run = given.run or _fit(given, data, folder / "run")
    paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = folder / "files.json"
    files.write_text(json.dumps([str(path) for path in paths[:: max(1, len(paths) // NUM_FILES)]]))

    def start(*arguments: str, url_in: bool = False) -> _Process:
        process = _Process(*arguments, url_in=url_in)
        stack.callback(process.end)
        return process

    this = ("-m", "benchmarks.serving", "--files", str(files))
    options = ("--port", "0", "--max-batch", str(MAX_BATCH), "--max-wait-ms", str(BUDGET_MS))
    servers = {"saccade": start("-m", "saccade", "serve", run, *options, url_in=True)}
    clients = start(*this, "--as-client")
    clients.ask()
    bare = start(*this, "--as-bare", "--run", run)
    bare.ask()
    os.killpg(bare.process.pid, signal.SIGSTOP)
    if not given.without_litserve:
        os.killpg(servers["saccade"].process.pid, signal.SIGSTOP)
        servers["litserve"] = start(*this, "--as-litserve", "--run", run, "--port", "8765")
        servers["litserve"].port = 8765
    for server in servers.values():
        with server.running():
            _wait_for(clients, server)
    cases = [{"clients": num, "round": number} for number in range(given.rounds) for num in given.clients]
    for case in cases:
        with bare.running():
            case["bare"] = bare.ask(min(MAX_BATCH, case["clients"]), given.seconds)
        for name, server in servers.items():
            with server.running():
                case[name] = clients.ask(server.port, case["clients"], given.seconds, False)
    print_cases(cases, list(servers))
    figures: dict[str, Any] = {"cases": cases}
    if given.soak_s:
        with servers["saccade"].running():
            figures["soak"] = _soak(servers["saccade"], clients, given.soak_s)
    return figures


def _fit(given: argparse.Namespace, data: Path, folder: Path) -> str:
    from saccade import ImagePredictor

    recipe: dict[str, Any] = {"model": given.model, "epochs": 1, "pretrained": bool(given.weights)}
    if given.img_size:
        recipe["img_size"] = given.img_size
    train = data / "train" if (data / "train").is_dir() else data
    predictor = ImagePredictor(path=folder, verbosity=0)
    return predictor.fit(train, hyperparameters=recipe, weights=given.weights, time_limit=60).path


def _wait_for(clients: _Process, server: _Process) -> None:
    """Wait until a server answers, and let it compute batches of all sizes once."""
    deadline_s = time.monotonic() + 120
    while not (statuses := clients.ask(server.port, 1, 0.2, False)["statuses"]).get("200"):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the server at port {server.port} gave no answer of status 200: {statuses}")
        time.sleep(0.5)
    clients.ask(server.port, 64, 2.0, False)


def print_cases(cases: list[dict[str, Any]], servers: list[str]) -> None:
    """Print a table of all numbers of clients, and of ratios to the bare pipeline and between the servers."""
    rows = []
    for num in dict.fromkeys(case["clients"] for case in cases):
        some = [case for case in cases if case["clients"] == num]

        def median(name: str, what: str, some: list[dict[str, Any]] = some) -> float:
            return statistics.median(case[name][what] for case in some)

        batch_ms = 1e3 * median("bare", "batch_s")
        rows.append([str(num), "bare", f"{median('bare', 'images_per_s'):.1f}", f"{batch_ms:.1f}", "", "1", ""])
        for name in servers:
            rows.append(
                [
                    str(num), name, f"{median(name, 'images_per_s'):.1f}", f"{median(name, 'p50_ms'):.1f}",
                    f"{median(name, 'p99_ms'):.1f}",
                    with_error([case[name]["images_per_s"] / case["bare"]["images_per_s"] for case in some]),
                    f"{median(name, 'p99_ms') / (2 * batch_ms + BUDGET_MS):.2f}",
                ]
            )  # fmt: skip
        if len(servers) > 1:
            rate = with_error([case["saccade"]["images_per_s"] / case["litserve"]["images_per_s"] for case in some])
            late = with_error([case["saccade"]["p99_ms"] / case["litserve"]["p99_ms"] for case in some])
            rows.append([str(num), "saccade / litserve", rate, "", late, "", ""])
    head = ["clients", "", "images/s", "p50 ms", "p99 ms", "/ bare", "p99 / (2 batches + budget)"]
    print(table(head, rows))
    statuses: Counter[str] = Counter()
    for case in cases:
        statuses.update(case["saccade"]["statuses"])
    print(f"statuses of saccade: {dict(statuses)}")


def with_error(ratios: list[float]) -> str:
    """Return the mean of ratios with its standard error."""
    mean = statistics.mean(ratios)
    return f"{mean:.2f}" + (f" ± {statistics.stdev(ratios) / len(ratios) ** 0.5:.2f}" if len(ratios) > 1 else "")


def _soak(server: _Process, clients: _Process, seconds: float) -> dict[str, Any]:
    """Send good and bad requests, and return memory over time and counts by status."""
    num_parts = max(4, int(seconds / 15))
    statuses: Counter[str] = Counter()
    memory = [server.memory_mb()]
    for _ in range(num_parts):
        statuses.update(clients.ask(server.port, 64, seconds / num_parts, True)["statuses"])
        memory.append(server.memory_mb())
    files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    half = len(memory) // 2
    print(
        f"{seconds:g} s of mixed requests: memory {memory[0]:.0f} MB at the start, {memory[half]:.0f} at half, "
        f"{memory[-1]:.0f} at the end, maximum {max(memory):.0f}; {files} open files; statuses {dict(statuses)}"
    )
    return {"memory_mb": memory, "statuses": dict(statuses), "open_files": files}


if __name__ == "__main__":
    main()
