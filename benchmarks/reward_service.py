"""Samples a second through the reward service: `python -m benchmarks.reward_service`.

The same scorer in this process, behind `mmrl serve` for 1, 4 and 16 clients, and behind a server of
the kind Flow-GRPO uses: pickle both ways, frames as JPEG, one request at a time. A client asks for
one sample, 8 frames of 64 x 64, and waits for its score. Two scorers: one whose call takes 20 ms
whatever its batch, as on a GPU, and CLIPScore of assets/tiny-clip on the CPU. Writes
docs/figures/reward_service.svg (the first) and prints the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch
from PIL import Image

from benchmarks.figures import save_lines
from benchmarks.serving import TOKEN, free_port, running
from mmrl.data.video import quantize
from mmrl.data.wire_samples import png_request, tensor_request
from mmrl.report.plots import Series
from mmrl.reward import RewardTable
from mmrl.types import Prompt, VideoSample

CLIENTS = (1, 4, 16)
SCORERS: dict[str, dict[str, Any]] = {
    "fixed": {"path": "benchmarks/fixed_cost.py:fixed_cost"},
    "clip": {"reward": "clip_score", "fields": {"model": "assets/tiny-clip"}},
}
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def make_samples(count: int = 16) -> list[VideoSample]:
    """Smooth moving pictures: noise would be unfair to JPEG and PNG."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(8, 64, 64), mode="trilinear")
    videos = smooth.permute(0, 2, 1, 3, 4)
    return [VideoSample(Prompt("a red three moving left"), video) for video in videos]


def load(name: str) -> Callable[[list[VideoSample]], Any]:
    """The scorer in this process."""
    entry = {**SCORERS[name]}
    return RewardTable.parse({name: {**entry.pop("fields", {}), **entry}}).rewards[name]


def in_process(name: str, samples: list[VideoSample], batch: int, seconds: float) -> float:
    """Samples a second of the reward itself, `batch` at a time."""
    scorer = load(name)
    with torch.no_grad():
        scorer(samples[:batch])
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            scorer(samples[:batch])
            done += batch
    return done / (time.perf_counter() - begun)


def through(ask: Callable[[httpx2.Client, int], None], clients: int, seconds: float) -> float:
    """Samples a second of some clients, each asking for one sample at a time."""
    end = [0.0]

    def client(number: int) -> int:
        done = 0
        with httpx2.Client(headers=HEADERS, timeout=120) as connection:
            try:
                ask(connection, number)
            except httpx2.HTTPError:
                ready.abort()
                raise
            ready.wait(timeout=120)
            while time.perf_counter() < end[0]:
                ask(connection, number)
                done += 1
        return done

    def go() -> None:
        end[0] = time.perf_counter() + seconds

    ready = threading.Barrier(clients, action=go)
    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(client, range(clients))) / seconds


def pickle_server(name: str, port: int) -> None:
    """Flow-GRPO's way: a pickled list of JPEG frames in, pickled scores out, in turn.

    Only ever for this measurement: whoever reaches such a port runs code here.
    """
    scorer = load(name)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = pickle.loads(self.rfile.read(int(self.headers["Content-Length"])))
            frames = [np.asarray(Image.open(io.BytesIO(data))) for data in asked["images"]]
            video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                scores = scorer([VideoSample(Prompt(asked["prompt"]), video)])
            body = pickle.dumps({"scores": list(scores)})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    HTTPServer.request_queue_size = 64
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def jpeg_request(sample: VideoSample) -> bytes:
    """Frames as JPEG of quality 95, pickled."""
    images = []
    for frame in quantize(sample.video).numpy():
        sink = io.BytesIO()
        Image.fromarray(frame).save(sink, "JPEG", quality=95)
        images.append(sink.getvalue())
    return pickle.dumps({"images": images, "prompt": sample.prompt.text})


def measure(
    scorer: str, samples: list[VideoSample], seconds: float, repeats: int
) -> dict[str, list[float]]:
    """Samples a second by way and number of clients, the median of the repeats."""
    port = free_port()
    found: dict[str, list[float]] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.reward_service", "--pickle-server", scorer]
    server = subprocess.Popen([*command, str(port)], env=environment)
    config = {"port": 0, "scorers": {scorer: SCORERS[scorer]}}
    try:
        with tempfile.TemporaryDirectory() as folder, running(config, Path(folder)) as service:
            ways = {
                "pickle + JPEG, one at a time": lambda connection, n: connection.post(
                    f"http://127.0.0.1:{port}", content=jpeg_request(samples[n])
                ).raise_for_status(),
                "mmrl serve, JSON + PNG": lambda connection, n: connection.post(
                    f"{service.url}/v1/score", json=png_request(scorer, [samples[n]])
                ).raise_for_status(),
                "mmrl serve, safetensors": lambda connection, n: connection.post(
                    f"{service.url}/v1/score/tensors", content=tensor_request(scorer, [samples[n]])
                ).raise_for_status(),
            }
            wait_for(port)
            rows = {name: [[] for _ in CLIENTS] for name in ways}
            for _ in range(repeats):
                for index, clients in enumerate(CLIENTS):
                    for name, ask in ways.items():
                        rows[name][index].append(through(ask, clients, seconds))
            found = {
                name: [statistics.median(values) for values in row] for name, row in rows.items()
            }
    finally:
        server.kill()
        server.wait()
    here = [
        statistics.median(in_process(scorer, samples, n, seconds) for _ in range(repeats))
        for n in CLIENTS
    ]
    return {"in process, batches of 1, 4, 16": here, **found}


def wait_for(port: int) -> None:
    """Until something listens there."""
    while True:
        try:
            httpx2.get(f"http://127.0.0.1:{port}", timeout=5)
            return
        except httpx2.ConnectError:
            time.sleep(0.1)


def main() -> None:
    """Measure, print the table, draw the growth."""
    parser = argparse.ArgumentParser(description="Time the reward service.")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pickle-server", nargs=2, metavar=("SCORER", "PORT"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.pickle_server:
        name, port = arguments.pickle_server
        pickle_server(name, int(port))
        return
    found = {}
    for scorer in reversed(SCORERS):
        found = measure(scorer, make_samples(), arguments.seconds, arguments.repeats)
        report(scorer, found)
    draw(found)


def draw(found: dict[str, list[float]]) -> None:
    """Growth with the number of clients."""
    series = [Series(name, [float(n) for n in CLIENTS], row) for name, row in found.items()]
    path = Path("docs/figures/reward_service.svg")
    save_lines(path, "Samples a second against clients", series, "clients")


def report(scorer: str, found: dict[str, list[float]]) -> None:
    """One scorer's table as Markdown."""
    print(
        "| samples a second, " + scorer + " | " + " | ".join(f"{n} clients" for n in CLIENTS) + " |"
    )
    print("|---|" + "---|" * len(CLIENTS))
    for name, row in found.items():
        print(f"| {name} | " + " | ".join(f"{value:.0f}" for value in row) + " |")


if __name__ == "__main__":
    main()
