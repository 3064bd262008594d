"""A real HDFS for tests: one NameNode and one DataNode on this machine, reachable through WebHDFS.

    python tools/serve_hdfs.py FOLDER

FOLDER holds all of it (configuration, data, logs); a second start on the same folder finds the data again. When the
servers are ready, prints `HOST PORT` of the NameNode's WebHDFS and serves until SIGTERM or Ctrl-C, or until the
process that started it is gone. The first start of all fetches Hadoop (see `hdfs_install`).

In tests: `with serving(folder) as (host, port)`, or `running(folder)`, whose `Hdfs` can also be killed and restarted.
It listens on 127.0.0.1 only, at free ports; there are no users and no rights. Not for data that matters.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from hdfs_install import InstallError, cache_folder, class_path

HOST = "127.0.0.1"
NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_READY = "http://{host}:{port}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
_PATIENCE = 90.0  # seconds until a start counts as failed
_PORTS = ("rpc", "http", "data", "data_http", "data_ipc")
_JAVA = (
    *("-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.net.preferIPv4Stack=true"),
    *("-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"),  # a seventh of what a start costs
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
)


class StartError(Exception):
    """The servers did not start; the message ends with what they logged."""


class Hdfs:
    """Both servers, on one folder."""

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, object] | None = None) -> None:
        """Install what is missing and write the configuration; nothing runs yet. Raises InstallError.

        `settings` go to hdfs-site.xml; on a folder that has been served before they are ignored.
        """
        self.folder = Path(folder).absolute()
        self._settings = settings or {}
        self._jars = class_path()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports = self._configure()

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        """Of the NameNode's WebHDFS; stays the same over restarts."""
        return self._ports["http"]

    @property
    def data_port(self) -> int:
        """Of the DataNode's web server."""
        return self._ports["data_http"]

    @property
    def pids(self) -> list[int]:
        """NameNode, DataNode."""
        return [process.pid for process in self._processes]

    def start(self) -> None:
        """Start both and wait until they serve. Raises StartError."""
        if not (self.folder / "name" / "current").is_dir():
            self._format()
        self._processes = [self._launch(NAME_NODE), self._launch(DATA_NODE)]
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to both."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []

    def stop(self) -> None:
        """SIGTERM to both; what does not end in ten seconds is killed."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        self.kill()

    def restart(self) -> None:
        """Start again on the same folder and ports, killing what runs."""
        self.kill()
        self.start()

    def administer(self, *arguments: str) -> str:
        """Run `hdfs dfsadmin` with these arguments; what it prints."""
        command = self._java("org.apache.hadoop.hdfs.tools.DFSAdmin", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    # --- files ---------------------------------------------------------------------------------------------------

    def _configure(self) -> dict[str, int]:
        remembered = self.folder / "ports.json"
        if remembered.exists():
            known: dict[str, int] = json.loads(remembered.read_text())
            return known
        for place in ("conf", "logs", "data", "webapps/static/x", "webapps/hdfs/WEB-INF", "webapps/datanode/WEB-INF"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        for application in ("hdfs", "datanode"):
            description = self.folder / "webapps" / application / "WEB-INF" / "web.xml"
            description.write_text('<web-app version="2.4"></web-app>\n')
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        conf = self.folder / "conf"
        (conf / "core-site.xml").write_text(_xml(self._core_site(ports)))
        (conf / "hdfs-site.xml").write_text(_xml({**self._hdfs_site(ports), **self._settings}))
        (conf / "log4j.properties").write_text(_LOGGING)
        (conf / "hadoop-metrics2.properties").write_text("*.period=1\n")  # seconds; /jmx shows what was counted then
        remembered.write_text(json.dumps(ports))
        return ports

    def _core_site(self, ports: dict[str, int]) -> dict[str, object]:
        return {
            "fs.defaultFS": f"hdfs://{HOST}:{ports['rpc']}",
            "hadoop.tmp.dir": self.folder / "data",
            "hadoop.http.staticuser.user": "root",
            # the DataNode is started together with the NameNode, and asks again until that listens
            "ipc.client.connect.retry.interval": 100,
            "ipc.client.connect.max.retries": 600,
        }

    def _hdfs_site(self, ports: dict[str, int]) -> dict[str, object]:
        return {
            "dfs.replication": 1,
            "dfs.namenode.name.dir": f"file://{self.folder}/name",
            "dfs.datanode.data.dir": f"file://{self.folder}/blocks",
            "dfs.namenode.rpc-address": f"{HOST}:{ports['rpc']}",
            "dfs.namenode.http-address": f"{HOST}:{ports['http']}",
            "dfs.datanode.address": f"{HOST}:{ports['data']}",
            "dfs.datanode.http.address": f"{HOST}:{ports['data_http']}",
            "dfs.datanode.ipc.address": f"{HOST}:{ports['data_ipc']}",
            "dfs.datanode.hostname": HOST,
            "dfs.permissions.enabled": "false",
            "dfs.webhdfs.enabled": "true",
            "dfs.heartbeat.interval": 1,
            "dfs.namenode.safemode.extension": 0,
            "dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
            "dfs.namenode.fs-limits.min-block-size": 1024,
            "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": 5,  # writes stall 400 ms without it
            "dfs.client.block.write.locateFollowingBlock.retries": 10,  # doubling: 5 s in all, on a busy machine
        }

    # --- processes -----------------------------------------------------------------------------------------------

    def _java(self, *options: str) -> list[str]:
        path = os.pathsep.join([str(self.folder / "conf"), str(self.folder), *self._jars])
        place = [f"-Dhadoop.log.dir={self.folder / 'logs'}", f"-Dhadoop.home.dir={self.folder}"]
        return ["java", *_JAVA, *place, "-cp", path, *options]

    def _format(self) -> None:
        """A formatted NameNode is the same for all: the first one is kept."""
        kept = cache_folder() / "formatted-3.3.6"
        if not kept.is_dir():
            command = self._java(NAME_NODE, "-format", "-nonInteractive")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StartError(f"formatting failed: {done.stderr[-2000:]}")
            with tempfile.TemporaryDirectory(dir=kept.parent) as work, suppress(OSError):  # another was faster
                shutil.copytree(self.folder / "name", Path(work, "name"))
                Path(work, "name").rename(kept)
            return
        shutil.copytree(kept, self.folder / "name")

    def _launch(self, main: str) -> subprocess.Popen[bytes]:
        """A server that the kernel kills when the thread that started it (so: its process) is gone."""
        log = self.folder / "logs" / f"{main.rpartition('.')[2]}.out"
        with log.open("ab") as output:
            command = ["setpriv", "--pdeathsig", "KILL", *self._java(main)]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not self._ready():
            died = [process.args for process in self._processes if process.poll() is not None]
            if died or time.monotonic() > end:
                raise StartError(f"HDFS did not start in {self.folder}: {self._last_words()}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(_READY.format(host=HOST, port=self.port), timeout=5) as reply:  # noqa: S310
                beans = json.load(reply)["beans"]
        except (OSError, ValueError):
            return False
        return any(bean["NumLiveDataNodes"] >= 1 and bean["FSState"] == "Operational" for bean in beans)

    def _last_words(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.out"))
        return "\n".join(f"{log.name}: …{log.read_text(errors='replace')[-1500:]}" for log in logs)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


_LOGGING = """log4j.rootLogger=WARN,out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n
"""


def _xml(properties: dict[str, object]) -> str:
    lines = [f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items()]
    return "\n".join(['<?xml version="1.0"?>', "<configuration>", *lines, "</configuration>", ""])


@contextmanager
def running(folder: str | os.PathLike[str], settings: Mapping[str, object] | None = None) -> Iterator[Hdfs]:
    """Both servers while the block runs. Raises InstallError, StartError."""
    hdfs = Hdfs(folder, settings)
    hdfs.start()
    try:
        yield hdfs
    finally:
        hdfs.kill()  # an orderly stop takes seconds, and nobody needs it: what was acknowledged survives a kill


@contextmanager
def serving(folder: str | os.PathLike[str]) -> Iterator[tuple[str, int]]:
    """Host and port of WebHDFS while the block runs. Raises InstallError, StartError."""
    with running(folder) as hdfs:
        yield hdfs.host, hdfs.port


def _end(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second one, and `timeout` sends two, would cut the end short
    raise SystemExit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve HDFS on this machine, for tests.")
    parser.add_argument("folder", help="holds everything; is created if absent")
    arguments = parser.parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _end)
    try:
        with serving(arguments.folder) as (host, port):
            print(host, port, flush=True)
            parent = os.getppid()
            while os.getppid() == parent:
                time.sleep(0.2)
    except (InstallError, StartError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
