"""The `interlink` executor: a job becomes a pod on a node, and is followed there until its end.

A sibling of those in `infra.local.executors`: the pod fetches its input and stores its outputs by itself, so there is
no workspace. What is under way is on record before a plugin hears of it: a cluster that was killed finds the pod again,
asks for it first, and creates it only where the plugin knows nothing of it.
"""

import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.database import Database
from infra.local.executors import Ended
from infra.local.executors.process import TIMED_OUT, timed_out
from infra.local.executors.sandbox import SETTING as SANDBOX
from infra.local.interlink import record
from infra.local.interlink.client import Plugin, PluginAway, PluginRefused
from infra.local.interlink.logs import PodLog
from infra.local.interlink.nodes import FILE, Node
from infra.local.interlink.own import OwnPlugin
from infra.local.interlink.pod import CONTAINER, KIT_IMAGE, pod_name, retrieved_pod
from infra.local.interlink.record import Sent
from infra.local.interlink.status import SILENT, Phase, PodState
from infra.local.interlink.sweep import Sweeper
from infra.local.interlink.watch import Watch, Watched
from infra.local.jobs import Job, body
from infra.local.services import Deployed
from infra.local.settings import StoreAddress
from infra.local.workspace import Workspace
from layers.runtime.contract import Exit, InputError

LOST_S = 60.0
"""After how long a pod that its plugin has known, and knows no more, is lost."""
LEFT_OUT = 15
"""How much longer one is waited for that the plugin leaves out of its answers, which some do when they cannot tell."""
UNAVAILABLE = 503
"""A plugin's word for `not now`, which ends nothing."""
NEVER = (400, 413, 422)
"""What says that the pod itself is wrong: the same one would be refused again."""
ONLY_FAILED = re.compile(r"job \S+ ended as FAILED")
"""Our own plugin's words for a status other than 0, which say nothing more than that."""
MEND_AWAY = "start its plugin, the job waits"
KIT = "SUPERVISOR_KIT_IMAGE"

Keys = Callable[[str], tuple[str, str] | None]
"""The S3 keys of an owner, by uid; the administrator's is empty."""


@dataclass(frozen=True)
class Told:
    """Who is told that a pod runs (since when, in Unix seconds), and why it does not."""

    begin: Callable[[float], None]
    waits: Callable[[str], None]


