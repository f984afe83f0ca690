//! Etcd is lost: what users had is applied to a new cluster on the same storage, with new uids, while replicas die and commands
//! fail; and an admin says what becomes of the data that waits.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};
use shoal_backend::simulated::{FaultKind, Holdings, Operation as Method};
use shoal_crds::{
    Share, ShareAccessRule,
    condition::{reasons, types},
    names::{FORMER_DATA, START_EMPTY, start_empty},
};
use shoal_domain::owner::Tag;

use super::{
    api_server::ApiServer,
    plan::{BACKENDS, NAMESPACES, TYPES},
};
use crate::{
    holdings::{Altered, Left, subvolume_of},
    world::condition,
};

/// The part of a run, for [`generator`](super::plan::generator), that is about this.
pub const PART: u64 = 109;

/// The part that is about what else is done meanwhile.
pub const BESIDE: u64 = 110;

/// The group that shares are in.
const GROUP: &str = "shoal";

/// What else is done meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Whether all that there was is a neighbour's, which lives.
    pub of_a_neighbour: bool,
    /// Which of [`BACKENDS`] nobody may ask while shares are applied.
    pub away: Option<usize>,
    /// Whether other shares are to have the same data.
    pub has_rivals: bool,
    /// Whether all replicas die when verdicts are carried out in part, and one is taken back before they are there again.
    pub is_taken_back: bool,
}

impl Course {
    /// Draws one.
    pub fn drawn(rng: &mut SmallRng) -> Self {
        let is_away = rng.random_bool(0.3);
        let away = rng.random_range(0..BACKENDS.len());
        let which = rng.random_range(0..10);
        Self {
            of_a_neighbour: which < 2,
            away: is_away.then_some(away),
            has_rivals: (2..6).contains(&which),
            is_taken_back: (6..9).contains(&which),
        }
    }
}

/// Methods that go wrong meanwhile.
pub const METHODS: [Method; 5] = [
    Method::List,
    Method::Tag,
    Method::Look,
    Method::Revoke,
    Method::HandOver,
];
/// How.
pub const WRONG: [FaultKind; 2] = [FaultKind::FailBefore, FaultKind::FailAfter];

/// What there was before.
#[derive(Debug)]
pub struct Former {
    /// What the storage held.
    holdings: Holdings,
    /// Documents of shares and rules, without what a server writes in them.
    pub documents: Vec<Value>,
}

/// Namespace and name of a share.
pub type Name = (String, String);

