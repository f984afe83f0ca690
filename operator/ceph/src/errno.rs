//! What an errno from Ceph asks for. Ceph speaks Linux's numbers; its texts are for people and decide nothing.

use shoal_backend::Error;

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EINTR: i32 = 4;
pub(crate) const EIO: i32 = 5;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EFBIG: i32 = 27;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const ENODATA: i32 = 61;
pub(crate) const EOPNOTSUPP: i32 = 95;
pub(crate) const ENOTCONN: i32 = 107;
pub(crate) const ESHUTDOWN: i32 = 108;
pub(crate) const ETIMEDOUT: i32 = 110;

/// A command that was answered with something else than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The command.
    pub prefix: &'static str,
    /// The errno, positive.
    pub errno: i32,
    /// Ceph's words, short; empty for a command whose words may name an identity.
    pub message: String,
}

/// Why a command brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Ceph answered with an errno.
    Rejected(Rejection),
    /// It was not sent, not answered, or not understood.
    Other(Error),
}

impl Fault {
    /// The errno, if Ceph answered with one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Rejected(rejection) => Some(rejection.errno),
            Self::Other(_) => None,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// What an errno means where the command gives it no meaning of its own.
impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let rejection = match fault {
            Fault::Other(error) => return error,
            Fault::Rejected(rejection) => rejection,
        };
        let words = rejection.to_string();
        match rejection.errno {
            // Of the manager's own time-outs nothing is known either.
            ETIMEDOUT => Self::TimedOut(rejection.prefix.into()),
            EACCES => Self::CredentialsRefused(format!("{words}; the user's capabilities do not suffice")),
            EPERM | EEXIST | ENOTDIR | EINVAL | EFBIG | ENAMETOOLONG => Self::Refused(words),
            // What a manager says that has not loaded the module yet, or whose own client was cut off by a failover: trouble
            // of the backend, not of the share.
            EOPNOTSUPP | ENOTCONN | ESHUTDOWN => Self::Unreachable(words),
            _ => Self::Failed(words),
        }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}': {}", self.prefix, name(self.errno))?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

fn name(errno: i32) -> String {
    let name = match errno {
        EPERM => "EPERM",
        ENOENT => "ENOENT",
        EINTR => "EINTR",
        EIO => "EIO",
        EAGAIN => "EAGAIN",
        EACCES => "EACCES",
        EBUSY => "EBUSY",
        EEXIST => "EEXIST",
        ENOTDIR => "ENOTDIR",
        EINVAL => "EINVAL",
        EFBIG => "EFBIG",
        ENAMETOOLONG => "ENAMETOOLONG",
        ENOTEMPTY => "ENOTEMPTY",
        ENODATA => "ENODATA",
        EOPNOTSUPP => "EOPNOTSUPP",
        ENOTCONN => "ENOTCONN",
        ESHUTDOWN => "ESHUTDOWN",
        ETIMEDOUT => "ETIMEDOUT",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use shoal_domain::{Class, Scope};

    use super::*;

    fn error(errno: i32) -> Error {
        Fault::Rejected(Rejection {
            prefix: "fs subvolume info",
            errno,
            message: "words".into(),
        })
        .into()
    }

    #[test]
    fn errnos_have_classes() {
        assert_eq!(error(ETIMEDOUT), Error::TimedOut("fs subvolume info".into()));
        assert!(matches!(error(EACCES), Error::CredentialsRefused(_)));
        for errno in [EOPNOTSUPP, ENOTCONN, ESHUTDOWN] {
            assert_eq!(
                (error(errno).class(), error(errno).scope()),
                (Class::Transient, Scope::Backend),
                "{errno}"
            );
        }
        for errno in [EPERM, EEXIST, ENOTDIR, EINVAL, EFBIG, ENAMETOOLONG] {
            assert_eq!(error(errno).class(), Class::Stalled, "{errno}");
        }
        // 28 ENOSPC, 30 EROFS, 107 ENOTCONN, 108 ESHUTDOWN, 122 EDQUOT
        for errno in [
            ENOENT, EINTR, EIO, EAGAIN, EBUSY, ENOTEMPTY, EOPNOTSUPP, 28, 30, 107, 108, 122, 4711,
        ] {
            assert_eq!(error(errno).class(), Class::Transient, "{errno}");
        }
    }

    #[test]
    fn words_are_for_people() {
        assert_eq!(error(EAGAIN).to_string(), "'fs subvolume info': EAGAIN: words");
        assert_eq!(error(4711).to_string(), "'fs subvolume info': errno 4711: words");
    }
}