class Interlink:
    """The nodes of one cluster, and its jobs on them; belongs to one event loop."""

    def __init__(
        self,
        data: Path,
        database: Database,
        nodes: Mapping[str, Node],
        store: StoreAddress,
        keys: Keys,
        environ: Mapping[str, str],
        *,
        lost_s: float = LOST_S,
    ) -> None:
        self.nodes = nodes
        self._database = database
        self._store = store
        self._keys = keys
        self._kit = environ.get(KIT) or KIT_IMAGE
        self._confined = environ.get(SANDBOX, "").strip().lower() == "require"
        self._lost_s = lost_s
        self._own = OwnPlugin(data, environ)
        self._plugins = {name: Plugin(node.url or self._own.url) for name, node in nodes.items()}
        self._watches = {name: self._watch(node) for name, node in nodes.items()}
        self._logs: dict[str, PodLog] = {}
        self._sweeper = Sweeper(database, self._plugins.get)
        self._with_pods = record.jobs_with_pods(database.read)

    def start(self) -> None:
        """Delete what an earlier process could not."""
        self._sweeper.start()

    async def close(self) -> None:
        """Follow nothing more; pods go on, and the next start finds them."""
        await self._sweeper.close(patience_s=2.0)
        for watch in self._watches.values():
            await watch.close()
        for plugin in self._plugins.values():
            await plugin.close()
        await self._own.stop()

    def offloads(self, deployed: Deployed) -> bool:
        """Whether the service's jobs go to a node.

        Our own plugin's jobs are processes of this machine, outside the sandbox: what users deploy, and everything
        where the sandbox is required, runs in the cluster as usual, as it does in OSCAR where there is no such node.
        """
        name = deployed.service.interlink_node_name
        if not name:
            return False
        node = self.nodes.get(name)
        return node is None or not node.is_own or not (deployed.tenant or self._confined)

    def is_elsewhere(self, deployed: Deployed) -> bool:
        """Whether the service's jobs run on another machine than this one, as far as that can be known."""
        node = self.nodes.get(deployed.service.interlink_node_name)
        return node is not None and not node.is_own

    def follows(self, deployed: Deployed, job: Job) -> bool:
        """Whether this job runs on a node, or has a pod there from before."""
        return self.offloads(deployed) or job.id in self._with_pods

    def check(self, name: str) -> str:
        """What is wrong with the name of a node, in a sentence; nothing where it is one."""
        if not name or name in self.nodes:
            return ""
        known = ", ".join(sorted(self.nodes))
        return f'"{name}" is no interLink node of this cluster; there is {known} ({FILE} is read at its start)'

    def progress(self, job: Job) -> dict[str, float] | None:
        """What a running job last said of its progress."""
        found = self._logs.get(job.id)
        return found.progress if found else None

    def tidy(self) -> None:
        """Pods may have ended, or lost their jobs."""
        self._sweeper.soon()

    async def ping(self, name: str) -> dict[str, object]:
        """What a node's plugin says of itself; our own is not started for that. Raises PluginAway, PluginRefused."""
        return await self._plugins[name].ping()

    async def run(self, deployed: Deployed, job: Job, log_path: Path, told: Told) -> Ended:
        """One attempt of a job: its pod's whole life, or what is left of it.

        A cancelled `run` leaves the pod where it is; once its job is no longer open, it is deleted.

        Raises InputError where the job can be no pod of its node.
        """
        sent = record.current(self._database.read, job.id)
        fresh = sent is None
        if sent is None:
            sent = await self._put_on_record(deployed, job, log_path)
        node = self._node(sent.pod.node)
        plugin = self._plugins[node.name]
        lines = self._logs[job.id] = PodLog(plugin, sent.pod, log_path, sent.log_start)
        try:
            with self._watches[node.name].watching(sent.pod) as watched:
                attempt = _Attempt(deployed, sent, lines, told, self._lost_s)
                ended = await attempt.follow(watched, self._creator(deployed, job, sent, node), fresh=fresh)
            if ended.code == TIMED_OUT:
                with contextlib.suppress(PluginAway, PluginRefused):
                    await plugin.delete(sent.pod)  # before another attempt begins; the sweeper will say it again
            self._with_pods.discard(job.id)
            return ended
        finally:
            self._logs.pop(job.id, None)
            await lines.close()

    async def _put_on_record(self, deployed: Deployed, job: Job, log_path: Path) -> Sent:
        node = self._node(deployed.service.interlink_node_name)
        submission = 1 + record.submissions(self._database.read, job.id)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        Workspace(log_path, log_path).mark_attempt(job.attempt + 1)
        size = log_path.stat().st_size if log_path.exists() else 0
        sent = Sent(pod_name(job, submission, deployed.owner, node.name), job.id, submission, size)
        await self._database.write(lambda connection: record.add(connection, sent))
        self._with_pods.add(job.id)
        return sent

    def _creator(self, deployed: Deployed, job: Job, sent: Sent, node: Node) -> Callable[[], Awaitable[None]]:
        async def create() -> None:
            keys = self._keys(deployed.tenant)
            if keys is None:
                raise InputError(f"{deployed.owner}: has no keys of the object store any more; sign in again")
            try:
                store = node.store(self._store)
            except ValueError as error:
                raise InputError(str(error)) from None
            event = body(self._database.read, job)
            pod = retrieved_pod(sent.pod, deployed, job, event, store=store, keys=keys, kit=self._kit)
            if node.is_own:
                await self._own.ensure(self._plugins[node.name])
            await self._plugins[node.name].create(pod)

        return create

    def _watch(self, node: Node) -> Watch:
        plugin = self._plugins[node.name]

        async def revive() -> None:
            await self._own.ensure(plugin)

        return Watch(plugin, node.poll_s, revive if node.is_own else None)

    def _node(self, name: str) -> Node:
        if wrong := self.check(name):
            raise InputError(f"interlink_node_name: {wrong}")
        return self.nodes[name]


