"""The findings of an examination, and what they mean. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import wal

FORMAT = 1  # of `Report.as_dict`: raised when a key is removed or changes its meaning


class Status(enum.Enum):
    """How a check ended."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"  # the check failed with an error


class Fit(enum.Enum):
    """What the place is fit for."""

    MANY_HOSTS = "many hosts"  # any number of programs on any number of hosts may write
    ONE_MACHINE = "one machine"  # any number of programs of one machine may write
    READ_ONLY = "read only"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Check:
    """A guarantee that is tested."""

    name: str  # stable, for programs
    guarantee: str  # for people
    lost: str  # what happens if it does not hold, and what to do
    needed: bool = True  # whether writing needs it


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check ended."""

    check: Check
    status: Status
    detail: str  # what was done and seen

    def as_dict(self) -> dict[str, Any]:
        return {
            "check": self.check.name,
            "guarantee": self.check.guarantee,
            "status": self.status.value,
            "needed": self.check.needed,
            "detail": self.detail,
            "advice": "" if self.status is Status.HOLDS else self.check.lost,
        }


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """The storage's clock against this machine's."""

    seconds: float  # positive: the storage's clock is ahead
    uncertainty: float  # seconds by which `seconds` may be wrong

    def as_dict(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 3), "uncertainty": round(self.uncertainty, 3)}


@dataclass(slots=True)
class Report:
    """The result of an examination, filled while it runs."""

    url: str  # as the storage reports it, without secrets
    examined: str  # the folder that was examined: `url`, or the nearest above it that exists
    can: wal.Capabilities
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a test cannot see, for people
    round_trips: dict[str, float] = field(default_factory=dict)  # milliseconds, the median
    clock: ClockDifference | None = None  # None: the storage reports no time
    leftover: str = ""  # what could not be removed afterwards

    @property
    def fit(self) -> Fit:
        return judge(self.can, self.findings)

    @property
    def writable(self) -> bool:
        return self.fit in (Fit.MANY_HOSTS, Fit.ONE_MACHINE)

    @property
    def reason(self) -> str:
        """Why it is not fit for writing; "" if it is."""
        if self.writable:
            return ""
        bad = [finding for finding in self.findings if finding.check.needed and finding.status is not Status.HOLDS]
        if bad:
            more = f" (and {len(bad) - 1} more, see below)" if len(bad) > 1 else ""
            if bad[0].status is Status.FAILS:
                return f"it does not hold that {bad[0].check.guarantee}{more}"
            return f"it could not be determined whether {bad[0].check.guarantee}{more}: {bad[0].detail}"
        return self.can.reason

    def as_dict(self) -> dict[str, Any]:
        """JSON: the same keys whatever was found."""
        can = self.can
        return {
            "format": FORMAT,
            "url": self.url,
            "examined": self.examined,
            "fit": self.fit.value,
            "writable": self.writable,
            "reason": self.reason,
            "storage": {
                "filesystem": can.filesystem,
                "writable": can.writable,
                "append_log": can.append_log,
                "slot_log": can.slot_log,
                "fence": can.fence.value,
                "folders": can.folders,
                "attributes": can.attributes,
            },
            "findings": [finding.as_dict() for finding in self.findings],
            "round_trips_ms": {name: round(value, 3) for name, value in self.round_trips.items()},
            "clock": None if self.clock is None else self.clock.as_dict(),
            "notes": self.notes,
            "leftover": self.leftover,
            "error": None,
        }


def failure(reason: str, error: str) -> dict[str, Any]:
    """Like `Report.as_dict`, when nothing could be examined; `error`: the class of the exception."""
    return {
        "format": FORMAT,
        "url": "",  # the URL that was given may hold a password
        "examined": "",
        "fit": Fit.NONE.value,
        "writable": False,
        "reason": reason,
        "storage": None,
        "findings": [],
        "round_trips_ms": {},
        "clock": None,
        "notes": [],
        "leftover": "",
        "error": error,
    }


def judge(can: wal.Capabilities, findings: Sequence[Finding]) -> Fit:
    """What the place is fit for. It is not fit for writing unless every needed guarantee was seen to hold."""
    held = {finding.check.name for finding in findings if finding.status is Status.HOLDS}
    if "reading" not in held:
        return Fit.NONE
    broken = any(finding.check.needed and finding.status is not Status.HOLDS for finding in findings)
    if broken or not can.writable or not (can.append_log or can.slot_log):
        return Fit.READ_ONLY
    return Fit.ONE_MACHINE if can.append_log else Fit.MANY_HOSTS
