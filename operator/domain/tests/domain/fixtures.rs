//! Short constructors, so that a test reads as a sentence.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource, core::ObjectMeta};
use shoal_crds::{
    AccessLevel, AccessPhase, AccessType, Charge, DeletionMode, LockAction, LockContext, LockedKind,
    LockedResourceReference, OrphanStatus, Protocol, QuotaLimits, ResourceLock, ResourceLockSpec,
    SecretKeyReference, Share, ShareAccessRule, ShareAccessRuleSpec, ShareAccessRuleStatus, ShareBackend,
    ShareBackendSpec, ShareQuota, ShareQuotaSpec, ShareReference, ShareSpec, ShareStatus, ShareType,
    ShareTypeSpec, Size, Squash, condition::types, names::FINALIZER,
};
use shoal_domain::{
    Class, Failure, Scope,
    ensure::Round,
    grant::{Client, Grant},
    identity::{Description, Identity, NfsExports},
    owner::{Owner, Tag},
    placement::{Candidate, Door, Load},
    share_access_rule::RuleView,
    share_backend::{self, Scan},
    volume::{Export, Sight, Volume},
};

pub const CLUSTER: &str = "this-cluster";
/// The namespace that hidden keys are kept in.
pub const CUSTODY: &str = "shoal-system";
pub const GI: u64 = 1 << 30;

pub fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub fn size(text: &str) -> Size {
    text.parse().unwrap()
}

/// An NFS share of 1Gi, as a user has just applied it.
pub fn share(name: &str) -> Share {
    Share {
        metadata: meta(name),
        spec: ShareSpec {
            share_type_name: Some("standard".into()),
            protocol: Protocol::NFS,
            size: size("1Gi"),
            mount_point_name: None,
            placement: None,
            source: None,
            deletion_policy: None,
            metadata: BTreeMap::new(),
            export_location_metadata: Vec::new(),
        },
        status: None,
    }
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("team".into()),
        uid: Some(format!("uid-{name}")),
        generation: Some(1),
        creation_timestamp: Some(Time(now())),
        ..ObjectMeta::default()
    }
}

