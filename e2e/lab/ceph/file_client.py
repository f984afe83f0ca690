"""One user of a mounted file system: file_client.py FOLDER UID GID. Reads a request per line, answers each with a line:
{"errno": N, ...}, N = 0 for success.

Requests: write {path, hex}, read {path}, list {path}, mkdir {path}, remove {path}, df {}; paths are inside FOLDER.
"""

import json
import os
import sys

folder, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)


def place(path):
    return os.path.join(folder, path.lstrip("/"))


def write(path, hex):
    file = os.open(place(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(file, bytes.fromhex(hex))
        os.fsync(file)
    finally:
        os.close(file)
    return {}


def read(path):
    with open(place(path), "rb") as file:
        return {"hex": file.read().hex()}


def list_(path):
    return {"names": sorted(os.listdir(place(path)))}


def mkdir(path):
    os.mkdir(place(path))
    return {}


def remove(path):
    os.unlink(place(path))
    return {}


def df():
    stat = os.statvfs(folder)
    return {"total": stat.f_blocks * stat.f_frsize, "free": stat.f_bavail * stat.f_frsize}


operations = {"write": write, "read": read, "list": list_, "mkdir": mkdir, "remove": remove, "df": df}
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"errno": 0, **operations[request.pop("op")](**request)}
    except OSError as failed:
        answer = {"errno": failed.errno, "text": os.strerror(failed.errno)}
    print(json.dumps(answer), flush=True)
