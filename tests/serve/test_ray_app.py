"""The service on a local Ray cluster: the same answers through the same door."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from benchmarks.serving import free_port
from tests.serve.conftest import SCORERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs `pip install 'mmrl[ray]'`"),
]

PROGRAM = """
import sys
import httpx2
import ray
from ray import serve
from mmrl.data.wire_samples import png_request
from mmrl.reward import RewardTable
from mmrl.serve.ray_app import build
from mmrl.types import Prompt, TextSample

ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(build({"file": sys.argv[1]}))
url = f"http://127.0.0.1:{sys.argv[2]}"
assert httpx2.get(f"{url}/health", timeout=60).json()["status"] == "ok"
assert httpx2.get(f"{url}/capabilities", timeout=60).status_code == 401
sample = TextSample(Prompt("q"), "x")
body = png_request("length", [sample])
body["samples"][0]["prompt"]["images"] = ["/etc/passwd"]
headers = {"Authorization": "Bearer of-the-test"}
refused = httpx2.post(f"{url}/v1/score", json=body, headers=headers, timeout=60)
assert refused.status_code == 400, refused.text
entry = {"reward": "remote", "scorer": "length", "url": url, "faults": {"retries": 0}}
table = RewardTable.parse({"judge": entry})
samples = [TextSample(Prompt("q"), text) for text in ("one", "skip", "bad", "three")]
found = table.score_samples(samples)["judge"]
assert found[[0, 3]].tolist() == [3, 5] and found[[1, 2]].isnan().all(), found
counts = table.counts()
assert (counts["reward/judge/abstained"], counts["reward/judge/error"]) == (1, 1), counts
serve.shutdown()
ray.shutdown()
print("all is well")
"""


def test_a_ray_cluster_scores_as_the_service_does(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    scorer = {"path": f"{SCORERS}:length", "workers": 2}
    file.write_text(yaml.safe_dump({"scorers": {"length": scorer}}))
    environment = {
        **os.environ,
        "MMRL_REWARD_TOKEN": "of-the-test",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", PROGRAM, str(file), str(free_port())]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert "all is well" in done.stdout, done.stderr[-3000:]
