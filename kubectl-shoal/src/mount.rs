//! How a share is mounted: one command, one line of fstab, or a PersistentVolume.

use clap::ValueEnum;
use kube::ResourceExt;
use serde_json::{Value, json};
use shoal_crds::{
    AccessLevel, AccessPhase, ExportLocation, Protocol, Share, ShareAccessRule, names::cephx_secret,
};

use crate::{failure::Failure, lists, output};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// What root types on the client
    Command,
    /// A line of /etc/fstab
    Fstab,
    /// A PersistentVolume and its claim, for Pods
    Yaml,
}

/// How it is wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) form: Form,
    /// Where on the client.
    pub(crate) at: &'a str,
    /// By ceph-fuse and not by the kernel.
    pub(crate) fuse: bool,
}

/// In place of an identity that is kept in a Secret.
const HIDDEN: &str = "IDENTITY";
/// Monitors that speak only the newer protocol listen here; the kernel has to be told.
const MSGR2_PORT: &str = ":3300";

/// The rule that `client` means: its name, or whom it lets in. Without one: a rule that is in force, the oldest first.
pub(crate) fn choose<'a>(
    share: &str,
    rules: &'a [ShareAccessRule],
    client: Option<&str>,
) -> Result<Option<&'a ShareAccessRule>, Failure> {
    let Some(client) = client else {
        let in_force = rules.iter().filter(|rule| is_in_force(rule));
        return Ok(in_force.min_by_key(|rule| {
            let made = rule.metadata.creation_timestamp.as_ref();
            (made.map(|time| time.0), rule.name_any())
        }));
    };
    let named = rules.iter().find(|rule| rule.name_any() == client);
    let found = named.or_else(|| rules.iter().find(|rule| identity(rule) == client));
    found.map(Some).ok_or_else(|| {
        Failure::not_found(format!(
            "no rule of Share '{share}' is called, or lets in, '{client}'; its rules: {}",
            lists::names(rules)
        ))
    })
}

/// Whom a rule lets in. Its Secret's business if it has one.
fn identity(rule: &ShareAccessRule) -> String {
    match (&rule.spec.access_to, &rule.spec.access_to_secret_ref) {
        (Some(to), _) => to.clone(),
        (None, Some(_)) => HIDDEN.into(),
        (None, None) => lists::made_identity(rule),
    }
}

fn is_in_force(rule: &ShareAccessRule) -> bool {
    let phase = rule.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(AccessPhase::Active | AccessPhase::QueuedToUpdate))
}

/// Why what [`text`] says does not work yet, if it does not.
pub(crate) fn not_yet(
    share: &Share,
    rule: Option<&ShareAccessRule>,
    rules: &[ShareAccessRule],
) -> Option<String> {
    let name = share.name_any();
    match rule {
        Some(rule) if is_in_force(rule) => None,
        Some(rule) => Some(format!(
            "the rule '{}' is not in force: {}",
            rule.name_any(),
            lists::why(
                rule.status.as_ref().map_or(&[], |s| &s.conditions),
                "it was not looked at yet"
            )
        )),
        None if rules.is_empty() => Some(format!(
            "nobody is let in yet; kubectl shoal access allow {name} CLIENT lets one in"
        )),
        None => Some(format!(
            "nobody is let in yet: none of its rules is in force; kubectl shoal access list {name} says why"
        )),
    }
}

/// The command, line or objects.
pub(crate) fn text(
    share: &Share,
    rule: Option<&ShareAccessRule>,
    wanted: &Wanted<'_>,
) -> Result<String, Failure> {
    let location = preferred(share)?;
    let read_only = rule.is_some_and(|rule| rule.spec.access_level == AccessLevel::ReadOnly);
    match location.protocol {
        Protocol::NFS if wanted.fuse => Err(Failure::refused(format!(
            "Share '{}' is an NFS share, and ceph-fuse mounts CephFS; leave --fuse out",
            share.name_any()
        ))),
        Protocol::NFS => nfs(share, &Nfs::of(&location.path)?, read_only, wanted),
        Protocol::CephFS => {
            let rule = rule.ok_or_else(|| {
                Failure::refused(format!(
                    "native CephFS is mounted with an identity, and nobody is let in to Share '{0}' yet; \
                     kubectl shoal access allow {0} makes one",
                    share.name_any()
                ))
            })?;
            ceph(share, location, rule, read_only, wanted)
        }
    }
}

