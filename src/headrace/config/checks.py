"""Rules between the parts of a configuration: names that must match, addresses, what is exposed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from headrace.config.document import join
from headrace.config.origins import origin_problem
from headrace.config.schema import Config, PoolSection
from headrace.core.admission import LEAST_TARGET_S
from headrace.core.names import NAME, NAME_RULE
from headrace.core.policies import make_policy
from headrace.core.quantities import format_duration
from headrace.core.specs import Alias, Role
from headrace.edges.gpu_metrics import GpuMetricsSettings
from headrace.edges.http.address import UNIX
from headrace.engines.dcgm import split_label
from headrace.gateway.call import MAX_MODEL_CHARS
from headrace.gateway.control import is_loopback
from headrace.gateway.settings import Listener

Finding = tuple[str, str]
"""Path and message."""

MAX_TIERS = 64
"""More are a mistake: each has a series of its own in metrics."""
_MAX_UNIX_PATH = 103
"""`sun_path` on macOS with its closing zero; Linux takes four more."""
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_BASE = re.compile(r"(/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def findings(config: Config) -> Iterator[Finding]:
    """Everything wrong between the parts, in no particular order."""
    rules: tuple[Callable[[Config], Iterator[Finding]], ...] = (
        _pools,
        _aliases,
        _tiers,
        _listeners,
        _control,
        _tracing,
    )
    for rule in rules:
        yield from rule(config)


# ---------------------------------------------------------------- pools


def _pools(config: Config) -> Iterator[Finding]:
    if not config.pools:
        yield "pools", "is empty; name at least one pool of engines"
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for index, pool in enumerate(config.pools):
        path = f"pools[{index}]"
        if pool.name in names:
            yield f"{path}.name", f"is {pool.name!r}, the name of {names[pool.name]} too"
        names.setdefault(pool.name, path)
        yield from _pool(pool, path)
        for position, url in enumerate(pool.replicas):
            here = f"{path}.replicas[{position}]"
            place = _place(url)
            if place in addresses:
                yield here, f"is {url!r}, the same as {addresses[place]}"
            addresses.setdefault(place, here)


def _place(url: str) -> str:
    """An address as it may be compared: hosts in small letters, IPv6 in one of its spellings."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url
    if not host or url.startswith(UNIX):
        return url
    with suppress(ValueError):  # of a name
        host = str(ip_address(host))
    return f"{host} {port}{parts.path}"


def _pool(pool: PoolSection, path: str) -> Iterator[Finding]:
    if not NAME.fullmatch(pool.name):
        yield f"{path}.name", f"is {pool.name!r}; {NAME_RULE}"
    yield from _models(pool, path)
    if pool.role is not Role.BOTH:
        yield f"{path}.role", f"is {pool.role.value!r}; only `both` is routed to today"
    try:
        make_policy(pool.policy)
    except ValueError as error:
        yield f"{path}.policy", f"is {pool.policy!r}: {error}"
    if not pool.replicas and pool.dns is None and pool.start is None:
        yield path, "has no replicas; give `replicas` (a list of http://host:port) or `dns`"
    for position, url in enumerate(pool.replicas):
        if problem := url_problem(url):
            yield f"{path}.replicas[{position}]", problem
    if pool.dns is not None and not _is_host(pool.dns.name):
        yield f"{path}.dns.name", f"is {pool.dns.name!r}; give a host name without scheme or port"
    if pool.gpu_metrics is not None:
        yield from _gpu_metrics(pool.gpu_metrics, f"{path}.gpu_metrics")
    yield from _pool_tls(pool, path)
    yield from _secret_source(path, "api_key", pool.api_key_file, pool.api_key_env)


def _models(pool: PoolSection, path: str) -> Iterator[Finding]:
    if not pool.model:
        yield f"{path}.model", "is empty; name the model as its engines list it in /v1/models"
    yield from _too_long(f"{path}.model", pool.model)
    for position, adapter in enumerate(pool.adapters):
        yield from _too_long(f"{path}.adapters[{position}]", adapter)


def _too_long(path: str, model: str) -> Iterator[Finding]:
    if len(model) > MAX_MODEL_CHARS:
        told = f"has {len(model)} characters; requests name a model by at most {MAX_MODEL_CHARS}"
        yield path, f"{told}, so none could ask for it"


def _gpu_metrics(settings: GpuMetricsSettings, path: str) -> Iterator[Finding]:
    expected = "expected a page, as http://{host}:9400/metrics"
    if "@" in settings.url:
        yield f"{path}.url", f"holds credentials; {expected}"
    elif not _is_page(settings.url_for("http://h:1")):
        yield f"{path}.url", f"is {settings.url!r}; {expected}"
    for index, label in enumerate(settings.labels):
        try:
            split_label(label)
        except ValueError as error:
            yield f"{path}.labels[{index}]", f"{error}; give one as container=vllm"


