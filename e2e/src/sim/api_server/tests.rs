//! What no client can ask of a real server: losses, delays, forgetting, and the same of the same seed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use shoal_crds::{ShareBackend, ShareType};
use tokio::time::{Instant, timeout};

use super::{ApiServer, Call, Fate, Network, Options, READ_TIMEOUT, Verb};

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

/// Fates and lags as they were told, and then calm.
#[derive(Default)]
struct Told {
    fates: Mutex<VecDeque<Fate>>,
    lags: Mutex<VecDeque<Duration>>,
    repeats: bool,
}

impl Told {
    fn fates(fates: impl IntoIterator<Item = Fate>) -> Arc<Self> {
        let told = Self::default();
        told.fates.lock().unwrap().extend(fates);
        Arc::new(told)
    }

    fn lags(lags: impl IntoIterator<Item = Duration>) -> Arc<Self> {
        let told = Self::default();
        told.lags.lock().unwrap().extend(lags);
        Arc::new(told)
    }
}

impl Network for Told {
    fn request(&self, _: &Call) -> Fate {
        let calm = Fate::Pass {
            there: NOW,
            back: NOW,
        };
        self.fates.lock().unwrap().pop_front().unwrap_or(calm)
    }

    fn lag(&self, _: &str) -> Duration {
        self.lags.lock().unwrap().pop_front().unwrap_or(NOW)
    }

    fn repeats(&self, _: &str) -> bool {
        self.repeats
    }
}

fn server() -> ApiServer {
    ApiServer::new(Options {
        seed: 7,
        born_held: false,
    })
}

fn types(client: Client) -> Api<ShareType> {
    Api::all(client)
}

async fn create(api: &Api<ShareType>, name: &str) -> kube::Result<ShareType> {
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {}})).unwrap();
    api.create(&PostParams::default(), &object).await
}

