//! What is asked for is answered when it was done, and not before.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use kube::ResourceExt;
use shoal_backend::simulated::{Entry, Operation as Method, What};
use shoal_crds::{Share, ShareBackend, condition::types};
use shoal_domain::{condition::is_true, ensure};
use tokio::time::Instant;

use super::{api_server::ApiServer, placing};

/// How long a round waits for shares that can't be verified, less what clocks may differ by.
const LONG: SignedDuration = SignedDuration::from_mins(14);

/// What was asked for, and what was seen since.
#[derive(Default)]
pub struct Requests {
    /// By ShareBackend: what somebody asked for last.
    asked: BTreeMap<String, Request>,
    /// By ShareBackend: what was answered last.
    answered: BTreeMap<String, String>,
    /// By a share's uid: when its storage was looked at last.
    looked: BTreeMap<String, Instant>,
}

struct Request {
    token: String,
    at: Instant,
    /// The shares on it then, by uid.
    of: BTreeSet<String>,
}

impl Requests {
    /// Notes that the storage was asked something.
    pub fn note_call(&mut self, entry: &Entry) {
        if entry.what == What::Called && matches!(entry.operation, Method::Look | Method::Create) {
            self.looked.insert(entry.uid.clone(), Instant::now());
        }
    }

    /// Notes what Shares say after a write. One that has been paused since somebody asked may be taken for paused still.
    pub fn note_shares(&mut self, shares: &[Share]) {
        let exempt = shares.iter().filter(|share| !ensure::is_concerned(share));
        for uid in exempt.filter_map(ResourceExt::uid) {
            for asked in self.asked.values_mut() {
                asked.of.remove(&uid);
            }
        }
    }

    /// Notes what ShareBackends say after a write. A share that was there when somebody asked, and was not looked at before
    /// that was answered, is an error.
    pub fn note_backends(&mut self, backends: &[ShareBackend], shares: &[Share]) -> Result<()> {
        for backend in backends {
            let name = backend.name_any();
            let on_it = |share: &&Share| placing::on(share) == Some(&name) && ensure::is_concerned(share);
            if let Some(token) = ensure::requested(&backend.metadata)
                && self.asked.get(&name).is_none_or(|last| last.token != token)
            {
                let of = shares.iter().filter(on_it).filter_map(ResourceExt::uid).collect();
                let at = Instant::now();
                self.asked.insert(name.clone(), Request { token, at, of });
            }
            let status = backend.status.clone().unwrap_or_default();
            let Some(answer) = status.last_handled_requested_at else {
                continue;
            };
            if self.answered.insert(name.clone(), answer.clone()) == Some(answer.clone()) {
                continue;
            }
            let Some(asked) = self.asked.get(&name).filter(|asked| asked.token == answer) else {
                continue;
            };
            let ensure = status
                .ensure
                .unwrap_or_else(|| unreachable!("an answer without a round"));
            let looked = |uid: &String| self.looked.get(uid).is_some_and(|at| *at >= asked.at);
            let left = shares.iter().filter(on_it).filter_map(ResourceExt::uid);
            let unseen: Vec<_> = left
                .filter(|uid| asked.of.contains(uid) && !looked(uid))
                .collect();
            // Only one that has lasted for long is ended with some left, and says so.
            let has_lasted = ensure
                .finished_at
                .map(|at| at.0.duration_since(ensure.started_at.0));
            let is_long = has_lasted.is_some_and(|time| time >= LONG);
            let may_be_left = if is_long {
                usize::try_from(ensure.failed).unwrap_or_default()
            } else {
                0
            };
            ensure!(
                unseen.len() <= may_be_left,
                "{name} has answered {answer}, and nobody looked at {unseen:?}"
            );
        }
        Ok(())
    }
}

/// Once everything is at rest every request is answered, no share is kept as it is, and what can be mounted is found where the
/// storage has moved.
pub fn at_rest(server: &ApiServer, moved: Option<u8>) -> Result<()> {
    for backend in server.typed::<ShareBackend>("sharebackends") {
        let status = backend.status.clone().unwrap_or_default();
        let requested = ensure::requested(&backend.metadata);
        ensure!(
            ensure::under_way(&status).is_none()
                && (requested.is_none() || requested == status.last_handled_requested_at),
            "a round is not finished: {backend:#?}"
        );
    }
    for share in server.typed::<Share>("shares") {
        let status = share.status.clone().unwrap_or_default();
        let requested = ensure::requested(&share.metadata);
        let is_ready = is_true(&status.conditions, types::READY);
        ensure!(
            !ensure::is_marked(&share) && !is_true(&status.conditions, types::ENSURING),
            "it is being ensured for ever: {share:#?}"
        );
        ensure!(
            !is_ready || requested.is_none() || requested == status.last_handled_requested_at,
            "a request is not answered: {share:#?}"
        );
        let is_there = |path: &str| {
            let now = |number| ["3", "4"].map(|net| format!("192.0.{net}.{number}"));
            moved.is_none_or(|number| now(number).iter().any(|now| path.starts_with(now)))
        };
        ensure!(
            !is_ready
                || status
                    .export_locations
                    .iter()
                    .all(|location| is_there(&location.path)),
            "it is published where the storage was: {share:#?}"
        );
    }
    Ok(())
}