def _is_page(url: str) -> bool:
    """Whether it can be asked for; of braces only those of `{host}` stand for anything."""
    try:
        port = urlsplit(url).port
    except ValueError:  # of a port that is no number or none of TCP's, and of odd brackets
        return False
    return port != 0 and re.fullmatch(r"https?://[^/?#\s{}]+/[!-~]+", url) is not None


def url_problem(url: str) -> str | None:
    """What is wrong with the address of an engine, or None. Never repeats credentials."""
    expected = "expected http://host:port, https://host:port or unix:/path"
    if "@" in url:
        return "holds credentials; leave them out and put the key into `api_key_file`"
    if url.startswith(UNIX):
        return unix_problem(url.removeprefix(UNIX))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"is {url!r}; {expected}"
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return f"is {url!r}; {expected}"
    if " " in parts.netloc or not url.isprintable():  # it would stand in header fields
        return f"is {url!r}, with white space; {expected}"
    if port is None:
        return f"is {url!r}, without a port; {expected}"
    if parts.query or parts.fragment:
        return f"is {url!r}; leave out what follows the path: {expected}"
    return _base_problem(url, parts.path)


def _base_problem(url: str, base: str) -> str | None:
    """What is wrong with the path that is put before those of requests, or None."""
    if base.rstrip("/").endswith("/v1"):
        return f"is {url!r}; leave out `/v1`, with which the paths of requests begin"
    if base and not _BASE.fullmatch(base):
        rule = "of letters, digits and - . _ ~, without a slash at its end"
        return f"is {url!r}; what follows the port must be a plain path {rule}"
    return None


