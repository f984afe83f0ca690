//! A Kubernetes API server in memory: what Shoal and its users ask of one, and nothing else.
//!
//! Every request and every event of a watch goes through a [`Network`], which delays, refuses and loses them. Time is
//! tokio's, so that a paused clock works, and all randomness is the seed's: equal calls get equal answers. That it answers
//! as the real one does is shown by the suite `api_contract`. Garbage is collected at a time of the seed's, within a minute,
//! and seen so by the next that is asked.
//!
//! Where it is less than the real one: rules in CEL, patterns and bounds of numbers are not looked at; a namespace can't be
//! deleted; nobody is kept out.

mod fields;
mod managers;
mod read;
mod refusal;
mod request;
mod resource;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::{Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_operator::api::READ_TIMEOUT;
use tokio::{sync::oneshot, time::sleep};
use tower::{BoxError, Service};

use self::{refusal::Refusal, request::Request, store::Store, watch::Opened, write::Answer};

/// A server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    store: Mutex<Store>,
    log: Mutex<Vec<Call>>,
    observer: Mutex<Option<Observer>>,
}

/// Is shown each request that has changed something, as it is stored.
type Observer = Box<dyn Fn(&Call) + Send + Sync>;

/// How a server is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of uids and generated names.
    pub seed: u64,
    /// Whether the policy that puts Shoal's finalizer on Shares and ShareAccessRules at birth is installed.
    pub born_held: bool,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Replace,
    Patch,
    Apply,
    Delete,
}

/// One request that reached the server, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it was sent, since the server was made.
    pub at: Duration,
    /// Who sent it.
    pub caller: String,
    /// What it wants.
    pub verb: Verb,
    /// Plural name; what the server does not know keeps its path.
    pub resource: String,
    /// `status`, if it is about that.
    pub subresource: Option<String>,
    /// Empty: of a cluster-scoped resource, or of all namespaces.
    pub namespace: String,
    /// Empty: none was named.
    pub name: String,
    /// Status code. 0: no answer reached the caller, so far.
    pub code: u16,
    /// Whether it changed something.
    pub stored: bool,
}

/// What happens to requests and events on their way. It is asked once for each, in order: one that draws from a seed makes
/// the same of the same. It must not ask the server anything.
pub trait Network: Send + Sync + 'static {
    /// What happens to a request.
    fn request(&self, call: &Call) -> Fate;
    /// How long after it was stored an event reaches a watch. Events of one watch never overtake each other.
    fn lag(&self, resource: &str) -> Duration;
    /// Whether an event is delivered twice.
    fn repeats(&self, _resource: &str) -> bool {
        false
    }
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is served and answered.
    Pass {
        /// How long until it is served.
        there: Duration,
        /// How long the answer then takes.
        back: Duration,
    },
    /// It is answered without being served.
    Refuse {
        /// How long that takes.
        after: Duration,
        /// Status code: 409, 429, 500, 503, 504.
        code: u16,
    },
    /// It is served; the caller waits until its connection counts as broken.
    LoseReply {
        /// How long until it is served.
        there: Duration,
    },
    /// It is never served; the caller waits until its connection counts as broken.
    LoseRequest,
    /// It is served, and the connection breaks.
    BreakReply {
        /// How long until it is served.
        there: Duration,
    },
}

impl ApiServer {
    /// A server with the namespaces `default` and `kube-system`, and no other object.
    pub fn new(options: Options) -> Self {
        let mut store = Store::new(&options);
        for namespace in ["default", "kube-system"] {
            store.add_namespace(namespace);
        }
        Self(Arc::new(Inner {
            store: Mutex::new(store),
            log: Mutex::default(),
            observer: Mutex::default(),
        }))
    }

    /// A client whose every request goes through `network`; in the log it is `caller`. It belongs to the runtime it is
    /// made on.
    pub fn client(&self, caller: &str, network: Arc<dyn Network>) -> Client {
        let connection = Connection {
            server: self.clone(),
            caller: caller.into(),
            network,
        };
        Client::new(connection, "default")
    }