impl Former {
    /// What users have of a server's objects in Git, and what the storage holds.
    pub fn of(server: &ApiServer, holdings: Holdings) -> Self {
        let bare = |kind: &str, object: &dyn Fn() -> (String, Option<String>, Value)| {
            let (name, namespace, spec) = object();
            json!({
                "apiVersion": "shoal.storage/v1alpha1", "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            })
        };
        let mut documents = Vec::new();
        for share in server.typed::<Share>("shares") {
            if share.metadata.deletion_timestamp.is_none() {
                documents.push(bare("Share", &|| {
                    (share.name_any(), share.namespace(), json!(share.spec))
                }));
            }
        }
        for rule in server.typed::<ShareAccessRule>("shareaccessrules") {
            if rule.metadata.deletion_timestamp.is_none() {
                documents.push(bare("ShareAccessRule", &|| {
                    (rule.name_any(), rule.namespace(), json!(rule.spec))
                }));
            }
        }
        Self { holdings, documents }
    }

    /// What no object owns any more.
    pub fn altered(&self) -> Altered {
        let mut altered = Altered::default();
        let subvolumes = self
            .holdings
            .subvolumes
            .keys()
            .map(|(_, name)| (name.clone(), String::new()));
        let exports = self
            .holdings
            .exports
            .keys()
            .map(|path| (String::new(), path.clone()));
        for (subvolume, pseudo_path) in subvolumes.chain(exports) {
            let key = format!("{subvolume}{pseudo_path}");
            altered.abandoned.insert(
                key,
                Left {
                    subvolume,
                    pseudo_path,
                },
            );
        }
        altered
    }

    /// By a share's name, the data that is tagged with it and was not left behind: file system and subvolume.
    pub fn data(&self) -> BTreeMap<Name, Vec<(String, String)>> {
        let mut data: BTreeMap<Name, Vec<_>> = BTreeMap::new();
        for (place, held) in &self.holdings.subvolumes {
            if let Tag::Owner(owner) = &held.tag
                && owner.left.is_none()
            {
                let name = (owner.namespace.clone(), owner.name.clone());
                data.entry(name).or_default().push(place.clone());
            }
        }
        data
    }

    /// Names of shares that may not be made before somebody says what becomes of their data.
    pub fn names(&self, course: Course) -> BTreeSet<Name> {
        let mut names: BTreeSet<_> = self.data().into_keys().collect();
        names.retain(|_| !course.of_a_neighbour);
        names
    }

    /// Shares that are to have data from before, whoever else is, or may, have it.
    pub fn rivals(&self, course: Course, verdicts: &[(Share, String)], rng: &mut SmallRng) -> Vec<Value> {
        let all = self.holdings.subvolumes.keys().cloned();
        let said = verdicts.iter().filter_map(|(_, verdict)| place_of(verdict));
        let wanted: Vec<_> = match course {
            Course {
                of_a_neighbour: true, ..
            } => all.collect(),
            Course { has_rivals: true, .. } => said.collect(),
            _ => Vec::new(),
        };
        let mut rivals = Vec::new();
        for (number, place) in wanted.into_iter().enumerate() {
            let size = self
                .holdings
                .subvolumes
                .get(&place)
                .and_then(|held| held.size_bytes);
            let (backend_name, subvolume) = place;
            // Nobody is given what lies in another group.
            let group = if rng.random_bool(0.3) { "theirs" } else { GROUP };
            rivals.push(json!({
                "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
                "metadata": {"name": format!("rival-{number}"), "namespace": NAMESPACES[rng.random_range(0..2)]},
                "spec": {
                    "shareTypeName": TYPES[0], "protocol": "CephFS", "size": size.unwrap_or(1 << 30).to_string(),
                    "source": {"existing": {"backendName": backend_name, "handle": format!("{group}/{subvolume}")}},
                },
            }));
        }
        rivals
    }

    /// Compares what came of it, once all is at rest: every share has the data that was said to be its, or none of what was there,
    /// which is as it was. The answer is what has an owner again: keys of [`Former::altered`].
    pub fn check(&self, server: &ApiServer, now: &Holdings) -> Result<Vec<String>> {
        let mut adopted = Vec::new();
        for share in server.typed::<Share>("shares") {
            let has = subvolume_of(&share);
            let on = share
                .status
                .as_ref()
                .and_then(|s| s.backend_name.clone())
                .unwrap_or_default();
            let place = (on, has.clone());
            let verdict = share.annotations().get(FORMER_DATA).cloned();
            let said = match verdict.as_deref() {
                None => share.spec.source.as_ref().map(|s| s.existing.handle.clone()),
                Some(empty) if empty.starts_with(START_EMPTY) => {
                    share.spec.source.as_ref().map(|s| s.existing.handle.clone())
                }
                Some(which) => which.split_once('/').map(|(_, handle)| handle.to_owned()),
            };
            let said = said.and_then(|handle| {
                let (group, subvolume) = handle.split_once('/')?;
                (group == GROUP).then(|| subvolume.to_owned())
            });
            if let Some(was) = self.holdings.subvolumes.get(&place) {
                ensure!(
                    said.as_ref() == Some(&has),
                    "it was given {has}, and said was {said:?}: {share:#?}"
                );
                let is = now.subvolumes.get(&place).map(|held| &held.path);
                ensure!(is == Some(&was.path), "it has other data than before: {share:#?}");
                ensure!(!adopted.contains(&has), "another has the same data: {share:#?}");
                let led_there = self
                    .holdings
                    .exports
                    .iter()
                    .filter(|(_, led)| led.path == was.path);
                adopted.extend(led_there.map(|(pseudo_path, _)| pseudo_path.clone()));
                adopted.push(has);
            }
        }
        for (place, was) in &self.holdings.subvolumes {
            let is = now.subvolumes.get(place).map(|held| &held.path);
            ensure!(
                is == Some(&was.path),
                "{place:?} was removed, or made anew: {is:?}"
            );
        }
        Ok(adopted)
    }
}

/// The data that a verdict names: file system and subvolume. None: the share is made empty.
pub fn place_of(verdict: &str) -> Option<(String, String)> {
    let mut parts = verdict.splitn(3, '/').map(str::to_owned);
    let backend_name = parts.next()?;
    Some((backend_name, parts.nth(1)?))
}

/// What an admin says of each share that waits, drawn: mostly that it has its data.
pub fn verdicts(server: &ApiServer, rng: &mut SmallRng) -> Vec<(Share, String)> {
    let waiting = server.typed::<Share>("shares").into_iter().filter(|share| {
        let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
        condition(conditions, types::READY) == Some(("False", reasons::FORMER_DATA_FOUND))
    });
    let mut verdicts = Vec::new();
    for share in waiting {
        let found = share.status.clone().unwrap_or_default().former_data;
        let one = &found[rng.random_range(0..found.len())];
        let verdict = if rng.random_bool(0.8) {
            format!("{}/{}", one.backend_name, one.handle)
        } else {
            start_empty(&share.uid().unwrap_or_default())
        };
        verdicts.push((share, verdict));
    }
    verdicts
}
