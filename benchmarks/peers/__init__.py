"""What Metatree is compared with: others that keep the same promise or do not, and the least that any must do."""

from __future__ import annotations

from benchmarks.peers import deltalake, diskcache, files, floors, icechunk, lmdb, metatree, metatreedb, sqlite
from benchmarks.peers.base import Peer

FAMILIES = (metatree, sqlite, lmdb, diskcache, deltalake, icechunk, metatreedb, files, floors)
PEERS: dict[str, Peer] = {peer.name: peer for family in FAMILIES for peer in family.PEERS}
