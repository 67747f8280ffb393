"""Replicas that share a store of claims and are killed and frozen, all but one, while notifications come in.

Each notification is posted to two replicas, of which one runs until its deadline at least. So each must be answered in
time; never with two answers; and no handler may be asked again, except for one whose replica was killed or frozen, or
could not reach a store that was restarted, and none before the lease of the first had run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows.budget import longest_repeatable_handler
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request
from tests.adapters.servers import ROOT, head
from tests.conftest import OverHTTP, served
from tests.replicas.gate import UID, stalls

Sort = Literal["killed", "frozen"]

_RATE: Final = 12.0
"""Notifications a second, each posted twice."""

_PATIENCE: Final = 30.0

_DELAY: Final = 0.2
"""The share of the deadline that a loaded machine may take away."""

_ROUNDED: Final = 0.01
"""Seconds by which a lease may end early: Redis counts milliseconds."""

_ON_DISK_SECONDS: Final = 1.0
"""Seconds after which what PostgreSQL confirms before it is on the disk is there: three times 200 ms, and some."""

FULL_MATRIX: Final = "REPLICAS_FULL_MATRIX"
"""The variable of the environment that asks for all scenarios, which take some ten minutes over three stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is done to whom.

    Attributes:
        replicas: How many there are.
        deadline: Seconds in which each notification must be answered.
        sorts: What happens to each replica but one, at random.
        receiver: The kind of the receivers.
        seconds: How long notifications come in.
    """

    replicas: int
    deadline: float
    sorts: Sequence[Sort] = ("killed", "frozen")
    receiver: Literal["async", "sync"] = "async"
    seconds: float = 4.0

    @property
    def longest(self) -> float:
        """Seconds that a handler takes at most; a loaded machine needs the rest."""
        return 0.6 * longest_repeatable_handler(self.deadline)

    def __str__(self) -> str:
        return f"{self.replicas} {self.receiver} replicas, {self.deadline:g} s, {' or '.join(self.sorts) or 'running'}"


def scenarios() -> list[Scenario]:
    """Return what is run: two scenarios, or all."""
    if os.environ.get(FULL_MATRIX):
        sorts: list[tuple[Sort, ...]] = [("killed",), ("frozen",)]
        some = itertools.product((2, 4, 8), (5.0, 2.0), sorts)
        return [Scenario(replicas=count, deadline=deadline, sorts=sort) for count, deadline, sort in some]
    return [Scenario(replicas=4, deadline=5.0), Scenario(replicas=2, deadline=2.0, receiver="sync")]


@dataclass(slots=True)
class Fault:
    """What happens to a replica: it ends, or does not run for a while.

    Attributes:
        sort: Which of the two.
        planned: At which second of the run its time has come.
        after: Seconds from when it is asked about a notification to the fault.
        frozen_for: Seconds.
        began: When it happened, on the monotonic clock.
        ended: When it was over.
    """

    sort: Sort
    planned: float
    after: float
    frozen_for: float
    began: float = float("inf")
    ended: float = float("inf")


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        seed: Of the run.
        questions: The notifications and their answers.
        faults: By replica.
        sent: When each notification was sent, on the monotonic clock.
        asked: By notification: which replicas were asked, in order.
        outcomes: How many of each kind.
        asked_again_for: Notifications of which two handlers were asked, since a replica was killed or frozen, or its
            lease ran out while the store was restarted.
        asked_twice: Notifications of which two were asked without such a reason.
        asked_early: Notifications of which the second was asked while the first one's lease ran.
        delayed: Notifications that the machine was too loaded to answer: they came late to the replica that runs, or it
            or Optimove hardly ran, for the length of a lease. They may be lost, but not be answered twice.
        diary: Every line of the replicas' file.
    """

    seed: int
    questions: list[SentNotification]
    faults: dict[int, Fault]
    diary: list[dict[str, Any]]
    sent: dict[str, float]
    asked: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    asked_again_for: list[str] = field(default_factory=list)
    asked_twice: list[str] = field(default_factory=list)
    asked_early: list[str] = field(default_factory=list)
    delayed: set[str] = field(default_factory=set)

    @property
    def unanswered(self) -> list[str]:
        """Return the notifications without an answer in time."""
        unanswered = [question.request_uid for question in self.questions if question.answer is None]
        return [uid for uid in unanswered if uid not in self.delayed]

    @property
    def contradicted(self) -> list[str]:
        """Return the notifications with two different answers, those included that came too late to count."""
        answers = {
            question.request_uid: {each.approved for each in (question.answer, *question.ignored) if each is not None}
            for question in self.questions
        }
        return [uid for uid, given in answers.items() if len(given) > 1]

    @property
    def outcomes(self) -> Counter[str]:
        """Return how many deliveries ended how."""
        return Counter(line["kind"] for line in self.diary if line["what"] == "outcome")

    def story(self, uids: Sequence[str]) -> str:
        """Return what is known about notifications, for the message of a failed test."""
        lines = [f"seed {self.seed}", str(self)]
        lines += [f"replica {replica}: {fault}" for replica, fault in self.faults.items()]
        uids = uids[:5]
        lines += [f"sent {self.sent[uid]} {uid}" for uid in uids]
        lines += [json.dumps(line) for line in self.diary if line.get("uid") in uids]
        lines += [json.dumps(line) for line in self.diary if line["what"] == "stalled"]
        return "\n".join(lines)

    def __str__(self) -> str:
        slowest = max((question.latency_ms or 0 for question in self.questions), default=0)
        return (
            f"{len(self.questions)} sent, {len(self.delayed)} of them delayed, {len(self.unanswered)} not answered, "
            f"{len(self.contradicted)} with two answers, {len(self.asked_again_for)} asked again for a killed or "
            f"frozen replica, {len(self.asked_twice)} without reason, {len(self.asked_early)} early, "
            f"slowest {slowest} ms; {dict(self.outcomes)}"
        )

    def check(self) -> None:
        """Assert what is promised."""
        assert not self.unanswered, self.story(self.unanswered)
        assert not self.contradicted, self.story(self.contradicted)
        assert not self.asked_twice, self.story(self.asked_twice)
        assert not self.asked_early, self.story(self.asked_early)

    @property
    def shows_something(self) -> bool:
        """Whether the machine ran what it was to run, and somebody was deciding when it was killed or frozen."""
        return len(self.delayed) < len(self.questions) / 2 and (bool(self.asked_again_for) or not self.faults)


