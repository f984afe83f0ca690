"""Ceph's admin. Reads a command per line, answers each with a line: {"errno": N, "out": …}, N = 0 for success.

Requests: mgr {command, input}, mon {command, input}.
"""

import json
import sys

import rados

cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin")
cluster.connect(timeout=30)
for line in sys.stdin:
    request = json.loads(line)
    send = {"mgr": cluster.mgr_command, "mon": cluster.mon_command}[request["op"]]
    command = {"format": "json", **request["command"]}
    code, out, text = send(json.dumps(command), request["input"].encode())
    try:
        out = json.loads(out)
    except ValueError:
        out = out.decode().strip()
    print(json.dumps({"errno": abs(code), "out": out, "text": text}), flush=True)
