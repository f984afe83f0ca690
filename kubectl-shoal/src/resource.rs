//! What is meant on the command line: `documents`, `share/documents`, `rule/office`.

use std::{fmt, str::FromStr};

use kube::ResourceExt;
use shoal_crds::{AccessType, LockedKind, Protocol, ResourceLock, Share, ShareAccessRule};

use crate::failure::Failure;

/// A Share or a ShareAccessRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: LockedKind,
    pub(crate) name: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("share", text));
        let kind = match kind.to_ascii_lowercase().as_str() {
            "share" | "shares" | "shr" => LockedKind::Share,
            "rule" | "rules" | "shareaccessrule" | "shareaccessrules" | "shacc" => {
                LockedKind::ShareAccessRule
            }
            _ => return Err(format!("'{kind}' can't be locked; write share/NAME or rule/NAME")),
        };
        if name.is_empty() {
            return Err("a name is missing; write share/NAME or rule/NAME".into());
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}'", self.kind.as_str(), self.name)
    }
}

impl Named {
    pub(crate) fn is_held_by(&self, lock: &ResourceLock) -> bool {
        let held = &lock.spec.resource_ref;
        (held.kind, held.name.as_str()) == (self.kind, self.name.as_str())
    }
}

/// How a client of the share is known, and who it is: an address for NFS; for CephFS an identity, or none to have one made.
pub(crate) fn client(
    share: &Share,
    kind: Option<AccessType>,
    to: Option<&str>,
) -> Result<(AccessType, Option<String>), Failure> {
    let kind = kind.unwrap_or(match share.spec.protocol {
        Protocol::NFS => AccessType::IP,
        Protocol::CephFS => AccessType::CephX,
    });
    if kind == AccessType::IP && to.is_none() {
        return Err(Failure::usage(format!(
            "clients of the {} share '{}' are known by their addresses; name one, as in kubectl shoal access allow {} 10.0.0.0/24",
            share.spec.protocol.as_str(),
            share.name_any(),
            share.name_any()
        )));
    }
    Ok((kind, to.map(str::to_owned)))
}

/// The rules that `who` means: the one of that name, else all that let it in.
pub(crate) fn meant<'a>(rules: &'a [ShareAccessRule], who: &str) -> Vec<&'a ShareAccessRule> {
    let named: Vec<_> = rules.iter().filter(|rule| rule.name_any() == who).collect();
    if !named.is_empty() {
        return named;
    }
    rules
        .iter()
        .filter(|rule| crate::lists::client(rule) == who)
        .collect()
}

#[cfg(test)]
mod tests;
