# The mgr and mon commands that one share costs, one after the other, with nothing in between. They are those that the
# operator sends, which sends reads side by side.
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


def exported(name):
    if nfs_cluster:
        mgr("nfs export info", cluster_id=nfs_cluster, pseudo_path="/" + name)
    else:
        mgr("fs subvolume authorized_list", **place(name))


def look(name):
    mgr("fs subvolume info", **place(name))
    mgr("fs subvolume metadata ls", **place(name))
    exported(name)


def create(name):
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume metadata ls", **place(name))
    exported(name)
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
    mgr("fs subvolume metadata ls", **place(name))
    path = json.loads(mgr("fs subvolume info", **place(name))[1])["path"]
    if nfs_cluster:
        export(name, path)


def export(name, path):
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume info", **place(name))
    mgr("fs subvolume metadata ls", **place(name))
    exported(name)
    document = {
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
    mgr("nfs export apply", json.dumps(document).encode(), cluster_id=nfs_cluster)
    exported(name)


def remove(name):
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume info", **place(name))
    mgr("fs subvolume metadata ls", **place(name))
    exported(name)
    if nfs_cluster:
        mon("fs get", fs_name=filesystem)
        mgr("fs subvolume metadata ls", **place(name))
        exported(name)
        mgr("nfs export rm", cluster_id=nfs_cluster, pseudo_path="/" + name)
        exported(name)
    mon("fs get", fs_name=filesystem)
    mgr("fs subvolume metadata ls", **place(name))
    mgr("fs subvolume rm", **place(name))


def timed(work):
    all_times = []
    for n in range(times):
        started = time.monotonic()
        work(f"bare-{n}")
        all_times.append((time.monotonic() - started) * 1e3)
    return sorted(all_times)


mgr("fs subvolumegroup create", vol_name=filesystem, group_name="shoal", mode="0755")
print(json.dumps({"make": timed(create), "look": timed(look), "remove": timed(remove)}))
