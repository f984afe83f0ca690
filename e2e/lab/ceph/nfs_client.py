"""One NFSv4 client by libnfs. Reads a request per line, answers each with a line: {"errno": N, ...}, N = 0 for success.

Requests: mount {server, port, path, uid, gid}, write {path, hex}, read {path}, list {path}, mkdir {path}, remove {path}.
"""

import ctypes
import errno
import json
import sys

try:
    lib = ctypes.CDLL("libnfs.so.14")
    BUFFER_LAST = True
except OSError:
    lib = ctypes.CDLL("libnfs.so.16")
    # From libnfs 6 on the buffer comes before its length and the offset.
    BUFFER_LAST = False

pointer, uint64 = ctypes.c_void_p, ctypes.c_uint64


class Entry(ctypes.Structure):
    """The first members of struct nfsdirent."""


Entry._fields_ = [("next", ctypes.POINTER(Entry)), ("name", ctypes.c_char_p)]

lib.nfs_init_context.restype = pointer
lib.nfs_parse_url_dir.restype = pointer
lib.nfs_readdir.restype = ctypes.POINTER(Entry)
lib.nfs_get_error.restype = ctypes.c_char_p

O_WRONLY, O_CREAT, O_TRUNC = 0o1, 0o100, 0o1000
CHUNK = 1 << 20


class Failed(Exception):
    def __init__(self, code):
        # libnfs says of an operation that it gave up after its time-out that it was interrupted.
        self.errno = errno.ETIMEDOUT if code == -errno.EINTR else -code


def check(code):
    if code < 0:
        raise Failed(code)
    return code


class Client:
    def __init__(self):
        self.nfs = pointer(lib.nfs_init_context())

    def mount(self, server, port, path, uid, gid):
        url = f"nfs://server{path}?version=4&nfsport={port}&uid={uid}&gid={gid}"
        # Only for its options: a URL's server cannot be an IPv6 address.
        if not lib.nfs_parse_url_dir(self.nfs, url.encode()):
            raise Failed(-errno.EINVAL)
        lib.nfs_set_timeout(self.nfs, 15000)
        check(lib.nfs_mount(self.nfs, server.encode(), path.encode()))
        return {}

    def opened(self, path, flags):
        handle = pointer()
        check(lib.nfs_open2(self.nfs, path.encode(), flags, 0o644, ctypes.byref(handle)))
        return handle

    def transfer(self, call, handle, buffer, count, offset):
        if BUFFER_LAST:
            return check(call(self.nfs, handle, uint64(offset), uint64(count), buffer))
        return check(call(self.nfs, handle, buffer, ctypes.c_size_t(count), uint64(offset)))

    def write(self, path, hex):
        data = bytes.fromhex(hex)
        try:
            handle = self.opened(path, O_WRONLY | O_CREAT | O_TRUNC)
        except Failed as failed:
            # libnfs creates guarded: over NFSv4 an existing file is in the way.
            if failed.errno != errno.EEXIST:
                raise
            handle = self.opened(path, O_WRONLY | O_TRUNC)
        try:
            done = 0
            while done < len(data):
                part = data[done : done + CHUNK]
                done += self.transfer(lib.nfs_pwrite, handle, part, len(part), done)
            check(lib.nfs_fsync(self.nfs, handle))
        finally:
            closed = lib.nfs_close(self.nfs, handle)
        check(closed)
        return {}

    def read(self, path):
        handle = self.opened(path, 0)
        try:
            data, buffer = b"", ctypes.create_string_buffer(CHUNK)
            while got := self.transfer(lib.nfs_pread, handle, buffer, CHUNK, len(data)):
                data += buffer.raw[:got]
        finally:
            lib.nfs_close(self.nfs, handle)
        return {"hex": data.hex()}

    def list(self, path):
        folder = pointer()
        check(lib.nfs_opendir(self.nfs, path.encode(), ctypes.byref(folder)))
        names = []
        while entry := lib.nfs_readdir(self.nfs, folder):
            names.append(entry.contents.name.decode())
        lib.nfs_closedir(self.nfs, folder)
        return {"names": sorted(n for n in names if n not in (".", ".."))}

    def mkdir(self, path):
        check(lib.nfs_mkdir(self.nfs, path.encode()))
        return {}

    def remove(self, path):
        check(lib.nfs_unlink(self.nfs, path.encode()))
        return {}


client = Client()
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"errno": 0, **getattr(client, request.pop("op"))(**request)}
    except Failed as failed:
        text = lib.nfs_get_error(client.nfs) or b""
        answer = {"errno": failed.errno, "text": text.decode(errors="replace")}
    print(json.dumps(answer), flush=True)
