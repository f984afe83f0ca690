//! Where a new share goes: named filters, then a weigher.

use std::collections::BTreeMap;

use shoal_crds::{Protocol, ShareType, condition::reasons};

use crate::{Class, Failure, Scope, identity::Description};

/// A ShareBackend as placement sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself, if it is Ready; else why it is not.
    pub state: Result<Description, Failure>,
}

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The share's type.
    pub share_type: &'a ShareType,
    /// The share's protocol.
    pub protocol: Protocol,
    /// The share's size in bytes.
    pub size_bytes: u64,
}

/// A filter says why a backend is passed over.
type Filter = fn(&Request<'_>, &Candidate) -> Option<String>;

/// In the order in which they are asked; the first one that objects gives the reason.
const FILTERS: [Filter; 4] = [selected_by_type, ready, serves_protocol, has_room];

/// Whether a type selects a backend.
pub fn selects(share_type: &ShareType, name: &str, labels: &BTreeMap<String, String>) -> bool {
    match (&share_type.spec.backend_names, &share_type.spec.backend_selector) {
        (Some(names), _) => names.iter().any(|n| n == name),
        (None, Some(selector)) => selector.matches(labels),
        (None, None) => true,
    }
}

fn selected_by_type(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    (!selects(request.share_type, &candidate.name, &candidate.labels))
        .then(|| "not selected by the type".into())
}

fn ready(_: &Request<'_>, candidate: &Candidate) -> Option<String> {
    candidate
        .state
        .as_ref()
        .err()
        .map(|failure| format!("not ready ({})", failure.reason))
}

fn serves_protocol(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let served = candidate
        .state
        .as_ref()
        .is_ok_and(|d| d.protocols.contains(&request.protocol));
    (!served).then(|| format!("does not serve {}", request.protocol.as_str()))
}

fn has_room(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let free = candidate.state.as_ref().ok()?.free_bytes?;
    // Without the number, which moves all the time: each new message would be a write.
    (free < request.size_bytes).then(|| "has no room for it".into())
}

/// Chooses the backend with the most room among those that no filter objects to; the name decides between equals.
pub fn choose<'a>(request: &Request<'_>, candidates: &'a [Candidate]) -> Result<&'a Candidate, Failure> {
    let mut passed_over = Vec::new();
    let mut best: Option<&Candidate> = None;
    for candidate in candidates {
        match FILTERS.iter().find_map(|filter| filter(request, candidate)) {
            Some(why) => passed_over.push(format!("{}: {why}", candidate.name)),
            None if best.is_none_or(|best| weight(candidate) > weight(best)) => best = Some(candidate),
            None => {}
        }
    }
    best.ok_or_else(|| Failure {
        class: Class::Waiting,
        scope: Scope::Object,
        reason: reasons::NO_BACKEND_FITS,
        message: if passed_over.is_empty() {
            "there is no ShareBackend".into()
        } else {
            passed_over.sort();
            passed_over.join("; ")
        },
    })
}

/// More is better.
fn weight(candidate: &Candidate) -> (u64, std::cmp::Reverse<&str>) {
    let free = candidate
        .state
        .as_ref()
        .ok()
        .and_then(|d| d.free_bytes)
        .unwrap_or(u64::MAX);
    (free, std::cmp::Reverse(&candidate.name))
}