def check(
    scenario: Scenario, claims: str, folder: Path, *, meanwhile: Callable[[], None] | None = None, tries: int = 3
) -> None:
    """Run a scenario, and assert what is promised.

    If the machine was too loaded to show anything, it is run again with twice the deadline.

    Args:
        scenario: What is done.
        claims: The URL of the store.
        folder: For the replicas' files.
        meanwhile: As in `run`.
        tries: How often at most.
    """
    for number in range(tries):
        own = folder / str(number)
        own.mkdir()
        report = run(scenario, claims, own, meanwhile=meanwhile)
        print(report)
        report.check()
        if report.shows_something:
            return
        scenario = replace(scenario, deadline=2 * scenario.deadline)
    raise AssertionError(f"this machine is too loaded: {report.story([])}")


def run(
    scenario: Scenario,
    claims: str,
    folder: Path,
    *,
    seed: int | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Report:
    """Run replicas over the store of a URL, and kill and freeze all but one.

    Args:
        scenario: What is done.
        claims: The URL of the store.
        folder: For the replicas' files.
        seed: Of everything that is random here; None takes one at random.
        meanwhile: Called in a thread at half time, such as a restart of the store's server.
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    fake = FakeOptimove(timeout_ms=round(scenario.deadline * 1000))
    diary = folder / "diary"
    diary.touch()
    environment = {
        "OPTIMOVE_API_KEY": fake.api_key,
        "OPTIMOVE_WEBHOOK_SECRET": str(fake.secret),
        "REPLICA_CLAIMS": claims,
        "REPLICA_DIARY": str(diary),
        "REPLICA_RECEIVER": scenario.receiver,
    }
    with (
        served(ASGIApp(OverHTTP(fake))) as environment["OPTIMOVE_BASE_URL"],
        serving(scenario.replicas, environment, folder / "log") as replicas,
    ):
        traffic = Traffic(scenario, fake, replicas, diary, random.Random(seed))
        asyncio.run(traffic.run(meanwhile))
    return judged(seed, traffic, diary)


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that serves the gate."""

    port: int
    pid: int


@contextlib.contextmanager
def serving(count: int, environment: Mapping[str, str], log: Path) -> Iterator[list[Replica]]:
    """Serve replicas of the gate."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        # As in tests.adapters.servers: nobody has to guess when a replica has started, and one that is dead refuses.
        with contextlib.ExitStack() as sockets:
            listeners = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
            for listener in listeners:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ports = [listener.getsockname()[1] for listener in listeners]
            descriptors = [listener.fileno() for listener in listeners]
            launcher = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.replicas.gate", *map(str, descriptors)],
                    cwd=ROOT, env={**os.environ, **environment}, pass_fds=descriptors,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
                )
            )  # fmt: skip
        assert launcher.stdout is not None
        pids = launcher.stdout.readline().split()
        assert len(pids) == count, log.read_text()
        yield [Replica(port, int(pid)) for port, pid in zip(ports, pids, strict=True)]
        # Leaving it closes its standard input, and waits for its end.


def judged(seed: int, traffic: Traffic, diary: Path) -> Report:
    """Return the report of a run that has ended."""
    report = Report(seed, traffic.questions, traffic.faults, list(lines(diary)), traffic.sent)
    unable: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for replica, fault in traffic.faults.items():
        unable[replica].append((fault.began, fault.ended))
    came: dict[str, list[dict[str, Any]]] = defaultdict(list)
    leases: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for line in report.diary:
        if line["what"] == "came":
            came[line["uid"]].append(line)
        elif line["what"] == "stalled":
            unable[line["replica"]].append((line["since"], line["until"]))
        elif line["what"] == "asked":
            report.asked[line["uid"]].append(line)
        elif line["what"] == "leased":
            leases[line["uid"], line["replica"]].append((line["since"], line["since"] + line["lease"]))
        elif line["what"] == "outcome" and line["kind"] == "superseded" and line["replica"] not in traffic.faults:
            report.delayed.add(line["uid"])  # the replica that runs stood still for longer than its lease
    for uid, sent in report.sent.items():
        patience = _DELAY * traffic.scenario.deadline
        due = sent + traffic.scenario.deadline
        if overlap(traffic.stalls, sent, due) > patience or not any(
            line["at"] < sent + patience
            and traffic.runs(line["replica"], sent)
            and overlap(unable[line["replica"]], sent, due) < patience
            for line in came[uid]
        ):
            report.delayed.add(uid)
    outages = [*traffic.outages, *locked(traffic, [line["at"] for line in report.diary if line["what"] == "leased"])]
    for uid, asked in report.asked.items():
        began = traffic.sent.get(uid, 0.0)
        ended = began + traffic.scenario.deadline
        replicas = [line["replica"] for line in asked]
        able = [one for one in replicas if not any(until >= began and since <= ended for since, until in unable[one])]
        is_cut_off = True
        for first, second in itertools.pairwise(asked):
            given = [lease for lease in leases[uid, first["replica"]] if lease[0] < second["at"]]
            since, until = max(given, default=(0.0, 0.0))
            is_cut_off = is_cut_off and overlap(outages, since, until) > 0
            kept = [lease for lease in given if lease == min(given) or not is_lost(lease[0], traffic.outages)]
            if second["at"] < max(kept, default=(0.0, 0.0))[1] - _ROUNDED:
                report.asked_early.append(uid)
        if len(able) > 1 and not is_cut_off:
            report.asked_twice.append(uid)
        elif len(asked) > 1:
            report.asked_again_for.append(uid)
    return report


def is_lost(renewed: float, outages: Sequence[tuple[float, float]]) -> bool:
    """Whether the end of a server may have undone a renewal, which need not be on its disk as the claim must."""
    return any(renewed < began <= renewed + _ON_DISK_SECONDS for began, _ in outages)


def overlap(times: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Return how many seconds of some times are between two moments."""
    return sum(max(0.0, min(until, ended) - max(since, began)) for began, ended in times)


def locked(traffic: Traffic, granted: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield when a replica that was frozen in a transaction kept the store from all: none got a lease until it went on.

    Args:
        traffic: What was done.
        granted: When replicas got a lease.
    """
    for fault in traffic.faults.values():
        last = max((at for at in granted if fault.began <= at < fault.ended), default=fault.began)
        if fault.sort == "frozen" and fault.ended - last > traffic.scenario.deadline / 6:
            yield last, fault.ended


def lines(diary: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of the replicas' file."""
    for line in diary.read_text().splitlines():
        yield json.loads(line)


class Traffic:
    """Optimove, and whoever kills its receivers."""

    def __init__(
        self, scenario: Scenario, fake: FakeOptimove, replicas: Sequence[Replica], diary: Path, chance: random.Random
    ) -> None:
        self.scenario = scenario
        self._fake = fake
        self._replicas = replicas
        self._diary = diary
        self._chance = chance
        self._start = 0.0
        self.questions: list[SentNotification] = []
        self.sent: dict[str, float] = {}
        self.stalls: list[tuple[float, float]] = []
        self.outages: list[tuple[float, float]] = []
        self.faults: dict[int, Fault] = {}
        if scenario.sorts:
            victims = chance.sample(range(len(replicas)), len(replicas) - 1)
            for at, victim in enumerate(victims):
                planned = scenario.seconds * (at + chance.uniform(0.3, 1)) / (len(victims) + 0.5)
                # The first is struck while its handler runs, and for longer than its lease; the others at any moment.
                after = scenario.longest * (chance.uniform(0, 0.6) if at == 0 else chance.uniform(0, 1.2))
                frozen_for = scenario.deadline * (0.5 if at == 0 else chance.uniform(0.05, 1.1))
                self.faults[victim] = Fault(chance.choice(scenario.sorts), planned, after, frozen_for)

    async def run(self, meanwhile: Callable[[], None] | None) -> None:
        """Post for a while, and wait until every deadline has passed."""
        watching = asyncio.create_task(stalls(lambda since, until: self.stalls.append((since, until))))
        await asyncio.gather(*(self._warm(replica) for replica in range(len(self._replicas))))
        self._start = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for victim, fault in self.faults.items():
                tasks.create_task(self._strike(victim, fault))
            if meanwhile is not None:
                tasks.create_task(self._half_time(meanwhile))
            for number in range(round(self.scenario.seconds * _RATE)):
                await asyncio.sleep(self._start + number / _RATE - time.monotonic())
                tasks.create_task(self._ask(self._chance.uniform(0, self.scenario.longest)))
        watching.cancel()

    async def _half_time(self, meanwhile: Callable[[], None]) -> None:
        await asyncio.sleep(self.scenario.seconds / 2)
        began = time.monotonic()
        await asyncio.to_thread(meanwhile)
        self.outages.append((began, time.monotonic()))

    async def _warm(self, replica: int) -> None:
        """Wait until a replica has started, and knows how long its notifications are on their way."""
        for _ in range(3):
            payload = notification(timeout_ms=round(_PATIENCE * 1000), personalization={"seconds": 0})
            self._fake.expect(payload)
            await self._post(payload, replica, timeout=_PATIENCE)

    async def _ask(self, seconds: float, first: int | None = None) -> str:
        """Send a notification to two replicas, of which one will run until the deadline; return its name."""
        payload = notification(timeout_ms=round(self.scenario.deadline * 1000), personalization={"seconds": seconds})
        question = self._fake.expect(payload)
        self.questions.append(question)
        now = time.monotonic()
        self.sent[question.request_uid] = now
        replicas = range(len(self._replicas))
        steady = self._chance.choice([each for each in replicas if self._is_steady(each, now) and each != first])
        others = [each for each in replicas if each != steady]
        pair = [self._chance.choice(others) if first is None else first, steady]
        if first is None and self._chance.random() < 0.3:
            pair.reverse()
        gap = self._chance.uniform(0, 0.1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._post(payload, pair[0]))
            await asyncio.sleep(gap)
            tasks.create_task(self._post(payload, pair[1]))
        return question.request_uid

    def runs(self, replica: int, now: float) -> bool:
        """Return whether a replica has run, from a moment to the deadline of what is sent then."""
        fault = self.faults.get(replica)
        return fault is None or fault.ended < now or fault.began > now + self.scenario.deadline

    def _is_steady(self, replica: int, now: float) -> bool:
        fault = self.faults.get(replica)
        if fault is None or fault.ended + 0.5 < now:
            return True
        return self._start + fault.planned - 0.5 > now + self.scenario.deadline

    async def _post(self, payload: dict[str, Any], replica: int, timeout: float | None = None) -> None:
        """Post a notification, and wait for the response; the replica may be dead, or die of this."""
        request = signed_request(payload, secret=self._fake.secret, path="/optimove")
        headers = [*request.headers, (UID, payload["request_uid"]), ("Connection", "close")]
        # By hand, since everything else on the machine has to wait for what this takes.
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(self.scenario.deadline + 0.5 if timeout is None else timeout):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._replicas[replica].port)
                try:
                    writer.write(head("/optimove", *headers) + request.body)
                    await reader.read()
                finally:
                    writer.close()

    async def _strike(self, victim: int, fault: Fault) -> None:
        """Kill or freeze a replica while it decides, or while it answers."""
        await asyncio.sleep(self._start + fault.planned - time.monotonic())
        now = time.monotonic()
        asking = asyncio.create_task(self._ask(self.scenario.longest, victim))
        await self._is_asked(victim, now)
        await asyncio.sleep(fault.after)
        fault.began = time.monotonic()
        pid = self._replicas[victim].pid
        if fault.sort == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(fault.frozen_for)
            os.kill(pid, signal.SIGCONT)
            fault.ended = time.monotonic()
        await asking

    async def _is_asked(self, victim: int, since: float) -> None:
        end = time.monotonic() + self.scenario.deadline
        while time.monotonic() < end:
            if any(line["replica"] == victim and line["what"] == "asked" for line in self._new(since)):
                return
            await asyncio.sleep(0.05)

    def _new(self, since: float) -> Iterator[dict[str, Any]]:
        return (line for line in lines(self._diary) if line["at"] > since)
