"""What is compared: the gateway and its peers, each in front of the same engines.

Every one runs with what it has switched on by default, and as its own documents start it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmarks.engines import MODEL
from benchmarks.processes import HEADRACE, ROOT, Running, free_port, running, wait_until_served
from headrace.core.admission import AdmissionSettings
from headrace.core.latency import LatencyProfile
from headrace.simulator.settings import Slo
from tools import bootstrap, c_compiler, compiled, debian_tools

PEERS = ROOT / ".cache" / "peers"
SGLANG_ROUTER = "sglang-router==0.3.2"
VLLM_ROUTER = "vllm-router==0.1.17"
SYSTEM_PYTHON = "/usr/bin/python3"

_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_body_buffer_size 128k;
    client_max_body_size 64m;
    keepalive_requests 1000000000;
    upstream engines {{
        {servers}
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://engines;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 3600s;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared. `start` gets the engines' addresses and the port to listen on, and
    returns the command and its environment; it serves as soon as `ready_path` gives 200.
    """

    name: str
    ready_path: str
    start: Callable[[Sequence[str], int, Path], tuple[list[str], Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A contender that runs."""

    name: str
    port: int
    process: Running


@contextmanager
def proxy(contender: Contender, urls: Sequence[str], folder: Path) -> Iterator[Proxy]:
    """Run a contender in front of these engines; its files lie in `folder`."""
    port = free_port()
    command, env = contender.start(urls, port, folder)
    with running(command, env={**os.environ, **env}) as process:
        wait_until_served(process, port, contender.ready_path)
        yield Proxy(contender.name, port, process)


def on_core(contender: Contender, core: int) -> Contender:
    """The same on this core alone, with all its threads."""

    def start(urls: Sequence[str], port: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
        command, env = contender.start(urls, port, folder)
        return ["taskset", "--cpu-list", str(core), *command], env

    return Contender(contender.name, contender.ready_path, start)


# ---------------------------------------------------------------- how each is started


def _nginx(urls: Sequence[str], port: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in urls)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(servers=servers, port=port))
    debian_tools.fetch("nginx")
    program = debian_tools.find("nginx")
    return [str(program.path), "-p", str(folder), "-c", str(config), "-e", "stderr"], program.env


def gateway(pool_keys: Mapping[str, object] | None = None, **keys: object) -> Contender:
    """`headrace serve` with these keys in its file too, and `pool_keys` in that of its pool: what
    real traffic runs on where that can be built, else the plain package, under its own name.
    """
    if why_not_compiled() is None:
        return _serve("headrace", _compiled, pool_keys or {}, keys)
    return _serve("headrace, interpreted", lambda: HEADRACE, pool_keys or {}, keys)


def _serve(
    name: str,
    program: Callable[[], Sequence[str]],
    pool_keys: Mapping[str, object],
    keys: Mapping[str, object],
) -> Contender:
    def start(urls: Sequence[str], port: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
        pool = {"name": "pool", "model": MODEL, "engine": "vllm", "policy": "seconds"}
        config = {
            "listen": {"port": port},
            "control": {"port": free_port()},
            "pools": [{**pool, "replicas": list(urls), **pool_keys}],
            **keys,
        }
        file = folder / "headrace.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        return [*program(), "serve", "-c", str(file)], {}

    return Contender(name, "/ready", start)


def _under_system_python() -> Sequence[str]:
    """This checkout under the distribution's Python, in an environment of its own."""
    folder = _environment("headrace", SYSTEM_PYTHON, "--editable", str(ROOT))
    return (str(folder / "bin" / "python"), "-m", "headrace")


def _compiled_under_system_python() -> Sequence[str]:
    """The compiled checkout under the distribution's Python; both have the same minor version."""
    return (*_compiled()[:2], *_under_system_python())


def _compiled() -> Sequence[str]:
    """This checkout with its deciding modules compiled, built if need be."""
    compiled.build()
    return ("env", f"PYTHONPATH={compiled.SITE}", *HEADRACE)


@cache
def why_not_compiled() -> str | None:
    """What keeps the compiled build from being run here; None where it can be."""
    return None if compiled.is_built() else c_compiler.missing()


def gateway_of_modelled(
    latency: LatencyProfile, slo: Slo, *, time_scale: float, policy: str, learned: bool = False
) -> Contender:
    """The gateway in front of engines with this profile that run `time_scale` times as fast.

    What it is told in seconds is meant in the engines' and so divided by it. It sheds nothing, as
    the simulator does not: it answers for all that came. With `learned` it is not told the profile.
    """
    pool: dict[str, object] = {"policy": policy}
    if not learned:
        pool["profile"] = {
            key: value / time_scale if key.endswith("_s") else value
            for key, value in asdict(latency).items()
        }
    default = AdmissionSettings()
    times = {
        "hold_above": default.hold_above_s / time_scale,
        "starved_after": default.starved_after_s / time_scale,
    }
    targets = {"ttft": slo.ttft_s / time_scale, "tpot": slo.tpot_s / time_scale}
    tier = {**targets, "shed_after_factor": 0, "ttl": "1h"}
    return gateway(pool, tiers={"default": tier}, admission=times)


def _router(
    pin: str, module: Sequence[str], policy: str
) -> Callable[[Sequence[str], int, Path], tuple[list[str], Mapping[str, str]]]:
    def start(urls: Sequence[str], port: int, _folder: Path) -> tuple[list[str], Mapping[str, str]]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        options += ["--prometheus-port", str(free_port()), "--log-level", "error"]
        options += ["--max-concurrent-requests", "8192"]
        folder = _environment(pin.replace("==", "-"), sys.executable, pin)
        program = folder / "bin" / module[0]
        return [str(program), *module[1:], *options, "--worker-urls", *urls], {}

    return start


def _environment(name: str, python: str, *requirements: str) -> Path:
    """An environment with what is compared, made if need be."""
    folder = PEERS / name
    if not (folder / "complete").exists():
        uv = bootstrap.find_uv()
        bootstrap.say(f"installing {requirements[-1]} into {folder.relative_to(ROOT)}")
        for step in (
            ("venv", "--clear", "--python", python, str(folder)),
            ("pip", "install", "--quiet", "--python", str(folder / "bin/python"), *requirements),
        ):
            subprocess.run([uv, *step], check=True)
        (folder / "complete").touch()
    return folder


GATEWAY = _serve("headrace", _compiled, {}, {})
"""What real traffic runs on: what `make compiled` builds. It needs a C compiler."""
INTERPRETED = _serve("headrace, interpreted", lambda: HEADRACE, {}, {})
"""What `make up` and `make env` install."""
UNDER_SYSTEM_PYTHON = _serve("headrace, system's Python", _compiled_under_system_python, {}, {})
"""A distribution builds its Python with profile-guided optimisation; one that was built at home, as
pyenv does by default, is slower. nginx comes from the distribution, too."""
INTERPRETED_UNDER_SYSTEM_PYTHON = _serve(
    "headrace, interpreted, system's Python", _under_system_python, {}, {}
)
FLOOR = Contender("nginx", "/health", _nginx)
_VLLM = ("vllm-router",)
_SGLANG = ("python", "-m", "sglang_router.launch_router")
SGLANG_CACHE_AWARE = Contender(
    "sglang-router cache", "/v1/models", _router(SGLANG_ROUTER, _SGLANG, "cache_aware")
)
ROUTERS = (
    Contender("vllm-router rr", "/v1/models", _router(VLLM_ROUTER, _VLLM, "round_robin")),
    Contender("vllm-router cache", "/v1/models", _router(VLLM_ROUTER, _VLLM, "cache_aware")),
    Contender("sglang-router rr", "/v1/models", _router(SGLANG_ROUTER, _SGLANG, "round_robin")),
    SGLANG_CACHE_AWARE,
)
