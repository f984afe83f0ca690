//! A user with a namespace: makes, changes and deletes shares and rules, and waits until it is done.

use std::ops::Range;

use anyhow::{Context as _, Result};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use shoal_crds::{
    AccessLevel, AccessType, Protocol, Share, ShareAccessRule, ShareAccessRuleSpec, ShareReference,
    ShareSpec, Size,
};

use super::latency::{Events, Latencies, Settles, Until, timed};
use crate::world::World;

/// A user.
#[derive(Clone)]
pub struct Tenant {
    /// Its shares.
    pub shares: Objects<Share>,
    /// Its rules.
    pub rules: Objects<ShareAccessRule>,
    share_type: String,
    protocol: Protocol,
}

/// The objects of one kind in a namespace.
#[derive(Clone)]
pub struct Objects<K> {
    api: Api<K>,
    events: Events,
}

impl Tenant {
    /// One with a namespace of its own, whose shares are of this type.
    pub async fn new(world: &World, share_type: &str, protocol: Protocol) -> Result<Self> {
        let namespace = world.namespace("bench").await?;
        Ok(Self {
            shares: Objects::watched(world.api(&namespace)),
            rules: Objects::watched(world.api(&namespace)),
            share_type: share_type.into(),
            protocol,
        })
    }

    /// Makes shares, and waits until each is Ready.
    pub async fn make(&self, at_once: usize, range: Range<usize>) -> Result<Latencies> {
        timed(at_once, range, |n| {
            let (shares, share) = (self.shares.clone(), self.share(n));
            async move { shares.make(&share).await }
        })
        .await
    }

    /// Deletes shares, and waits until each is gone.
    pub async fn delete(&self, at_once: usize, range: Range<usize>) -> Result<Latencies> {
        timed(at_once, range, |n| {
            let shares = self.shares.clone();
            async move { shares.delete(&share_name(n)).await }
        })
        .await
    }

    /// Makes rules, of these numbers, that say who may use the share that `of` says; waits until each is in force.
    pub async fn let_in(
        &self,
        at_once: usize,
        range: Range<usize>,
        of: impl Fn(usize) -> usize,
    ) -> Result<Latencies> {
        timed(at_once, range, |n| {
            let (rules, rule) = (self.rules.clone(), self.rule(of(n), n));
            async move { rules.make(&rule).await }
        })
        .await
    }

    /// Gives rules another level, and waits until each is in force. Each rule is in its first generation before.
    pub async fn change(&self, at_once: usize, range: Range<usize>) -> Result<Latencies> {
        timed(at_once, range, |n| {
            let rules = self.rules.clone();
            async move {
                let changed = rules.events.once(&rule_name(n), Until::Ready(2));
                change_level(&rules.api, n).await?;
                changed.await.context("the watch ended")
            }
        })
        .await
    }

    /// Deletes rules, and waits until each is gone.
    pub async fn shut_out(&self, at_once: usize, range: Range<usize>) -> Result<Latencies> {
        timed(at_once, range, |n| {
            let rules = self.rules.clone();
            async move { rules.delete(&rule_name(n)).await }
        })
        .await
    }

    /// The share of this number.
    pub fn share(&self, n: usize) -> Share {
        let size = Size::from_bytes(1 << 30).expect("1Gi is a size");
        Share::new(
            &share_name(n),
            ShareSpec {
                share_type_name: Some(self.share_type.clone()),
                protocol: self.protocol,
                size,
                mount_point_name: None,
                placement: None,
                source: None,
                deletion_policy: None,
                metadata: std::collections::BTreeMap::new(),
                export_location_metadata: Vec::new(),
            },
        )
    }

    /// The rule of this number, on this share. Numbers are below 65,536.
    pub fn rule(&self, share: usize, n: usize) -> ShareAccessRule {
        let (access_type, access_to) = match self.protocol {
            Protocol::NFS => (AccessType::IP, Some(format!("10.0.{}.{}", n / 256, n % 256))),
            Protocol::CephFS => (AccessType::CephX, None),
        };
        let share_ref = ShareReference {
            name: share_name(share),
        };
        let spec = ShareAccessRuleSpec {
            share_ref,
            access_type,
            access_to,
            access_to_secret_ref: None,
            access_level: AccessLevel::ReadWrite,
            squash: None,
            credentials_secret_name: None,
            metadata: std::collections::BTreeMap::new(),
        };
        ShareAccessRule::new(&rule_name(n), spec)
    }
}

/// Makes the rule of this number read-only.
pub async fn change_level(api: &Api<ShareAccessRule>, n: usize) -> Result<ShareAccessRule> {
    let patch = json!({"spec": {"accessLevel": "ReadOnly"}});
    let params = PatchParams::default();
    Ok(api.patch(&rule_name(n), &params, &Patch::Merge(&patch)).await?)
}

impl<K: Settles + serde::Serialize> Objects<K> {
    fn watched(api: Api<K>) -> Self {
        Self {
            events: Events::watch(api.clone()),
            api,
        }
    }

    /// Their API.
    pub fn api(&self) -> &Api<K> {
        &self.api
    }

    /// Resolves once the object is as wanted.
    pub fn once(&self, name: &str, until: Until) -> tokio::sync::oneshot::Receiver<()> {
        self.events.once(name, until)
    }

    async fn make(&self, object: &K) -> Result<()> {
        let ready = self.events.once(&object.name_any(), Until::Ready(1));
        self.api.create(&PostParams::default(), object).await?;
        ready.await.context("the watch ended")
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let gone = self.events.once(name, Until::Gone);
        self.api.delete(name, &DeleteParams::default()).await?;
        gone.await.context("the watch ended")
    }
}

/// Name of the share of this number.
pub fn share_name(n: usize) -> String {
    format!("share-{n}")
}

/// Name of the rule of this number.
pub fn rule_name(n: usize) -> String {
    format!("rule-{n}")
}
