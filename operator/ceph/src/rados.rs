//! librados and libcephfs, loaded at run time. The only module with unsafe code.
//!
//! Every call here blocks for as long as Ceph likes: no time-out of librados's own is set, because a mgr command that
//! librados has given up on (`rados_mon_op_timeout`) writes its late answer to a stack that is gone, and the process
//! dies (seen with librados 18.2.7 and 20.2.4). Deadlines are kept in [`crate::connection`].

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, NulError, c_char, c_int, c_void},
    io::{self, Write},
    ptr,
    sync::OnceLock,
    time::Duration,
};

use libloading::Library;
use parking_lot::Mutex;
use shoal_domain::grant::Key;

/// `rados_t`, `struct ceph_mount_info *`.
type Handle = *mut c_void;

/// `rados_mon_command` and `rados_mgr_command`: handle, commands and their count, input and its length, then where to
/// put output and status text with their lengths.
type CommandFunction = unsafe extern "C" fn(
    Handle,
    *const *const c_char,
    usize,
    *const c_char,
    usize,
    *mut *mut c_char,
    *mut usize,
    *mut *mut c_char,
    *mut usize,
) -> c_int;

/// `ceph_mds_command`: the same, with the daemon's name after the handle.
type MdsCommandFunction = unsafe extern "C" fn(
    Handle,
    *const c_char,
    *const *const c_char,
    usize,
    *const c_char,
    usize,
    *mut *mut c_char,
    *mut usize,
    *mut *mut c_char,
    *mut usize,
) -> c_int;

type FreeFunction = unsafe extern "C" fn(*mut c_char);

struct Rados {
    create: unsafe extern "C" fn(*mut Handle, *const c_char, *const c_char, u64) -> c_int,
    conf_set: unsafe extern "C" fn(Handle, *const c_char, *const c_char) -> c_int,
    connect: unsafe extern "C" fn(Handle) -> c_int,
    cluster_fsid: unsafe extern "C" fn(Handle, *mut c_char, usize) -> c_int,
    mon_command: CommandFunction,
    mgr_command: CommandFunction,
    buffer_free: FreeFunction,
    shutdown: unsafe extern "C" fn(Handle),
    // Keeps the functions above in memory.
    _library: Library,
}

struct CephFs {
    create_from_rados: unsafe extern "C" fn(*mut Handle, Handle) -> c_int,
    init: unsafe extern "C" fn(Handle) -> c_int,
    mds_command: MdsCommandFunction,
    buffer_free: FreeFunction,
    release: unsafe extern "C" fn(Handle) -> c_int,
    _library: Library,
}

impl Rados {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: loading runs the library's initialisers, which a C library that programs link against is made for.
        // Each type is the one that rados/librados.h declares for the symbol (Ceph 14 and later), and the functions are
        // kept with the library they come from.
        unsafe {
            let library = Library::new("librados.so.2")?;
            Ok(Self {
                create: *library.get("rados_create2")?,
                conf_set: *library.get("rados_conf_set")?,
                connect: *library.get("rados_connect")?,
                cluster_fsid: *library.get("rados_cluster_fsid")?,
                mon_command: *library.get("rados_mon_command")?,
                mgr_command: *library.get("rados_mgr_command")?,
                buffer_free: *library.get("rados_buffer_free")?,
                shutdown: *library.get("rados_shutdown")?,
                _library: library,
            })
        }
    }
}

impl CephFs {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: as for librados; the types are those of cephfs/libcephfs.h.
        unsafe {
            let library = Library::new("libcephfs.so.2")?;
            Ok(Self {
                create_from_rados: *library.get("ceph_create_from_rados")?,
                init: *library.get("ceph_init")?,
                mds_command: *library.get("ceph_mds_command")?,
                buffer_free: *library.get("ceph_buffer_free")?,
                release: *library.get("ceph_release")?,
                _library: library,
            })
        }
    }
}

fn rados() -> Result<&'static Rados, NotConnected> {
    static RADOS: OnceLock<Result<Rados, String>> = OnceLock::new();
    let loaded = RADOS.get_or_init(|| Rados::load().map_err(|error| error.to_string()));
    loaded
        .as_ref()
        .map_err(|error| NotConnected::NoLibrary(error.clone()))
}

fn cephfs() -> Result<&'static CephFs, String> {
    static CEPHFS: OnceLock<Result<CephFs, String>> = OnceLock::new();
    let loaded = CEPHFS.get_or_init(|| CephFs::load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(Clone::clone)
}