class _Attempt:
    """One pod, followed."""

    def __init__(self, deployed: Deployed, sent: Sent, lines: PodLog, told: Told, lost_s: float) -> None:
        self._timeout_s = deployed.settings.timeout_s
        self._is_function = "DIOSCAR_FUNCTION" in deployed.variables
        self._node = sent.pod.node
        self._lines = lines
        self._told = told
        self._lost_s = lost_s
        self._known = False
        self._unknown_since: float | None = None
        self._running_since: float | None = None
        self._reason = ""

    async def follow(self, watched: Watched, create: Callable[[], Awaitable[None]], *, fresh: bool) -> Ended:
        """The pod's end. A fresh one is created at once; one from before, where its plugin does not know it."""
        if fresh and (refused := await self._create(create)):
            return refused
        async for look in watched.looks():
            if isinstance(look, PluginAway):
                self._waits(f"the node {self._node} does not answer: {look}; {MEND_AWAY}")
            elif look.phase is Phase.UNKNOWN:
                lost = await self._unknown(look, create)
                if lost:
                    return lost
            else:
                self._known, self._unknown_since = True, None
                if look.phase is Phase.WAITING:
                    self._running_since = None
                    begin = "" if "waits" in look.reason else "waits "
                    self._waits(f"{begin}on the node {self._node}" + (f": {look.reason}" if look.reason else ""))
                else:
                    self._runs(look)
                if look.phase is Phase.ENDED:
                    await self._lines.finish(container=look.container)
                    return self._ended(look)
            if self._is_late():
                await self._lines.finish(patience_s=0.0)
                return timed_out(self._timeout_s)
        raise AssertionError("looks have no end")

    async def _create(self, create: Callable[[], Awaitable[None]]) -> Ended | None:
        try:
            await create()
        except PluginRefused as error:
            if error.status != UNAVAILABLE:
                code = Exit.BAD_INPUT if error.status in NEVER else Exit.FAILED
                return Ended(code, "Refused", f"the node {self._node} does not take the job: {error}")
            self._waits(f"the node {self._node} cannot take jobs now: {error}")
        except PluginAway as error:
            self._waits(f"the node {self._node} does not answer: {error}; {MEND_AWAY}")
        else:
            self._known = True
        return None

    async def _unknown(self, look: PodState, create: Callable[[], Awaitable[None]]) -> Ended | None:
        """The plugin knows nothing of the pod: create it if it never has, and else wait until it must be lost."""
        if not self._known:
            return await self._create(create)
        now = time.monotonic()
        if self._unknown_since is None:
            self._unknown_since = now
        elif now - self._unknown_since > self._lost_s * (LEFT_OUT if look is SILENT else 1):
            message = f"the node {self._node} knows nothing of the job any more, and whether it has ended"
            return Ended(Exit.FAILED, "Lost", message)
        return None

    def _runs(self, look: PodState) -> None:
        if self._running_since is None:
            now = time.time()
            started = look.started if look.started is not None and look.started < now else now
            self._running_since = started
            self._reason = ""
            self._told.begin(started)
            self._lines.follow()
        elif look.started is not None and look.started > self._running_since + 1:
            self._running_since = look.started  # the plugin has had it run again, and nobody has seen it wait

    def _waits(self, reason: str) -> None:
        """Not running, or running and out of sight, which is for the reason only."""
        if reason != self._reason and self._running_since is None:
            self._reason = reason
            self._told.waits(reason)

    def _is_late(self) -> bool:
        if self._timeout_s is None or self._running_since is None:
            return False
        return time.time() - self._running_since > self._timeout_s

    def _succeeded(self) -> Ended:
        """A success, unless the function has said otherwise: OSCAR's own supervisor ends with 0 whatever it ran."""
        error, sentence = self._lines.said() if self._is_function else ("", "")
        if not error:
            return Ended(Exit.DONE)
        codes = {"InputError": Exit.BAD_INPUT, "Checkpointed": Exit.AGAIN}
        return Ended(codes.get(error, Exit.FAILED), error, sentence)

    def _ended(self, look: PodState) -> Ended:
        if look.code == Exit.DONE:
            return self._succeeded()
        error, sentence = self._lines.said()
        if look.container != CONTAINER:
            reason = ": ".join(filter(None, (look.reason or f"ended with status {look.code}", sentence)))
            return Ended(look.code, "Pod", f"the container {look.container} on the node {self._node}: {reason}")
        if error:
            return Ended(look.code, error, sentence)
        said = " ".join(look.reason.split())
        if sentence and (not said or ONLY_FAILED.fullmatch(said)):
            return Ended(look.code, "", f"the script ended with status {look.code}: {sentence}")
        if not said:
            return Ended(look.code, "", f"the script ended with status {look.code}")
        said = f"{said} (status {look.code})" if str(look.code) not in said else said
        return Ended(look.code, "", said + (f"; its last line: {sentence}" if sentence else ""))
