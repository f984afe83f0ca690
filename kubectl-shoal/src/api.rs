//! What is asked of the API server, and nothing else.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{authentication::v1::SelfSubjectReview, events::v1::Event},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use shoal_crds::{ResourceLock, ShareAccessRule};
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Connection, Wait},
    failure::Failure,
    lists,
    wait::Progress,
};

/// Who wrote it, in the fields' managers.
const MANAGER: &str = "kubectl-shoal";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks, while something is waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// An object that can be read and written.
pub(crate) trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize> Object for K {}

/// The cluster that the kubeconfig names, and a namespace in it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let options = KubeConfigOptions {
            context: connection.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &connection.kubeconfig {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
                Err(error) => Err(error),
            },
            None => Config::from_kubeconfig(&options).await,
        };
        let mut config = match config {
            Ok(config) => config,
            Err(error) if connection.kubeconfig.is_none() && connection.context.is_none() => {
                Config::incluster().map_err(|_| {
                    Failure::error(format!(
                        "the kubeconfig can't be used: {error}; name another with --kubeconfig, or one of its contexts with --context"
                    ))
                })?
            }
            Err(error) => {
                return Err(Failure::error(format!(
                    "the kubeconfig can't be used: {error}; kubectl config get-contexts shows what there is"
                )));
            }
        };
        // Who sees an error tries again, and a lock that is made twice is one too many.
        config.default_retry = false;
        config.read_timeout = Some(PATIENCE);
        config.reset_reader_on_write = true;
        if let Some(user) = &connection.act_as {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = connection.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Failure::of("the kubeconfig", &error))?;
        Ok(Self { client, namespace })
    }

    /// Objects of the namespace.
    pub(crate) fn here<K: Object + Resource<Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        self.within(&self.namespace)
    }

    pub(crate) fn within<K: Object + Resource<Scope = NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of the namespace, or of all.
    pub(crate) fn namespaced<K: Object + Resource<Scope = NamespaceResourceScope>>(
        &self,
        all: bool,
    ) -> Api<K> {
        if all {
            Api::all(self.client.clone())
        } else {
            self.here()
        }
    }

    /// Objects that are in no namespace.
    pub(crate) fn global<K: Object + Resource<Scope = ClusterResourceScope>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// The name that the API server has for who asks.
    pub(crate) async fn user(&self) -> Result<String, Failure> {
        let review = Api::<SelfSubjectReview>::all(self.client.clone())
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .map_err(|error| Failure::of("your user name", &error))?;
        review
            .status
            .and_then(|status| status.user_info?.username)
            .ok_or_else(|| Failure::error("the API server does not say who you are; see kubectl auth whoami"))
    }

    /// The rules of a share.
    pub(crate) async fn rules_of(&self, share: &str) -> Result<Vec<ShareAccessRule>, Failure> {
        let of_it = ListParams::default().fields(&format!("spec.shareRef.name={share}"));
        list(&self.here(), &of_it).await
    }

    /// The locks on what `is_it` says.
    pub(crate) async fn locks_on(
        &self,
        is_it: impl Fn(&ResourceLock) -> bool,
    ) -> Result<Vec<ResourceLock>, Failure> {
        let mut locks = list::<ResourceLock>(&self.here(), &ListParams::default()).await?;
        locks.retain(is_it);
        Ok(locks)
    }

    /// The events about an object, or about all of its kind, the latest last.
    pub(crate) async fn events(&self, kind: &str, name: Option<&str>) -> Result<Vec<Event>, Failure> {
        let name = name.map_or_else(String::new, |name| format!(",regarding.name={name}"));
        let about = ListParams::default().fields(&format!("regarding.kind={kind}{name}"));
        let mut events = list::<Event>(&self.here(), &about).await?;
        events.sort_by_key(lists::last);
        Ok(events)
    }
}

/// `Share 'documents' of namespace 'team-a'`.
pub(crate) fn named<K: Object>(api: &Api<K>, name: &str) -> String {
    let namespace = api
        .namespace()
        .map_or_else(String::new, |n| format!(" in namespace '{n}'"));
    format!("{} '{name}'{namespace}", K::kind(&()))
}

/// An object; a failure if it is not there.
pub(crate) async fn get<K: Object>(api: &Api<K>, name: &str) -> Result<K, Failure> {
    api.get(name)
        .await
        .map_err(|error| Failure::of(&named(api, name), &error))
}

/// Objects by namespace and name.
pub(crate) async fn list<K: Object>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, Failure> {
    let found = api.list(params).await;
    let mut items = found.map_err(|error| Failure::of(&K::plural(&()), &error))?.items;
    items.sort_by_key(|item| (item.namespace(), item.name_any()));
    Ok(items)
}

pub(crate) async fn create<K: Object>(api: &Api<K>, object: &K) -> Result<K, Failure> {
    let params = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    let name = object
        .meta()
        .name
        .clone()
        .or_else(|| object.meta().generate_name.clone());
    let created = api.create(&params, object).await;
    created.map_err(|error| Failure::of(&named(api, &name.unwrap_or_default()), &error))
}

/// Changes the fields that are named.
pub(crate) async fn patch<K: Object>(api: &Api<K>, name: &str, fields: &Value) -> Result<K, Failure> {
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    let patched = api.patch(name, &params, &Patch::Merge(fields)).await;
    patched.map_err(|error| Failure::of(&named(api, name), &error))
}

/// Asks that an object be deleted.
pub(crate) async fn delete<K: Object>(api: &Api<K>, name: &str) -> Result<(), Failure> {
    let deleted = api.delete(name, &DeleteParams::default()).await;
    deleted
        .map(drop)
        .map_err(|error| Failure::of(&named(api, name), &error))
}

/// Waits until an object is as it is to be, if that is wanted. What came of it.
pub(crate) async fn until<K: Object>(
    api: &Api<K>,
    name: &str,
    wait: &Wait,
    far: impl Fn(&K) -> Progress,
) -> Result<Option<String>, Failure> {
    if !wait.wait {
        return Ok(None);
    }
    let end = Instant::now() + wait.timeout;
    loop {
        let why = match far(&get(api, name).await?) {
            Progress::Done(said) => return Ok(Some(said)),
            Progress::Never(why) => return Err(Failure::refused(format!("{}: {why}", named(api, name)))),
            Progress::NotYet(why) => why,
        };
        pause(api, name, wait, end, &why).await?;
    }
}

/// Waits until an object is gone, if that is wanted.
pub(crate) async fn until_gone<K: Object>(
    api: &Api<K>,
    name: &str,
    wait: &Wait,
    why: impl Fn(&K) -> String,
) -> Result<(), Failure> {
    if !wait.wait {
        return Ok(());
    }
    let end = Instant::now() + wait.timeout;
    loop {
        let found = api.get_opt(name).await;
        match found.map_err(|error| Failure::of(&named(api, name), &error))? {
            None => return Ok(()),
            Some(object) => pause(api, name, wait, end, &why(&object)).await?,
        }
    }
}

async fn pause<K: Object>(
    api: &Api<K>,
    name: &str,
    wait: &Wait,
    end: Instant,
    why: &str,
) -> Result<(), Failure> {
    if Instant::now() >= end {
        return Err(Failure::refused(format!(
            "{}: not done after {} s, and goes on: {why}",
            named(api, name),
            wait.timeout.as_secs()
        )));
    }
    sleep(PAUSE).await;
    Ok(())
}
