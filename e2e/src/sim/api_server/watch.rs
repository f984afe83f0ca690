//! Watches: events on their way to whoever follows a resource.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    ApiServer, Network,
    read::{Selection, shown},
    refusal::Refusal,
    request::Request,
    resource::Resource,
    store::{Object, Store},
};

/// How often an idle watch that wants bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);
/// What is not delivered by then never is.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Something that happened to an object.
#[derive(Clone)]
pub(super) struct Event {
    pub kind: EventKind,
    pub version: u64,
    /// When it was stored.
    pub at: Instant,
    /// As stored; if it was deleted, as it last was.
    pub object: Arc<Object>,
    pub before: Option<Arc<Object>>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// An open watch.
pub(super) struct Watch {
    pub caller: String,
    resource: &'static Resource,
    selection: Selection,
    metadata_only: bool,
    network: Arc<dyn Network>,
    /// Lines on their way, each with the time at which it arrives.
    lines: VecDeque<(Instant, String)>,
    last_arrival: Instant,
    next_bookmark: Option<Instant>,
    end: Instant,
    cut: bool,
    wake: Arc<Notify>,
}

impl Watch {
    /// Whether it is one of this resource, and the event is about something selected: puts it on its way.
    pub fn offer(&mut self, resource: &Resource, event: &Event) {
        if resource.group != self.resource.group || resource.plural != self.resource.plural {
            return;
        }
        let now = event.kind != EventKind::Deleted && self.selection.takes(&event.object.value);
        let before = event
            .before
            .as_ref()
            .is_some_and(|before| self.selection.takes(&before.value));
        let (kind, object) = match (before, now) {
            (false, false) => return,
            (false, true) => ("ADDED", shown(&event.object, self.metadata_only)),
            (true, true) => ("MODIFIED", shown(&event.object, self.metadata_only)),
            // As it was when it was last selected.
            (true, false) => ("DELETED", self.ended(event)),
        };
        let lag = self.network.lag(&resource.plural).min(NEVER);
        self.last_arrival = self.last_arrival.max(event.at + lag);
        let times = if self.network.repeats(&resource.plural) {
            2
        } else {
            1
        };
        for _ in 0..times {
            self.lines.push_back((self.last_arrival, line(kind, &object)));
        }
        self.wake.notify_one();
    }

    fn ended(&self, event: &Event) -> String {
        let last = event.before.as_ref().unwrap_or(&event.object);
        shown(&last.at_version(event.version), self.metadata_only)
    }

    /// Breaks it.
    pub fn cut(&mut self) {
        self.cut = true;
        self.wake.notify_one();
    }

    fn bookmark(&self, version: u64) -> String {
        let (api_version, kind) = if self.metadata_only {
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata")
        } else {
            (self.resource.api_version(), self.resource.kind.as_str())
        };
        let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        line("BOOKMARK", &object.to_string())
    }

    /// What is to be done now, or until when there is nothing.
    fn turn(&mut self, version: u64) -> Turn {
        let now = Instant::now();
        if self.cut {
            return Turn::Break;
        }
        if self.lines.front().is_some_and(|(arrival, _)| *arrival <= now)
            && let Some((_, line)) = self.lines.pop_front()
        {
            return Turn::Send(line);
        }
        if now >= self.end {
            return Turn::End;
        }
        if self.next_bookmark.is_some_and(|due| due <= now) {
            self.next_bookmark = Some(now + BOOKMARK_INTERVAL);
            // One that overtook events would make the client skip them.
            if self.lines.is_empty() {
                return Turn::Send(self.bookmark(version));
            }
        }
        let arrival = self.lines.front().map(|(arrival, _)| *arrival);
        let next = arrival.into_iter().chain(self.next_bookmark).min();
        Turn::Wait(next.map_or(self.end, |next| next.min(self.end)))
    }
}

enum Turn {
    Send(String),
    Break,
    End,
    Wait(Instant),
}

fn line(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

/// Opens a watch. Err: it was refused at once.
pub(super) fn open(
    store: &mut Store,
    request: &Request,
    network: Arc<dyn Network>,
) -> Result<Opened, Refusal> {
    let since = request.number("resourceVersion")?.filter(|version| *version > 0);
    if let Some(version) = since.filter(|version| *version < store.forgotten()) {
        let message = format!("too old resource version: {version} ({})", store.forgotten());
        let status = Refusal::expired(message).status();
        return Ok(Opened::Expired(line("ERROR", &status.to_string())));
    }
    let now = Instant::now();
    let mut watch = Watch {
        caller: request.caller.clone(),
        resource: request.resource,
        selection: Selection::parse(request)?,
        metadata_only: request.metadata_only,
        network,
        lines: VecDeque::new(),
        last_arrival: now,
        next_bookmark: (request.parameter("allowWatchBookmarks") == Some("true"))
            .then(|| now + BOOKMARK_INTERVAL),
        end: now
            + request
                .number("timeoutSeconds")?
                .map_or(NEVER, |seconds| Duration::from_secs(seconds).min(NEVER)),
        cut: false,
        wake: Arc::new(Notify::new()),
    };
    match since {
        Some(version) => {
            for event in store.since(request.resource, version) {
                watch.offer(request.resource, event);
            }
        }
        None => {
            for object in store.objects(request.resource).values() {
                if watch.selection.takes(&object.value) {
                    let shown = shown(object, watch.metadata_only);
                    watch.lines.push_back((now, line("ADDED", &shown)));
                }
            }
        }
    }
    Ok(Opened::Watch(store.add_watch(watch)))
}

/// What came of opening a watch.
pub(super) enum Opened {
    /// Its number.
    Watch(u64),
    /// The one line that the client gets.
    Expired(String),
}

/// The body of a watch's answer; the watch ends with it.
pub(super) fn body(server: ApiServer, id: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(Follower { server, id }), async |follower| {
        let follower = follower?;
        loop {
            let (turn, wake) = {
                let mut store = follower.server.store();
                let version = store.version();
                let watch = store.watches.get_mut(&follower.id)?;
                (watch.turn(version), watch.wake.clone())
            };
            match turn {
                Turn::Send(line) => return Some((Ok(line.into()), Some(follower))),
                Turn::Break => return Some((Err(broken()), None)),
                Turn::End => return None,
                Turn::Wait(until) => tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    })
}

/// A connection that broke.
pub(super) fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke")
}

struct Follower {
    server: ApiServer,
    id: u64,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.server.store().watches.remove(&self.id);
    }
}
