# The mgr and mon commands that one share costs, in the operator's order, with nothing in between.
import json
import sys
import time

import rados

filesystem, nfs_cluster, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin")
cluster.connect()


def send(call, prefix, data=b"", **arguments):
    code, out, status = call(json.dumps({"prefix": prefix, "format": "json", **arguments}), data)
    if code not in (0, -2):
        sys.exit(f"{prefix}: {code} {status}")
    return code, out


def mgr(prefix, data=b"", **arguments):
    return send(cluster.mgr_command, prefix, data, **arguments)


def mon(prefix, **arguments):
    return send(cluster.mon_command, prefix, **arguments)


def place(name):
    return {"vol_name": filesystem, "group_name": "shoal", "sub_name": name}


def create(name):
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume info", **place(name))
    mgr(
        "fs subvolume create",
        **place(name),
        size=1 << 30,
        mode="0755",
        uid=0,
        gid=0,
        namespace_isolated=True,
    )
    mgr("fs subvolume metadata set", **place(name), key_name="shoal.storage/owner", value='{"uid":"bench"}')
    path = json.loads(mgr("fs subvolume info", **place(name))[1])["path"]
    mgr("fs subvolume metadata ls", **place(name))
    if not nfs_cluster:
        mgr("fs subvolume authorized_list", **place(name))
        return
    where = {"cluster_id": nfs_cluster, "pseudo_path": "/" + name}
    mgr("nfs export info", **where)
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume info", **place(name))
    mgr("fs subvolume metadata ls", **place(name))
    mgr("nfs export info", **where)
    export = {
        "pseudo": "/" + name,
        "path": path,
        "access_type": "none",
        "squash": "none",
        "security_label": False,
        "protocols": [4],
        "transports": ["TCP"],
        "fsal": {"name": "CEPH", "fs_name": filesystem},
        "clients": [],
    }
    mgr("nfs export apply", json.dumps(export).encode(), cluster_id=nfs_cluster)
    mgr("nfs export info", **where)


def remove(name):
    for _ in range(2 if nfs_cluster else 1):
        mon("fs get", fs_name=filesystem)
        mgr("fs subvolume info", **place(name))
        mgr("fs subvolume metadata ls", **place(name))
        if nfs_cluster:
            mgr("nfs export info", cluster_id=nfs_cluster, pseudo_path="/" + name)
        else:
            mgr("fs subvolume authorized_list", **place(name))
    if nfs_cluster:
        mgr("nfs export rm", cluster_id=nfs_cluster, pseudo_path="/" + name)
        mgr("nfs export info", cluster_id=nfs_cluster, pseudo_path="/" + name)
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume info", **place(name))
    mgr("fs subvolume metadata ls", **place(name))
    mgr("fs subvolume rm", **place(name))


def timed(work):
    all_times = []
    for n in range(times):
        started = time.monotonic()
        work(f"bare-{n}")
        all_times.append((time.monotonic() - started) * 1e3)
    all_times.sort()
    return " / ".join(f"{all_times[(len(all_times) - 1) * p // 100]:.1f}" for p in (50, 95))


mgr("fs subvolumegroup create", vol_name=filesystem, group_name="shoal", mode="0755")
print(f"| bare commands | 1 | {timed(create)} | – | {timed(remove)} | – | – | – |")
