use shoal_crds::condition::reasons;
use shoal_domain::{Class, Failure, Scope};

/// What a backend answers.
pub type Result<T> = std::result::Result<T, Error>;

/// The ways a backend fails. Messages are for people and never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It can't be reached.
    #[error("the backend can't be reached: {0}")]
    Unreachable(String),
    /// It refused our credentials.
    #[error("the backend refused the credentials: {0}")]
    CredentialsRefused(String),
    /// A command was not answered in time, and may still take effect.
    #[error("'{0}' was not answered in time; it may still take effect")]
    TimedOut(String),
    /// Commands are held until the backend has answered a harmless one.
    #[error("commands are held until {0} answers again")]
    Silent(String),
    /// It is another cluster or file system than the one recorded.
    #[error(
        "expected {expected}, found {found}. Nothing is touched there. If the old storage is gone for good, delete its \
         shares, set spec.abandon on their ShareDeletions, and delete this ShareBackend and create another"
    )]
    Replaced {
        /// What was recorded.
        expected: String,
        /// What answered.
        found: String,
    },
    /// The file system does not exist.
    #[error("the file system '{0}' does not exist")]
    FileSystemNotFound(String),
    /// The NFS cluster does not exist.
    #[error("the NFS cluster '{0}' does not exist")]
    NfsClusterNotFound(String),
    /// The NFS cluster's address is not to be had.
    #[error("the address of NFS cluster '{0}' is not known to Ceph; set spec.ceph.nfs.endpoints")]
    NfsEndpointsUnknown(String),
    /// What is there under our name is another's.
    #[error("{0}")]
    OwnedByAnother(String),
    /// Our pseudo path is another export's.
    #[error("the pseudo path {0} is exported by somebody else")]
    PathTaken(String),
    /// The NFS cluster has as many exports as it can have and gets no other, or more, and none is removed.
    #[error("{0}")]
    TooManyExports(String),
    /// Others' exports on the NFS cluster are of an older Ceph, and this one removes none while they are there.
    #[error("{0}")]
    OutdatedExports(String),
    /// The new size is below what is used.
    #[error("{used_bytes} bytes are used")]
    BelowUsed {
        /// Bytes used.
        used_bytes: u64,
    },
    /// Snapshots stand in the way.
    #[error("it has snapshots that Shoal did not make, {}; remove them first", named(.0))]
    HasSnapshots(Vec<String>),
    /// The subvolume does not exist.
    #[error("the subvolume does not exist")]
    NotFound,
    /// The identity is another namespace's, file system's or tool's.
    #[error("the identity belongs to another namespace, file system or tool; choose another")]
    IdentityNotAvailable,
    /// It is busy, full or in trouble of its own; worth another try.
    #[error("{0}")]
    Failed(String),
    /// It refuses the command as it is; another try is worth little.
    #[error("{0}")]
    Refused(String),
    /// It answered something that can't be understood.
    #[error("answer not understood: {0}")]
    NotUnderstood(String),
}

/// Some of them: a message is no list.
fn named(snapshots: &[String]) -> String {
    const MOST: usize = 5;
    let some = snapshots.iter().take(MOST).map(|name| format!("'{name}'"));
    let some = some.collect::<Vec<_>>().join(", ");
    match snapshots.len() {
        0..=MOST => some,
        all => format!("{some} and {} more", all - MOST),
    }
}

impl Error {
    /// What the error asks for.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Failed(_) | Self::NotUnderstood(_) => {
                Class::Transient
            }
            Self::Silent(_) | Self::TooManyExports(_) | Self::OutdatedExports(_) | Self::HasSnapshots(_) => {
                Class::Waiting
            }
            Self::CredentialsRefused(_)
            | Self::Replaced { .. }
            | Self::FileSystemNotFound(_)
            | Self::NfsClusterNotFound(_)
            | Self::NfsEndpointsUnknown(_)
            | Self::BelowUsed { .. }
            | Self::Refused(_) => Class::Stalled,
            Self::OwnedByAnother(_) | Self::PathTaken(_) | Self::IdentityNotAvailable => Class::Conflict,
            Self::NotFound => Class::Gone,
        }
    }

    /// Whose trouble it is.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Unreachable(_)
            | Self::CredentialsRefused(_)
            | Self::TimedOut(_)
            | Self::Silent(_)
            | Self::Replaced { .. }
            | Self::FileSystemNotFound(_)
            | Self::NfsClusterNotFound(_)
            | Self::NfsEndpointsUnknown(_) => Scope::Backend,
            _ => Scope::Object,
        }
    }

    /// The condition reason, event reason and metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => reasons::BACKEND_UNREACHABLE,
            Self::CredentialsRefused(_) => reasons::BACKEND_CREDENTIALS_REFUSED,
            Self::TimedOut(_) => reasons::COMMAND_TIMED_OUT,
            Self::Silent(_) => reasons::BACKEND_SILENT,
            Self::Replaced { .. } => reasons::BACKEND_REPLACED,
            Self::FileSystemNotFound(_) => reasons::FILE_SYSTEM_NOT_FOUND,
            Self::NfsClusterNotFound(_) => reasons::NFS_CLUSTER_NOT_FOUND,
            Self::NfsEndpointsUnknown(_) => reasons::NFS_ENDPOINTS_UNKNOWN,
            Self::OwnedByAnother(_) => reasons::OWNED_BY_ANOTHER,
            Self::PathTaken(_) => reasons::EXPORT_PATH_TAKEN,
            Self::TooManyExports(_) => reasons::TOO_MANY_EXPORTS,
            Self::OutdatedExports(_) => reasons::OUTDATED_EXPORTS,
            Self::BelowUsed { .. } => reasons::SHRINK_BELOW_USED,
            Self::HasSnapshots(_) => reasons::HAS_SNAPSHOTS,
            Self::NotFound => reasons::VOLUME_MISSING,
            Self::IdentityNotAvailable => reasons::IDENTITY_NOT_AVAILABLE,
            Self::Failed(_) | Self::Refused(_) | Self::NotUnderstood(_) => reasons::BACKEND_ERROR,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            class: error.class(),
            scope: error.scope(),
            reason: error.reason(),
            message: error.to_string(),
        }
    }
}
