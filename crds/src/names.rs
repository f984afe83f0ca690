//! Names that Shoal writes on objects: finalizer, annotations, labels, field managers, Secret type.

/// Keeps an object until what it stands for is gone from the backend.
pub const FINALIZER: &str = "shoal.storage/cleanup";

/// Marks the ShareType that Shares without `spec.shareTypeName` get, when its value is `"true"`.
pub const DEFAULT_SHARE_TYPE: &str = "shoal.storage/is-default-share-type";

/// On a Share, with any value: Shoal leaves it alone, whatever its spec says. Setting it takes the verb `operate` on shares.
pub const PAUSED: &str = "shoal.storage/paused";

/// On a Share or a ShareBackend: with another value than before, Shoal verifies it, or every Share on it, and mends what is not as
/// it should be. Answered in `status.lastHandledRequestedAt`.
pub const REQUESTED_AT: &str = "shoal.storage/requested-at";

/// On a Share that waits because data of a former Share has its name: what becomes of that. [`START_EMPTY`] with the Share's uid, or what
/// is to be its own, as `backendName/group/subvolume`. Setting it takes the verb `adopt` on shares.
pub const FORMER_DATA: &str = "shoal.storage/former-data";

/// What the value of [`FORMER_DATA`] begins with that leaves the data where it is, and has the Share made empty.
pub const START_EMPTY: &str = "StartEmpty";

/// The value of [`FORMER_DATA`] that has the Share of this uid made empty, and no later one that its manifest is restored as.
pub fn start_empty(uid: &str) -> String {
    format!("{START_EMPTY}/{uid}")
}

/// On what is locked: which locks hold it and why, for people.
pub const LOCKED_BY: &str = "shoal.storage/locked-by";

/// On what the custody namespace holds: the access rule that it is for, as `namespace/name`.
pub const CUSTODY_OF: &str = "shoal.storage/custody-of";

/// On a CustomResourceDefinition of Shoal's, with any value: it may be deleted, and every object of the kind with it.
pub const ALLOW_DELETION: &str = "shoal.storage/allow-deletion";

/// Annotations on a Share that CSI plugins and scripts read: mirrors of status, never secrets.
pub mod annotations {
    /// The preferred export location, as `host:path` (Manila's form).
    pub const EXPORT_LOCATION: &str = "shoal.storage/export-location";
    /// All export locations with their metadata, as JSON.
    pub const EXPORT_LOCATIONS: &str = "shoal.storage/export-locations";
    /// `NFS` or `CephFS`.
    pub const PROTOCOL: &str = "shoal.storage/protocol";
    /// The Ceph file system that holds the share.
    pub const FS_NAME: &str = "shoal.storage/fs-name";
    /// Options a client must mount with, as `fs=<name>` (Manila's `__mount_options`).
    pub const MOUNT_OPTIONS: &str = "shoal.storage/mount-options";
    /// Changes whenever an export location does.
    pub const EXPORT_REVISION: &str = "shoal.storage/export-revision";
}

/// What Shoal itself says of an export location: in its metadata, and beside it.
pub const EXPORT_LOCATION_KEYS: [&str; 4] = ["fsName", "cephFSID", "subvolumePath", "preferred"];

/// Labels.
pub mod labels {
    /// A Secret that access rules may read must carry this label (any value).
    pub const ACCESS: &str = "shoal.storage/access";
    /// On what is locked; its value stands for the locks that hold it.
    pub const LOCKED: &str = "shoal.storage/locked";
    /// On a Share whose exports or access are being made again.
    pub const ENSURING: &str = "shoal.storage/ensuring";
    /// On a ResourceLock whose object is marked as locked; its value is the object's uid.
    pub const ENFORCED: &str = "shoal.storage/enforced";
}

/// Field managers of server-side apply: one per writer, so that every field has one.
pub mod field_managers {
    /// Adds and removes the finalizer.
    pub const FINALIZER: &str = "shoal/finalizer";
    /// Writes the annotations of [`super::annotations`].
    pub const ANNOTATIONS: &str = "shoal/annotations";
    /// Marks what is locked, and locks that are enforced.
    pub const LOCKS: &str = "shoal/locks";
    /// Marks shares that are being ensured.
    pub const ENSURING: &str = "shoal/ensuring";
    /// Writes the Secrets that hold CephX keys, and who may read those in the custody namespace.
    pub const SECRETS: &str = "shoal/secrets";
}

/// A Secret that holds a CephX key made by Shoal, and its keys.
pub mod cephx_secret {
    /// The Secret's type.
    pub const TYPE: &str = "shoal.storage/cephx";
    /// Identity without the `client.` prefix.
    pub const USER_ID: &str = "userID";
    /// The key, base64 as Ceph prints it.
    pub const USER_KEY: &str = "userKey";
    /// Both as a keyring file.
    pub const KEYRING: &str = "keyring";
}

/// Keys of the Secret that a ShareBackend's `connectionSecretRef` names.
pub mod connection_secret {
    /// Monitor addresses, as ceph.conf's `mon_host`.
    pub const MON_HOST: &str = "monHost";
    /// Identity without the `client.` prefix.
    pub const USER_ID: &str = "userID";
    /// The key, base64 as Ceph prints it.
    pub const USER_KEY: &str = "userKey";
}

/// CephX identities that no access rule may name, on any backend.
pub const RESERVED_IDENTITIES: [&str; 8] = ["admin", "client", "ganesha", "mds", "mgr", "mon", "nfs", "osd"];

/// CephX identity that Shoal makes for the access rule with this uid, if the rule names none; or for the rule that the Show lock
/// with this uid hides.
pub fn generated_identity(uid: &str) -> String {
    format!("shoal-{uid}")
}

/// Whether an identity is of the form that [`generated_identity`] makes. No rule may name one: identities of one namespace share
/// a key, and this one's may be hidden.
pub fn is_generated_identity(identity: &str) -> bool {
    identity.strip_prefix("shoal-").is_some_and(|uid| {
        uid.len() == 36 && uid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
    })
}