def unix_problem(path: str) -> str | None:
    """What is wrong with the path of a Unix socket, or None."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable():
        return f"is {path!r}; a Unix socket is named by an absolute path of printable ASCII"
    if ":" in path or " " in path:
        return f"is {path!r}; the path of a Unix socket must hold no colon and no space"
    if len(path) > _MAX_UNIX_PATH:
        return f"is {path!r}; systems take at most {_MAX_UNIX_PATH} characters for a Unix socket"
    return None


def _pool_tls(pool: PoolSection, path: str) -> Iterator[Finding]:
    tls = pool.tls
    if tls is None:
        return
    for position, url in enumerate(pool.replicas):
        if not url.startswith("https:"):
            yield (
                f"{path}.replicas[{position}]",
                f"is {url!r} in a pool with `tls`, which would not be used; write https://…",
            )
    if tls.key_file is not None and tls.cert_file is None:
        yield f"{path}.tls.key_file", "has no `cert_file` beside it"
    if tls.verify and tls.server_name is None and pool.dns is not None and pool.replicas:
        yield (
            f"{path}.tls",
            "is for `replicas` and for `dns`; say with `server_name` which name certificates have",
        )


def _is_host(name: str) -> bool:
    """Whether this may be a name in DNS: labels of letters, digits and hyphens."""
    labels = name.removesuffix(".").split(".")
    return len(name) <= 253 and all(map(_HOST_LABEL.fullmatch, labels))


def _is_address(host: str) -> bool:
    """Whether this may be listened on: an address, or a name that stands for one."""
    try:
        ip_address(host)
    except ValueError:
        # What has only digits and dots was meant as an address.
        return _is_host(host) and not host.replace(".", "").isdigit()
    return True


def _secret_source(
    path: str, what: str, file: str | None, variable: str | None
) -> Iterator[Finding]:
    if file is not None and variable is not None:
        yield path, f"has both `{what}_file` and `{what}_env`; keep one"
    if variable is not None and not _VARIABLE.fullmatch(variable):
        # The value stays unsaid: it may be the secret itself, put in the wrong place.
        yield f"{path}.{what}_env", "is not the name of an environment variable"


# ---------------------------------------------------------------- aliases


def _aliases(config: Config) -> Iterator[Finding]:
    models = {pool.model for pool in config.pools}
    adapters = {adapter for pool in config.pools for adapter in pool.adapters}
    for index, pool in enumerate(config.pools):
        for position, adapter in enumerate(pool.adapters):
            if adapter in models:
                yield f"pools[{index}].adapters[{position}]", f"is {adapter!r}, a model"
    for name, alias in config.aliases.items():
        path = join("aliases", name)
        if name in models | adapters:
            kind = "a model" if name in models else "an adapter"
            yield path, f"is the name of {kind} too; clients could not tell which is meant"
        yield from _too_long(path, name)
        yield from _targets(alias, path, models | adapters, set(config.aliases))


def _targets(alias: Alias, path: str, known: set[str], aliases: set[str]) -> Iterator[Finding]:
    if not alias.targets:
        yield f"{path}.targets", "is empty; name at least one model"
    seen: set[str] = set()
    places = [(f"{path}.targets[{at}]", each.model) for at, each in enumerate(alias.targets)]
    places += [(f"{path}.fallbacks[{at}]", each) for at, each in enumerate(alias.fallbacks)]
    for place, model in places:
        if model in aliases:
            yield (
                place,
                f"is {model!r}, an alias; name a model: aliases must not go in circles",
            )
        elif model not in known:
            yield place, f"is {model!r}, which no pool serves; {_near(model, known)}"
        elif model in seen:
            yield place, f"is {model!r}, named in this alias before"
        seen.add(model)


def _near(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return (
        f"pools serve: {', '.join(sorted(known))}. An adapter loaded later is declared under its "
        "pool's `adapters`"
    )


def _tiers(config: Config) -> Iterator[Finding]:
    if len(config.tiers) > MAX_TIERS:
        yield (
            "tiers",
            f"are {len(config.tiers)}, with `default`; at most {MAX_TIERS} can be told apart",
        )
    for name, tier in config.tiers.items():
        if not NAME.fullmatch(name):
            yield join("tiers", name), f"is no name for a tier; {NAME_RULE}"
        for target, seconds in (("ttft", tier.ttft_s), ("tpot", tier.tpot_s)):
            if seconds < LEAST_TARGET_S:
                least = format_duration(LEAST_TARGET_S)
                problem = f"is {seconds:g} seconds; give a target that can be met, at least {least}"
                yield join(join("tiers", name), target), problem


# ---------------------------------------------------------------- listeners


def _listeners(config: Config) -> Iterator[Finding]:
    for position, origin in enumerate(config.listen.cors_origins):
        if problem := origin_problem(origin):
            yield f"listen.cors_origins[{position}]", problem
    unix = config.listen.unix
    if unix is not None and (problem := unix_problem(unix)):
        yield "listen.unix", problem
    hosts = {"control": config.control.host}
    if unix is None:
        hosts["listen"] = config.listen.host
    for section, host in hosts.items():
        if not _is_address(host):
            yield (
                f"{section}.host",
                (
                    f"is {host!r}; expected an address of this machine, such as 127.0.0.1 (this "
                    "machine alone), 0.0.0.0 (all of its addresses) or ::1, or a host name"
                ),
            )
    same_port = unix is None and config.listen.port == config.control.port != 0
    if same_port and config.listen.host == config.control.host:
        yield "control.port", f"is {config.control.port}, the port of `listen` too"


def _control(config: Config) -> Iterator[Finding]:
    control = config.control
    yield from _secret_source("control", "token", control.token_file, control.token_env)


def _tracing(config: Config) -> Iterator[Finding]:
    if config.tracing is None:
        return
    endpoint, expected = config.tracing.endpoint, "expected http://host:port or https://host:port"
    if "@" in endpoint:
        # The value stays unsaid: it may hold a password.
        yield (
            "tracing.endpoint",
            (
                f"holds credentials; {expected}, and put them into the environment as "
                "OTEL_EXPORTER_OTLP_HEADERS"
            ),
        )
        return
    if "?" in endpoint or "#" in endpoint:
        yield (
            "tracing.endpoint",
            f"has something behind its path; {expected}, and OTEL_EXPORTER_OTLP_HEADERS for a key",
        )
        return
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or " " in endpoint or not endpoint.isprintable():
        yield "tracing.endpoint", f"is {endpoint!r}; {expected}"


def is_local(listen: Listener) -> bool:
    """Whether only this machine can connect to a listener."""
    return listen.unix is not None or is_loopback(listen.host)


def exposure(config: Config, *, insecure: bool) -> Iterator[Finding]:
    """Why the gateway must not start like this: open to others without keys or token."""
    if insecure:
        return
    listen, control = config.listen, config.control
    if config.api_keys_file is None and not is_local(listen):
        yield (
            "listen.host",
            (
                f"is {listen.host!r}, which other machines reach, without an `api_keys_file`; "
                "make keys with `headrace keys new`, or say --insecure if the network is trusted"
            ),
        )
    has_token = control.token_file is not None or control.token_env is not None
    if not has_token and not is_loopback(control.host):
        yield (
            "control.host",
            (
                f"is {control.host!r}, which other machines reach, without a token; name one with "
                "`token_file` or `token_env`, or say --insecure if the network is trusted"
            ),
        )


def warnings(config: Config) -> Iterator[str]:
    """What is allowed and should not be overlooked."""
    for pool in config.pools:
        if pool.tls is not None and not pool.tls.verify:
            yield f"pool {pool.name}: tls.verify is false; whoever sits in between is trusted too"