/// Ends the process at once: like `std::process::exit`, but without the destructors of the C++ libraries, which would
/// take from under librados's threads what they are using. For the end of a program that had a connection, and perhaps
/// has a command that hangs.
pub fn exit(code: i32) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    drop(io::stdout().flush());
    drop(io::stderr().flush());
    // SAFETY: _exit takes any number and touches nothing of ours.
    unsafe { _exit(code) }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NotConnected {
    /// librados can't be loaded.
    NoLibrary(String),
    /// A setting that librados does not take; its name.
    Setting(&'static str),
    /// librados says no, with this errno.
    Errno(i32),
}

impl From<NulError> for NotConnected {
    fn from(_: NulError) -> Self {
        Self::Setting("a text with a NUL in it")
    }
}

/// What came back for a command.
pub(crate) struct Answer {
    /// 0, or an errno as librados gives it, of either sign.
    pub code: i32,
    /// The output. May hold a key: never printed.
    pub output: Vec<u8>,
    /// Ceph's words on how it went.
    pub message: String,
}

impl Answer {
    fn failed(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            output: Vec::new(),
            message: message.into(),
        }
    }
}

/// Who is to run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// The monitors.
    Monitor,
    /// The active manager.
    Manager,
    /// The metadata server with this global id.
    MetadataServer(u64),
}

/// A connection to a Ceph cluster, open as long as this lives.
pub(crate) struct Cluster {
    rados: &'static Rados,
    handle: Handle,
    mount: Mutex<Option<Mount>>,
}

// SAFETY: a rados_t may be used by any thread and by several at once ("librados is thread-safe", its API documentation).
// The one pointer that is not a rados_t is in `mount`, behind a lock.
unsafe impl Send for Cluster {}
// SAFETY: see Send.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Connects. Reads no file and no keyring; gives up after `timeout` (the one time-out of librados that is sound).
    pub(crate) fn connect(
        mon_host: &str,
        user: &str,
        key: &Key,
        timeout: Duration,
    ) -> Result<Self, NotConnected> {
        let rados = rados()?;
        let cluster = CString::new("ceph")?;
        let name = CString::new(format!("client.{user}"))?;
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: `handle` is valid for a write, both texts end with NUL and are copied by the callee.
        let code = unsafe { (rados.create)(&raw mut handle, cluster.as_ptr(), name.as_ptr(), 0) };
        if code != 0 {
            return Err(NotConnected::Errno(code));
        }
        // From here on its drop shuts the handle down.
        let this = Self {
            rados,
            handle,
            mount: Mutex::new(None),
        };
        let seconds = timeout.as_secs().max(1).to_string();
        let settings = [
            ("mon_host", mon_host),
            ("key", key.reveal()),
            ("keyring", ""),
            ("client_mount_timeout", &seconds),
            // Whatever the cluster's own configuration says; see the top of this file.
            ("rados_mon_op_timeout", "0"),
            // After an outage of the monitors, look for them every 3 to 6 s and not every 30.
            ("mon_client_hunt_interval_max_multiple", "2"),
            ("ms_async_op_threads", "1"),
            ("log_file", ""),
            ("log_to_file", "false"),
            ("log_to_stderr", "false"),
            ("err_to_stderr", "false"),
            ("admin_socket", ""),
        ];
        for (option, value) in settings {
            this.set(option, value)?;
        }
        // SAFETY: the handle is from rados_create2 and not yet connected.
        let code = unsafe { (rados.connect)(this.handle) };
        if code == 0 {
            Ok(this)
        } else {
            Err(NotConnected::Errno(code))
        }
    }

    fn set(&self, option: &'static str, value: &str) -> Result<(), NotConnected> {
        let name = CString::new(option)?;
        let value = CString::new(value).map_err(|_| NotConnected::Setting(option))?;
        // SAFETY: the handle is live, both texts end with NUL and are copied by the callee.
        let code = unsafe { (self.rados.conf_set)(self.handle, name.as_ptr(), value.as_ptr()) };
        if code == 0 {
            Ok(())
        } else {
            Err(NotConnected::Setting(option))
        }
    }

    /// The cluster's id, as the monitors said it last. Sends nothing.
    pub(crate) fn fsid(&self) -> Option<String> {
        let mut text = [0_u8; 64];
        // SAFETY: the handle is connected, and `text` is writable for the length given.
        let code = unsafe { (self.rados.cluster_fsid)(self.handle, text.as_mut_ptr().cast(), text.len()) };
        if code < 0 {
            return None;
        }
        CStr::from_bytes_until_nul(&text)
            .ok()?
            .to_str()
            .ok()
            .map(str::to_owned)
    }

    /// Runs a command and waits for its answer.
    pub(crate) fn command(&self, daemon: Daemon, command: &[u8], input: &[u8]) -> Answer {
        let run = match daemon {
            Daemon::Monitor => self.rados.mon_command,
            Daemon::Manager => self.rados.mgr_command,
            Daemon::MetadataServer(gid) => return self.mds_command(gid, command, input),
        };
        Exchange::new(self.rados.buffer_free).run(command, input, |commands, count, input, length, out| {
            // SAFETY: the handle is connected; the rest is as Exchange::run promises. The call returns only when the
            // command was answered (no time-out is set), so nothing writes to `out` afterwards.
            unsafe {
                run(
                    self.handle,
                    commands,
                    count,
                    input,
                    length,
                    &raw mut out.output,
                    &raw mut out.output_length,
                    &raw mut out.status,
                    &raw mut out.status_length,
                )
            }
        })
    }

    fn mds_command(&self, gid: u64, command: &[u8], input: &[u8]) -> Answer {
        let (cephfs, mount) = match self.mount() {
            Ok(mount) => mount,
            Err(answer) => return answer,
        };
        let Ok(daemon) = CString::new(gid.to_string()) else {
            return Answer::failed(-22, "");
        };
        Exchange::new(cephfs.buffer_free).run(command, input, |commands, count, input, length, out| {
            // SAFETY: the mount is initialised and lives until this Cluster is dropped; `daemon` ends with NUL; the rest
            // is as Exchange::run promises. ceph_mds_command waits without a time-out.
            unsafe {
                (cephfs.mds_command)(
                    mount,
                    daemon.as_ptr(),
                    commands,
                    count,
                    input,
                    length,
                    &raw mut out.output,
                    &raw mut out.output_length,
                    &raw mut out.status,
                    &raw mut out.status_length,
                )
            }
        })
    }

    /// libcephfs's side of this connection, made when first wanted: librados has no command for metadata servers.
    fn mount(&self) -> Result<(&'static CephFs, Handle), Answer> {
        let mut mount = self.mount.lock();
        if let Some(mount) = &*mount {
            return Ok((mount.cephfs, mount.handle));
        }
        let cephfs = cephfs().map_err(|error| Answer::failed(-38, error))?;
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: `handle` is valid for a write and our rados_t is connected; libcephfs takes its settings over and
        // keeps what it needs of it alive itself.
        let code = unsafe { (cephfs.create_from_rados)(&raw mut handle, self.handle) };
        if code != 0 {
            return Err(Answer::failed(code, "libcephfs can't be set up"));
        }
        let made = Mount { cephfs, handle };
        // SAFETY: the handle is fresh from ceph_create_from_rados.
        let code = unsafe { (cephfs.init)(handle) };
        if code != 0 {
            return Err(Answer::failed(code, "libcephfs can't be initialised"));
        }
        *mount = Some(made);
        Ok((cephfs, handle))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First what was made from the rados_t.
        *self.mount.get_mut() = None;
        // SAFETY: the handle is from rados_create2, this is the only place that gives it back, and no command is under
        // way, for a command borrows self.
        unsafe { (self.rados.shutdown)(self.handle) };
    }
}