fn preferred(share: &Share) -> Result<&ExportLocation, Failure> {
    let status = share.status.as_ref();
    let locations = status.map_or(&[][..], |status| &status.export_locations);
    locations
        .iter()
        .find(|l| l.preferred)
        .or(locations.first())
        .ok_or_else(|| {
            Failure::refused(format!(
                "Share '{}' can't be mounted yet: {}",
                share.name_any(),
                lists::why(status.map_or(&[], |s| &s.conditions), "it was not looked at yet")
            ))
        })
}

/// Where and under what: an export location is `host:/path`, with the host as clients of the protocol take it.
fn split(path: &str) -> Result<(&str, &str), Failure> {
    let colon = path.find(":/").ok_or_else(|| {
        Failure::error(format!(
            "the export location '{path}' is not host:/path; is this kubectl-shoal older than the operator?"
        ))
    })?;
    Ok((&path[..colon], &path[colon + 1..]))
}

/// An NFS location in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Nfs<'a> {
    /// An IPv6 address without its brackets.
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
}

impl<'a> Nfs<'a> {
    fn of(location: &'a str) -> Result<Self, Failure> {
        let (endpoint, path) = split(location)?;
        let (host, port) = match endpoint.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => (address, rest.strip_prefix(':')),
            None => match endpoint.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (endpoint, None),
            },
        };
        Ok(Self { host, port, path })
    }

    /// As mount.nfs takes it: the port is an option.
    fn source(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.path)
        } else {
            format!("{}:{}", self.host, self.path)
        }
    }

    /// Clustered NFS serves 4.1 and later.
    fn options(&self) -> Vec<String> {
        let port = self.port.map(|port| format!("port={port}"));
        std::iter::once("vers=4.1".to_owned()).chain(port).collect()
    }
}

fn nfs(share: &Share, nfs: &Nfs<'_>, read_only: bool, wanted: &Wanted<'_>) -> Result<String, Failure> {
    let mut options = nfs.options();
    if wanted.form == Form::Yaml {
        let source = json!({"server": nfs.host, "path": nfs.path, "readOnly": read_only});
        return volume(share, "nfs", &source, &options, read_only);
    }
    options.extend(read_only.then(|| "ro".into()));
    Ok(match wanted.form {
        Form::Fstab => fstab(&nfs.source(), wanted.at, "nfs", options),
        _ => command(&[
            "mount",
            "-t",
            "nfs",
            "-o",
            &options.join(","),
            &nfs.source(),
            wanted.at,
        ]),
    })
}

/// A CephFS location, and who mounts it.
struct Ceph<'a> {
    monitors: &'a str,
    path: &'a str,
    fs_name: &'a str,
    identity: String,
    read_only: bool,
}

fn ceph(
    share: &Share,
    location: &ExportLocation,
    rule: &ShareAccessRule,
    read_only: bool,
    wanted: &Wanted<'_>,
) -> Result<String, Failure> {
    let (monitors, path) = split(&location.path)?;
    let ceph = Ceph {
        monitors,
        path,
        fs_name: &location.metadata.fs_name,
        identity: identity(rule),
        read_only,
    };
    let (secret, namespace) = secret(rule);
    if wanted.form == Form::Yaml {
        let source = json!({
            "driver": "cephfs.csi.ceph.com",
            "volumeHandle": volume_name(share),
            "nodeStageSecretRef": {"name": secret, "namespace": namespace},
            "readOnly": read_only,
            "volumeAttributes": {
                "clusterID": location.metadata.ceph_fsid,
                "fsName": ceph.fs_name,
                "rootPath": path,
                "staticVolume": "true",
            },
        });
        let objects = volume(share, "csi", &source, &[], read_only)?;
        return Ok(format!(
            "# For ceph-csi. clusterID is what its own configuration calls the cluster: the fsid as a rule, Rook's namespace with Rook.\n{objects}"
        ));
    }
    let (key, file, line) = if wanted.fuse {
        let file = format!("/etc/ceph/ceph.client.{}.keyring", ceph.identity);
        (cephx_secret::KEYRING, file.clone(), ceph.by_fuse(&file, wanted))
    } else {
        let file = format!("/etc/ceph/{}.secret", ceph.identity);
        (
            cephx_secret::USER_KEY,
            file.clone(),
            ceph.by_kernel(&file, wanted),
        )
    };
    Ok(secret_hint(rule, &secret, &namespace, key, &file) + &line)
}

