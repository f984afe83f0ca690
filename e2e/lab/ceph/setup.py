"""What needs a running monitor: the OSD, two file systems, the NFS cluster and its two Ganeshas.

One process with one connection, because every call of the `ceph` command costs half a second.
"""

import json
import subprocess
import sys
import time

import rados

DEADLINE = time.monotonic() + 120
with open("/lab/names") as names:
    NAMES = dict(line.rstrip("\n").replace("'", "").split("=", 1) for line in names)
NFS_CLUSTER = NAMES["NFS_CLUSTER"]


def say(what):
    print(what, flush=True)


def wait(what, ready):
    while True:
        got = ready()
        if got:
            return got
        if time.monotonic() > DEADLINE:
            sys.exit(f"waited too long for {what}")
        time.sleep(0.05)


def command(send, prefix, arguments):
    rc, out, error = send(json.dumps({"prefix": prefix, "format": "json", **arguments}), b"")
    if rc != 0:
        raise RuntimeError(f"{prefix}: {rc} {error}")
    return json.loads(out) if out.strip() else None


cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin")
cluster.connect(timeout=30)
say("monitor answers")


def mon(prefix, **arguments):
    return command(cluster.mon_command, prefix, arguments)


mon("osd new", uuid=NAMES["OSD_UUID"], id=0)
subprocess.run(["/lab/start", "osd.0"], check=True)


def pool(name, application):
    mon("osd pool create", pool=name, pg_num=8, **({"yes_i_really_mean_it": True} if name.startswith(".") else {}))
    if application:
        mon("osd pool application enable", pool=name, app=application)


for name in NAMES["FILE_SYSTEMS"].split():
    pool(f"{name}.meta", None)
    pool(f"{name}.data", None)
    mon("fs new", fs_name=name, metadata=f"{name}.meta", data=f"{name}.data")
pool(".nfs", "nfs")
say("pools and file systems made")

for standby in NAMES["STANDBY_MGRS"].split():
    subprocess.run(["/lab/start", f"mgr.{standby}"], check=True)
wait("the manager", lambda: mon("mgr stat")["available"])
say("manager available")

wait("the OSD", lambda: mon("osd stat")["num_up_osds"] == 1)
with cluster.open_ioctx(".nfs") as ioctx:
    ioctx.set_namespace(NFS_CLUSTER)
    # mgr/nfs without an orchestrator knows a cluster by this object.
    ioctx.write_full(f"conf-nfs.{NFS_CLUSTER}", b"")
say("OSD serves")

ganeshas = NAMES["GANESHAS"].split()


def grace_members():
    with cluster.open_ioctx(".nfs") as ioctx, rados.ReadOpCtx() as operation:
        ioctx.set_namespace(NFS_CLUSTER)
        members, _ = ioctx.get_omap_vals(operation, "", "", 100)
        try:
            ioctx.operate_read_op(operation, "grace")
        except rados.ObjectNotFound:
            return set()
        return {name for name, _ in members}


def joined():
    # On a busy machine about one call in ten crashes, so what counts is what it left. Adding twice is no error.
    subprocess.run(["ganesha-rados-grace", "--pool", ".nfs", "--ns", NFS_CLUSTER, "add", *ganeshas])
    return grace_members() >= set(ganeshas)


wait("the grace database", joined)
for name in ganeshas:
    subprocess.run(["/lab/start", name], check=True)


def all_active():
    states = [fs["mdsmap"] for fs in mon("fs dump")["filesystems"]]
    return all(i["state"] == "up:active" for m in states for i in m["info"].values() if i["rank"] == 0) and all(
        m["up"] for m in states
    )


wait("both file systems", all_active)
say("both file systems active")


def module_answers(prefix):
    try:
        return command(cluster.mgr_command, prefix, {}) is not None
    except RuntimeError:
        return False


wait("module volumes", lambda: module_answers("fs volume ls"))
wait("module nfs", lambda: module_answers("nfs cluster ls"))
say("modules volumes and nfs answer")


def healthy():
    return mon("health")["status"] == "HEALTH_OK"


wait("HEALTH_OK", healthy)
say("HEALTH_OK")