/// What is said of any object.
pub trait Object: Resource + Sized {
    fn held(mut self) -> Self {
        self.meta_mut().finalizers = Some(vec![FINALIZER.into()]);
        self
    }
    fn not_held(mut self) -> Self {
        self.meta_mut().finalizers = None;
        self
    }
    fn leaving(mut self) -> Self {
        self.meta_mut().deletion_timestamp = Some(Time(now()));
        self.edited()
    }
    fn edited(mut self) -> Self {
        let generation = &mut self.meta_mut().generation;
        *generation = generation.map(|g| g + 1);
        self
    }
    fn aged(mut self, seconds: i64) -> Self {
        self.meta_mut().creation_timestamp = Some(Time(now() - SignedDuration::from_secs(seconds)));
        self
    }
    fn is_held(&self) -> bool {
        self.meta().finalizers.iter().flatten().any(|f| f == FINALIZER)
    }
    fn is_leaving(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
    fn named(&self) -> &str {
        self.meta().name.as_deref().unwrap()
    }
}

impl<K: Resource> Object for K {}

pub trait ShareExt {
    fn cephfs(self) -> Self;
    fn sized(self, text: &str) -> Self;
    /// With the choice stored: on backend `ceph-a`.
    fn placed(self) -> Self;
}

impl ShareExt for Share {
    fn cephfs(mut self) -> Self {
        self.spec.protocol = Protocol::CephFS;
        self
    }
    fn sized(mut self, text: &str) -> Self {
        self.spec.size = size(text);
        self
    }
    fn placed(mut self) -> Self {
        let identity = identity();
        self.status = Some(ShareStatus {
            share_type_name: Some("standard".into()),
            backend_name: Some("ceph-a".into()),
            nfs_cluster_id: Some("nfs-1".into()).filter(|_| self.spec.protocol == Protocol::NFS),
            fsid: Some(identity.fsid),
            fs_name: Some(identity.fs_name),
            fs_id: Some(identity.fs_id),
            quota: Some(Charge {
                charged: self.spec.size,
            }),
            capabilities: Some(shoal_domain::share_type::capabilities(&share_type())),
            ..ShareStatus::default()
        });
        self.held()
    }
}

/// A round over the shares of a backend.
pub fn round(requested_at: Option<&str>) -> Round {
    Round {
        started_at: Time(now()),
        requested_at: requested_at.map(Into::into),
    }
}

/// What a pass over the backend `ceph-a` sees before it has asked anything.
pub fn of_backend() -> share_backend::Observed {
    share_backend::Observed {
        backend: ShareBackend::new("ceph-a", ShareBackendSpec::default()).held(),
        description: None,
        admitted: None,
        load: Load::default(),
        in_the_way: Vec::new(),
        round: None,
        scan: Scan {
            again: Duration::from_mins(5),
            found: Some(OrphanStatus::default()),
            ..Scan::default()
        },
        is_asked: false,
        is_empty: false,
    }
}

/// An IP rule on share `a`.
pub fn rule(name: &str, to: &str) -> ShareAccessRule {
    ShareAccessRule {
        metadata: meta(name),
        spec: ShareAccessRuleSpec {
            share_ref: ShareReference { name: "a".into() },
            access_type: AccessType::IP,
            access_to: Some(to.into()),
            access_to_secret_ref: None,
            access_level: AccessLevel::ReadWrite,
            squash: None,
            credentials_secret_name: None,
            metadata: BTreeMap::new(),
        },
        status: None,
    }
}

/// A CephX rule on share `a`; without an identity it gets one made.
pub fn cephx_rule(name: &str, identity: Option<&str>) -> ShareAccessRule {
    let mut rule = rule(name, "");
    rule.spec.access_type = AccessType::CephX;
    rule.spec.access_to = identity.map(Into::into);
    rule
}

/// A Delete lock that names an object.
pub fn lock(name: &str, kind: LockedKind, target: &str) -> ResourceLock {
    ResourceLock {
        metadata: meta(name),
        spec: ResourceLockSpec {
            resource_ref: LockedResourceReference {
                kind,
                name: target.into(),
                uid: None,
            },
            action: LockAction::Delete,
            reason: None,
            owner: "alice".into(),
            context: LockContext::User,
        },
        status: None,
    }
}

/// A Show lock of this owner on a rule.
pub fn show_lock(name: &str, rule: &str, owner: &str) -> ResourceLock {
    let mut lock = lock(name, LockedKind::ShareAccessRule, rule);
    lock.spec.action = LockAction::Show;
    lock.spec.owner = owner.into();
    lock
}

pub trait RuleExt {
    fn read_only(self) -> Self;
    fn named_in(self, secret: &str) -> Self;
    fn told(self, phase: AccessPhase) -> Self;
    fn view(self) -> RuleView;
}

impl RuleExt for ShareAccessRule {
    fn read_only(mut self) -> Self {
        self.spec.access_level = AccessLevel::ReadOnly;
        self
    }
    fn named_in(mut self, secret: &str) -> Self {
        self.spec.access_to = None;
        self.spec.access_to_secret_ref = Some(SecretKeyReference {
            name: secret.into(),
            key: "to".into(),
        });
        self
    }
    /// With a status that answers its spec on share `a`.
    fn told(mut self, phase: AccessPhase) -> Self {
        self.status = Some(ShareAccessRuleStatus {
            observed_generation: self.metadata.generation,
            share_uid: Some("uid-a".into()),
            phase: Some(phase),
            applied_level: (phase == AccessPhase::Active).then_some(self.spec.access_level),
            ..ShareAccessRuleStatus::default()
        });
        self
    }
    fn view(self) -> RuleView {
        RuleView::unread(self)
    }
}

pub fn ip(text: &str) -> Client {
    Client::parse(AccessType::IP, text).unwrap()
}

pub fn cephx(identity: &str) -> Client {
    Client::CephX(identity.into())
}

pub fn may(level: AccessLevel, client: Client) -> Grant {
    Grant {
        client,
        level,
        squash: Squash::None,
    }
}

pub fn may_write(client: Client) -> Grant {
    may(AccessLevel::ReadWrite, client)
}

pub fn may_read(client: Client) -> Grant {
    may(AccessLevel::ReadOnly, client)
}

pub fn identity() -> Identity {
    Identity {
        fsid: "fsid-1".into(),
        fs_name: "cephfs".into(),
        fs_id: 1,
    }
}

/// A backend with 100Gi free of 200Gi that serves both protocols.
pub fn backend_description() -> Description {
    Description {
        identity: identity(),
        version: "20.2.0".into(),
        monitors: vec!["10.9.0.1:6789".into(), "10.9.0.2:6789".into()],
        nfs_endpoints: vec!["10.9.0.7".into()],
        group: "shoal".into(),
        nfs_cluster_id: Some("nfs-1".into()),
        nfs_exports: NfsExports::default(),
        protocols: vec![Protocol::NFS, Protocol::CephFS],
        total_bytes: Some(200 * GI),
        free_bytes: Some(100 * GI),
        own_identity: Some("shoal-operator".into()),
    }
}

/// What answers at a backend's address after its cluster was made anew.
pub fn replaced(mut description: Description) -> Description {
    description.identity.fsid = "fsid-2".into();
    description
}

/// The same storage, reached elsewhere.
pub fn moved(mut description: Description) -> Description {
    description.nfs_endpoints = vec!["10.9.0.8".into()];
    description.monitors = vec!["10.9.0.3:6789".into()];
    description
}

pub fn candidate(name: &str, state: Result<Description, Failure>) -> Candidate {
    Candidate {
        name: name.into(),
        labels: BTreeMap::new(),
        state,
        door: Door::Open,
        reserved_percentage: 0,
        overcommit: None,
        max_exports: None,
        load: Load::default(),
    }
}

/// ShareType `standard`: everything allowed but shrinking, at most 10Gi.
pub fn share_type() -> ShareType {
    let mut spec = ShareTypeSpec::default();
    spec.size.max = Some(size("10Gi"));
    // What is told of trouble is told by a share that stays.
    spec.deletion = DeletionMode::Wait;
    ShareType::new("standard", spec)
}

pub fn owner_of(share: &Share) -> Owner {
    Owner {
        cluster: CLUSTER.into(),
        namespace: share.metadata.namespace.clone().unwrap(),
        name: share.named().into(),
        uid: share.metadata.uid.clone().unwrap(),
        left: None,
    }
}

pub fn another_owner() -> Tag {
    Tag::Owner(Owner {
        cluster: "another-cluster".into(),
        ..owner_of(&share("a"))
    })
}

/// The volume of a share, as just made: its size, no export, nothing in it.
pub fn volume(share: &Share) -> Volume {
    Volume {
        tag: Tag::Owner(owner_of(share)),
        handle: format!("shoal/shoal-{}", share.metadata.uid.as_deref().unwrap()),
        path: format!(
            "/volumes/shoal/shoal-{}/data",
            share.metadata.uid.as_deref().unwrap()
        ),
        size_bytes: Some(share.spec.size.bytes()),
        used_bytes: 0,
        metadata: None,
        export: Export::Absent,
    }
}

pub trait VolumeExt {
    fn tagged(self, tag: Tag) -> Self;
    fn exported_to(self, access: impl Into<Vec<Grant>>) -> Self;
    fn seen(self) -> Option<Sight>;
}

impl VolumeExt for Volume {
    fn tagged(mut self, tag: Tag) -> Self {
        self.tag = tag;
        self
    }
    fn exported_to(mut self, access: impl Into<Vec<Grant>>) -> Self {
        self.export = Export::Ours {
            pseudo_path: Some("/shoal-uid-a".into()),
            access: access.into(),
            intact: true,
        };
        self
    }
    fn seen(self) -> Option<Sight> {
        Some(Sight::Present(Box::new(self)))
    }
}

pub fn absent() -> Sight {
    Sight::Absent { leftovers: false }
}

pub fn failure(scope: Scope, class: Class, reason: &'static str) -> Failure {
    Failure {
        class,
        scope,
        reason,
        message: "as told by the backend".into(),
    }
}

/// A condition's status and reason; empty if it is not there.
pub fn told(conditions: &[Condition], type_: &str) -> (String, String) {
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map_or_else(Default::default, |c| (c.status.clone(), c.reason.clone()))
}

/// The reason for which something is not Ready.
pub fn why_not_ready(conditions: &[Condition]) -> String {
    let (status, reason) = told(conditions, types::READY);
    assert_eq!(status, "False", "{conditions:?}");
    reason
}

pub fn says(conditions: &[Condition], type_: &str) -> bool {
    told(conditions, type_).0 == "True"
}

/// Limits of a quota.
pub fn limits(shares: Option<i64>, capacity: Option<&str>, per_share: Option<&str>) -> QuotaLimits {
    QuotaLimits {
        shares,
        capacity: capacity.map(size),
        per_share_capacity: per_share.map(size),
    }
}

/// The quota `team`.
pub fn quota(hard: QuotaLimits) -> ShareQuota {
    let mut quota = ShareQuota::new(
        "team",
        ShareQuotaSpec {
            hard,
            ..Default::default()
        },
    );
    quota.metadata.generation = Some(1);
    quota
}