impl Ceph<'_> {
    fn by_kernel(&self, secret_file: &str, wanted: &Wanted<'_>) -> String {
        let mut options = vec![
            format!("name={}", self.identity),
            format!("secretfile={secret_file}"),
            format!("fs={}", self.fs_name),
        ];
        options.extend(speaks_msgr2(self.monitors).then(|| "ms_mode=prefer-crc".into()));
        options.extend(self.read_only.then(|| "ro".into()));
        let source = format!("{}:{}", self.monitors, self.path);
        if wanted.form == Form::Fstab {
            fstab(&source, wanted.at, "ceph", options)
        } else {
            command(&[
                "mount",
                "-t",
                "ceph",
                "-o",
                &options.join(","),
                &source,
                wanted.at,
            ])
        }
    }

    fn by_fuse(&self, keyring: &str, wanted: &Wanted<'_>) -> String {
        if wanted.form == Form::Fstab {
            let mut options = vec![
                format!("ceph.id={}", self.identity),
                // Commas part options here, and so can't part monitors.
                format!("ceph.mon_host={}", self.monitors.replace(',', ";")),
                format!("ceph.client_fs={}", self.fs_name),
                format!("ceph.client_mountpoint={}", self.path),
            ];
            options.extend(self.read_only.then(|| "ro".into()));
            return fstab("none", wanted.at, "fuse.ceph", options);
        }
        let mut words = vec!["ceph-fuse", "-m", self.monitors, "--id", &self.identity];
        words.extend(["--keyring", keyring, "--client_fs", self.fs_name, "-r", self.path]);
        words.extend(self.read_only.then_some(["-o", "ro"]).into_iter().flatten());
        words.push(wanted.at);
        command(&words)
    }
}

fn speaks_msgr2(monitors: &str) -> bool {
    monitors.split(',').any(|monitor| monitor.ends_with(MSGR2_PORT))
}

/// Name and namespace of the Secret that has the key. The status says so once the rule is in force.
fn secret(rule: &ShareAccessRule) -> (String, String) {
    let made = rule
        .status
        .as_ref()
        .and_then(|s| s.credentials_secret_ref.as_ref());
    let wanted = || rule.spec.credentials_secret_name.clone();
    let hidden_in = made.and_then(|made| made.namespace.clone());
    let made = made.map(|made| made.name.clone());
    let name = made
        .or_else(wanted)
        .unwrap_or_else(|| format!("{}-cephx", rule.name_any()));
    let namespace = hidden_in.or_else(|| rule.namespace());
    (name, namespace.unwrap_or_default())
}

/// How the key gets to the client without being seen on the way.
fn secret_hint(rule: &ShareAccessRule, secret: &str, namespace: &str, key: &str, file: &str) -> String {
    let hidden = rule.spec.access_to_secret_ref.as_ref().map_or_else(String::new, |to| {
        format!(
            "# {HIDDEN} is in the Secret: kubectl get secret {} -n {namespace} -o jsonpath='{{.data.{}}}' | base64 -d\n",
            to.name,
            to.key.replace('.', "\\.")
        )
    });
    format!(
        "# The key has to be on the client first, in a file that root alone reads:\n# (umask 077; kubectl get secret {secret} -n {namespace} \
         -o jsonpath='{{.data.{key}}}' | base64 -d > {file})\n{hidden}"
    )
}

fn volume_name(share: &Share) -> String {
    format!("shoal-{}", share.uid().unwrap_or_default())
}

/// A PersistentVolume that is nobody's but the share's claim, and that claim.
fn volume(
    share: &Share,
    kind: &str,
    source: &Value,
    options: &[String],
    read_only: bool,
) -> Result<String, Failure> {
    let name = volume_name(share);
    let modes = json!([if read_only {
        "ReadOnlyMany"
    } else {
        "ReadWriteMany"
    }]);
    let size = share
        .status
        .as_ref()
        .and_then(|s| s.size)
        .unwrap_or(share.spec.size);
    let claim = json!({"namespace": share.namespace(), "name": share.name_any()});
    let mut spec = json!({
        "accessModes": modes,
        "capacity": {"storage": size},
        "claimRef": claim,
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
    });
    spec[kind] = source.clone();
    if !options.is_empty() {
        spec["mountOptions"] = json!(options);
    }
    output::yaml(&[
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}),
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": claim,
            "spec": {
                "accessModes": modes,
                "resources": {"requests": {"storage": size}},
                "storageClassName": "",
                "volumeName": name,
            },
        }),
    ])
}

/// Words as a shell takes them.
fn command(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    quoted.join(" ") + "\n"
}

/// A bracket is a pattern to some shells.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `_netdev`: not before there is a network.
fn fstab(source: &str, at: &str, kind: &str, mut options: Vec<String>) -> String {
    options.push("_netdev".into());
    let field = |text: &str| {
        text.replace('\\', "\\134")
            .replace(' ', "\\040")
            .replace('\t', "\\011")
    };
    format!(
        "{} {} {kind} {} 0 0\n",
        field(source),
        field(at),
        field(&options.join(","))
    )
}

#[cfg(test)]
mod tests;
