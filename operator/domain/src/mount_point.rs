//! Readable NFS paths: what a share is found under on its NFS cluster.

use shoal_crds::{Share, ShareType, condition::reasons};

use crate::{Class, Failure, Scope, owner::subvolume_name};

/// What comes before a share's own name where its type says nothing of it: then namespaces don't get into each other's way.
const DEFAULT_PREFIX: &str = "{namespace}-";

/// The longest name.
const LONGEST: usize = 255;

/// An NFS cluster, whichever backends export on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NfsCluster {
    /// The storage cluster's id.
    pub fsid: String,
    /// Its id there.
    pub id: String,
}

/// A name on an NFS cluster: one share's at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountPoint {
    /// Where.
    pub on: NfsCluster,
    /// Without the `/` before it.
    pub name: String,
}

impl MountPoint {
    /// As it is recorded of a share, live or deleted; none if it asked for no name.
    pub fn recorded(
        fsid: Option<&String>,
        nfs_cluster_id: Option<&String>,
        name: Option<&String>,
    ) -> Option<Self> {
        Some(Self {
            on: NfsCluster {
                fsid: fsid?.clone(),
                id: nfs_cluster_id?.clone(),
            },
            name: name?.clone(),
        })
    }
}

/// The name that a share of this type gets, with its prefix; none if it asks for none.
pub fn resolve(share: &Share, share_type: &ShareType) -> Result<Option<String>, Failure> {
    let Some(own) = &share.spec.mount_point_name else {
        return Ok(None);
    };
    let names = &share_type.spec.mount_point_name;
    let of_type = share_type.metadata.name.as_deref().unwrap_or_default();
    if !names.enabled {
        return Err(refuse(
            reasons::MOUNT_POINT_NAME_NOT_ALLOWED,
            format!(
                "spec.mountPointName: ShareType '{of_type}' lets its shares have no names of their own; create the Share without '{own}', \
                 or with another type"
            ),
        ));
    }
    let template = names.prefix.as_deref().unwrap_or(DEFAULT_PREFIX);
    let prefix = template
        .replace(
            "{namespace}",
            share.metadata.namespace.as_deref().unwrap_or_default(),
        )
        .replace("{name}", share.metadata.name.as_deref().unwrap_or_default());
    let name = prefix + own;
    let why = if name.len() > LONGEST {
        format!(
            "has {} characters and may have {LONGEST}; choose a shorter one",
            name.len()
        )
    } else if let Some(other) = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-_".contains(*c))
    {
        format!(
            "has '{other}' in it, and may have letters, digits, '-' and '_' alone; leave that out, or ask for another prefix than \
             '{template}' of ShareType '{of_type}'"
        )
    } else if name.starts_with(&subvolume_name("")) {
        format!(
            "begins as the names that Shoal makes itself, with '{}'; choose another, or ask for another prefix than '{template}' of ShareType \
             '{of_type}'",
            subvolume_name("")
        )
    } else {
        return Ok(Some(name));
    };
    Err(refuse(
        reasons::INVALID_MOUNT_POINT_NAME,
        format!("spec.mountPointName: with its prefix it is '{name}', which {why}"),
    ))
}

fn refuse(reason: &'static str, message: String) -> Failure {
    Failure {
        class: Class::Stalled,
        scope: Scope::Object,
        reason,
        message,
    }
}