    /// All objects of a resource that can be read as what they are, by namespace and name. Nothing is logged.
    pub fn typed<K: DeserializeOwned + Clone + Send + Sync + 'static>(&self, plural: &str) -> Vec<K> {
        let store = self.store();
        let resources = resource::RESOURCES.iter().filter(|r| r.plural == plural);
        resources
            .flat_map(|resource| store.objects(resource).values())
            .filter_map(|object| object.typed())
            .collect()
    }

    /// All objects of a resource as they are stored, by namespace and name, without `managedFields`. Nothing is logged.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        let store = self.store();
        let resources = resource::RESOURCES.iter().filter(|r| r.plural == plural);
        resources
            .flat_map(|resource| store.objects(resource).values())
            .map(|object| object.value.clone())
            .collect()
    }

    /// Forgets history up to now: a watch from an older version and a page of an older list get 410.
    pub fn compact(&self) {
        self.store().compact();
    }

    /// Breaks every open watch of this caller, or of everybody. Events on their way are lost.
    pub fn cut_watches(&self, caller: Option<&str>) {
        for watch in self.store().watches.values_mut() {
            if caller.is_none_or(|caller| watch.caller == caller) {
                watch.cut();
            }
        }
    }

    /// Shows each request that changes something from now on to this function, once it is stored.
    pub fn observe(&self, observer: impl Fn(&Call) + Send + Sync + 'static) {
        *self.observer() = Some(Box::new(observer));
    }

    fn observer(&self) -> MutexGuard<'_, Option<Observer>> {
        self.0.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests were sent so far.
    pub fn requests(&self) -> usize {
        self.calls().len()
    }

    /// Every request so far, in the order in which they were sent.
    pub fn log(&self) -> Vec<Call> {
        self.calls().clone()
    }

    /// The state, as it is now: what has become due has happened.
    fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.collect();
        store
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a request that has arrived.
    fn serve(&self, call: usize, request: &Request, network: Arc<dyn Network>) -> Response<Body> {
        let mut store = self.store();
        let before = store.version();
        if request.verb == Verb::Watch {
            return match watch::open(&mut store, request, network) {
                Ok(Opened::Watch(id)) => following(self.clone(), id),
                Ok(Opened::Expired(line)) => answered(200, line),
                Err(refusal) => refused(&refusal),
            };
        }
        let answer = match request.verb {
            Verb::Get | Verb::Watch => read::get(&store, request),
            Verb::List => read::list(&mut store, request),
            Verb::Create => write::create(&mut store, request),
            Verb::Replace => write::replace(&mut store, request),
            Verb::Patch => write::merge_patch(&mut store, request),
            Verb::Apply => write::apply(&mut store, request),
            Verb::Delete => write::delete(&mut store, request),
        };
        if store.version() != before {
            drop(store);
            let changed = {
                let call = &mut self.calls()[call];
                call.stored = true;
                call.clone()
            };
            if let Some(observer) = &*self.observer() {
                observer(&changed);
            }
        }
        respond(answer)
    }

    /// Carries a request to the server, and its answer back: whether or not the caller still waits.
    async fn carry(
        self,
        call: usize,
        request: Result<Request, Refusal>,
        network: Arc<dyn Network>,
        fate: Fate,
        caller: oneshot::Sender<Result<Response<Body>, BoxError>>,
    ) {
        let (there, back, breaks) = match fate {
            Fate::Pass { there, back } => (there, Some(back), false),
            Fate::LoseReply { there } => (there, None, false),
            Fate::BreakReply { there } => (there, Some(Duration::ZERO), true),
            Fate::Refuse { after, code } => {
                pass(after).await;
                self.answer(call, caller, Ok(refused(&Refusal::of_code(code))));
                return;
            }
            // The caller is kept waiting by whoever holds the other end.
            Fate::LoseRequest => return,
        };
        pass(there).await;
        let response = match &request {
            Ok(request) => self.serve(call, request, network),
            Err(refusal) => refused(refusal),
        };
        let Some(back) = back else { return };
        pass(back).await;
        self.answer(
            call,
            caller,
            if breaks {
                Err(watch::broken().into())
            } else {
                Ok(response)
            },
        );
    }

    fn answer(
        &self,
        call: usize,
        caller: oneshot::Sender<Result<Response<Body>, BoxError>>,
        response: Result<Response<Body>, BoxError>,
    ) {
        let code = response.as_ref().map_or(0, |response| response.status().as_u16());
        if caller.send(response).is_ok() {
            self.calls()[call].code = code;
        }
    }
}

/// Lets time pass, and nothing else happen if it is none.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn answered(code: u16, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    with_code(code, body.boxed_unsync())
}

fn with_code(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn respond(answer: Answer) -> Response<Body> {
    match answer {
        Ok((code, body)) => answered(code, body),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    answered(refusal.code, refusal.status().to_string())
}

fn following(server: ApiServer, id: u64) -> Response<Body> {
    let frames = watch::body(server, id).map(|line| line.map(http_body::Frame::data));
    with_code(200, StreamBody::new(frames).boxed_unsync())
}

/// One caller's way to the server.
struct Connection {
    server: ApiServer,
    caller: String,
    network: Arc<dyn Network>,
}

impl Service<http::Request<kube::client::Body>> for Connection {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        // A request's body is in memory as a whole.
        let body = match body.collect_bytes().now_or_never() {
            Some(Ok(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
        let request = Request::parse(&self.caller, &parts, body);
        let call = self.describe(&parts, request.as_ref().ok());
        let fate = self.network.request(&call);
        let number = {
            let mut calls = self.server.calls();
            calls.push(call);
            calls.len() - 1
        };
        let (caller, answer) = oneshot::channel();
        let network = self.network.clone();
        tokio::spawn(self.server.clone().carry(number, request, network, fate, caller));
        async {
            let answer = async {
                match answer.await {
                    Ok(response) => response,
                    Err(_) => futures::future::pending().await,
                }
            };
            // As long as the operator's connections are silent before they count as broken.
            let answered = tokio::time::timeout(READ_TIMEOUT, answer).await;
            answered.unwrap_or_else(|_| Err(watch::broken().into()))
        }
        .boxed()
    }
}

impl Connection {
    fn describe(&self, parts: &http::request::Parts, request: Option<&Request>) -> Call {
        let mut call = Call {
            at: self.server.store().elapsed(),
            caller: self.caller.clone(),
            verb: Verb::Get,
            resource: parts.uri.path().to_owned(),
            subresource: None,
            namespace: String::new(),
            name: String::new(),
            code: 0,
            stored: false,
        };
        if let Some(request) = request {
            call.verb = request.verb;
            call.resource.clone_from(&request.resource.plural);
            call.subresource.clone_from(&request.subresource);
            call.namespace.clone_from(&request.namespace);
            call.name.clone_from(&request.name);
        }
        call
    }
}
