//! stub
use std::{sync::Arc, time::Duration};
#[derive(Clone)]
pub struct ApiServer(Arc<()>);
pub struct Options {
    pub seed: u64,
    pub born_held: bool,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub at: Duration,
    pub caller: String,
    pub verb: Verb,
    pub resource: String,
    pub subresource: Option<String>,
    pub namespace: String,
    pub name: String,
    pub code: u16,
    pub stored: bool,
}
pub trait Network: Send + Sync + 'static {
    fn request(&self, call: &Call) -> Fate;
    fn lag(&self, resource: &str) -> Duration;
    fn repeats(&self, _: &str) -> bool {
        false
    }
}
pub enum Fate {
    Pass { there: Duration, back: Duration },
    Refuse { after: Duration, code: u16 },
    LoseReply { there: Duration },
    LoseRequest,
    BreakReply { there: Duration },
}
impl ApiServer {
    pub fn new(_: Options) -> Self {
        todo!()
    }
    pub fn client(&self, _: &str, _: Arc<dyn Network>) -> kube::Client {
        todo!()
    }
    pub fn objects(&self, _: &str) -> Vec<serde_json::Value> {
        todo!()
    }
    pub fn compact(&self) {}
    pub fn cut_watches(&self, _: Option<&str>) {}
    pub fn log(&self) -> Vec<Call> {
        todo!()
    }
    pub fn observe(&self, _: impl Fn(&Call) + Send + Sync + 'static) {}
}