/// A `struct ceph_mount_info`, initialised and never mounted.
struct Mount {
    cephfs: &'static CephFs,
    handle: Handle,
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: the handle is from ceph_create_from_rados, is not mounted, and is given back only here.
        unsafe { (self.cephfs.release)(self.handle) };
    }
}

/// Where the callee leaves what it allocated.
struct Exchange {
    output: *mut c_char,
    output_length: usize,
    status: *mut c_char,
    status_length: usize,
    free: FreeFunction,
}

impl Exchange {
    /// More than any command that is sent here answers.
    const MAX_OUTPUT: usize = 64 << 20;
    const MAX_STATUS: usize = 4096;

    fn new(free: FreeFunction) -> Self {
        Self {
            output: ptr::null_mut(),
            output_length: 0,
            status: ptr::null_mut(),
            status_length: 0,
            free,
        }
    }

    /// Calls `call` with an array of one NUL-terminated command and its count, with input and its length, and with
    /// self to put the answer in; all of it valid until `call` returns.
    fn run(
        mut self,
        command: &[u8],
        input: &[u8],
        call: impl FnOnce(*const *const c_char, usize, *const c_char, usize, &mut Self) -> c_int,
    ) -> Answer {
        let Ok(command) = CString::new(command) else {
            return Answer::failed(-22, "a NUL in the command");
        };
        let commands = [command.as_ptr()];
        let code = call(
            commands.as_ptr(),
            commands.len(),
            input.as_ptr().cast(),
            input.len(),
            &mut self,
        );
        if self.output_length > Self::MAX_OUTPUT {
            return Answer::failed(-27, "the answer is too large");
        }
        let output = copy(self.output, self.output_length);
        let status = copy(self.status, self.status_length.min(Self::MAX_STATUS));
        Answer {
            code,
            output,
            message: String::from_utf8_lossy(&status).into_owned(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for buffer in [self.output, self.status] {
            if !buffer.is_null() {
                // SAFETY: librados or libcephfs allocated the buffer for us to free with its own function, once.
                unsafe { (self.free)(buffer) };
            }
        }
    }
}

fn copy(start: *const c_char, length: usize) -> Vec<u8> {
    if start.is_null() || length == 0 {
        return Vec::new();
    }
    // SAFETY: called only with a buffer and a length that librados or libcephfs has just set together.
    unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }.to_vec()
}