async fn label(api: &Api<ShareType>, name: &str, value: &str) -> ShareType {
    let patch = json!({"metadata": {"labels": {"a": value}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap()
}

/// Name and version of the next event's object.
async fn next(
    events: &mut (impl Stream<Item = kube::Result<WatchEvent<ShareType>>> + Unpin),
) -> (String, String) {
    match events.next().await.unwrap().unwrap() {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            (object.name_any(), object.resource_version().unwrap())
        }
        WatchEvent::Bookmark(bookmark) => (String::new(), bookmark.metadata.resource_version),
        WatchEvent::Error(status) => (status.reason, String::new()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_is_served_though_nobody_waits() {
    let server = server();
    let late = Fate::Pass {
        there: 3 * SECOND,
        back: SECOND,
    };
    let api = types(server.client("a", Told::fates([late])));
    assert!(timeout(SECOND, create(&api, "t")).await.is_err());
    assert!(server.objects("sharetypes").is_empty());
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(server.objects("sharetypes").len(), 1);
    let call = server.log().remove(0);
    assert_eq!((call.verb, call.code, call.stored), (Verb::Create, 0, true));
    assert_eq!(
        (call.caller.as_str(), call.resource.as_str()),
        ("a", "sharetypes")
    );
}

#[tokio::test(start_paused = true)]
async fn every_fate_does_what_it_says() {
    let server = server();
    let began = Instant::now();
    let api = types(server.client(
        "a",
        Told::fates([
            Fate::Pass {
                there: SECOND,
                back: 2 * SECOND,
            },
            Fate::Refuse {
                after: SECOND,
                code: 429,
            },
            Fate::BreakReply { there: SECOND },
            Fate::LoseReply { there: SECOND },
            Fate::LoseRequest,
        ]),
    ));
    create(&api, "passed").await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);
    let refused = create(&api, "refused").await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 429));
    assert!(matches!(
        create(&api, "broken").await,
        Err(kube::Error::Service(_))
    ));
    for name in ["unheard", "lost"] {
        let asked = Instant::now();
        assert!(matches!(create(&api, name).await, Err(kube::Error::Service(_))));
        assert_eq!(asked.elapsed(), READ_TIMEOUT);
    }
    let names: Vec<_> = server
        .objects("sharetypes")
        .iter()
        .map(|o| o["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["broken", "passed", "unheard"]);
    let log: Vec<_> = server.log().iter().map(|call| (call.code, call.stored)).collect();
    assert_eq!(log, [(201, true), (429, false), (0, true), (0, true), (0, false)]);
}

#[tokio::test(start_paused = true)]
async fn events_lag_and_never_overtake_each_other() {
    let server = server();
    let writer = types(server.client("writer", Arc::new(Told::default())));
    let reader = types(server.client("reader", Told::lags([5 * SECOND, SECOND])));
    let mut events = reader.watch(&WatchParams::default(), "").await.unwrap().boxed();
    let began = Instant::now();
    create(&writer, "a").await.unwrap();
    create(&writer, "b").await.unwrap();
    assert_eq!(next(&mut events).await.0, "a");
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!(next(&mut events).await.0, "b");
    assert_eq!(began.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_event_comes_twice_if_the_network_says_so() {
    let server = server();
    let network = Told {
        repeats: true,
        ..Told::default()
    };
    let api = types(server.client("a", Arc::new(network)));
    let mut events = api.watch(&WatchParams::default(), "").await.unwrap().boxed();
    create(&api, "a").await.unwrap();
    assert_eq!(next(&mut events).await, next(&mut events).await);
    create(&api, "b").await.unwrap();
    assert_eq!(next(&mut events).await.0, "b");
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_breaks_and_can_go_on_where_it_was() {
    let server = server();
    let writer = types(server.client("writer", Arc::new(Told::default())));
    let reader = types(server.client("reader", Told::lags([NOW, SECOND])));
    let mut events = reader.watch(&WatchParams::default(), "").await.unwrap().boxed();
    create(&writer, "a").await.unwrap();
    let (_, version) = next(&mut events).await;
    create(&writer, "on-its-way").await.unwrap();
    server.cut_watches(Some("somebody"));
    server.cut_watches(Some("reader"));
    assert!(events.next().await.unwrap().is_err());
    assert!(events.next().await.is_none());
    let mut events = reader
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    assert_eq!(next(&mut events).await.0, "on-its-way");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_gone() {
    let server = server();
    let api = types(server.client("a", Arc::new(Told::default())));
    let first = create(&api, "a").await.unwrap();
    create(&api, "b").await.unwrap();
    let page = ListParams::default().limit(1);
    let token = api.list(&page).await.unwrap().metadata.continue_.unwrap();
    server.compact();
    let next_page = api.list(&page.continue_token(&token)).await;
    assert!(matches!(next_page, Err(kube::Error::Api(s)) if s.code == 410 && s.reason == "Expired"));
    let old = first.resource_version().unwrap();
    let mut events = api.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    assert_eq!(next(&mut events).await.0, "Expired");
    assert!(events.next().await.is_none());
    let now = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut events = api.watch(&WatchParams::default(), &now).await.unwrap().boxed();
    create(&api, "c").await.unwrap();
    assert_eq!(next(&mut events).await.0, "c");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_never_run_ahead_of_events() {
    let server = server();
    let writer = types(server.client("writer", Arc::new(Told::default())));
    let reader = types(server.client("reader", Told::lags([100 * SECOND])));
    let mut events = reader.watch(&WatchParams::default(), "").await.unwrap().boxed();
    let began = Instant::now();
    create(&writer, "a").await.unwrap();
    let others: Api<ShareBackend> = Api::all(server.client("writer", Arc::new(Told::default())));
    let other =
        serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": {"simulated": {}}})).unwrap();
    let other = others.create(&PostParams::default(), &other).await.unwrap();
    let (name, version) = next(&mut events).await;
    assert_eq!((name.as_str(), began.elapsed()), ("a", 100 * SECOND));
    let (name, bookmark) = next(&mut events).await;
    assert_eq!((name.as_str(), began.elapsed()), ("", 120 * SECOND));
    assert!(bookmark.parse::<u64>().unwrap() > version.parse::<u64>().unwrap());
    assert_eq!(Some(bookmark), other.resource_version());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_nobody_reads_is_over() {
    let server = server();
    let api = types(server.client("a", Arc::new(Told::default())));
    drop(api.watch(&WatchParams::default(), "").await.unwrap());
    tokio::task::yield_now().await;
    assert!(server.store().watches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_calls_get_the_same_answers() {
    let run = async || {
        let server = server();
        let api = types(server.client("a", Arc::new(Told::default())));
        for name in ["a", "b", "c"] {
            create(&api, name).await.unwrap();
            tokio::time::sleep(SECOND).await;
            label(&api, name, "1").await;
        }
        api.delete("b", &DeleteParams::default()).await.unwrap();
        (server.objects("sharetypes"), server.log())
    };
    let (objects, log) = run().await;
    assert_eq!((objects.clone(), log), run().await);
    assert_eq!(objects.len(), 2);
    assert_eq!(
        objects[1]["metadata"]["creationTimestamp"],
        "2026-01-01T00:00:02Z"
    );
    let uid = objects[0]["metadata"]["uid"].as_str().unwrap();
    let shape: Vec<_> = uid.split('-').map(str::len).collect();
    assert_eq!(shape, [8, 4, 4, 4, 12]);
}
