//! The Shoal API: what a Kubernetes user writes and reads.
//!
//! One file per kind; the names, conditions and reasons that kinds share; and the admission policies that go with
//! them. This crate holds data types only, so any Rust program can depend on it: no client, no runtime.

// Each printer column is an attribute of the same shape.
#![allow(clippy::duplicated_attributes)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod condition;
mod generate;
pub mod names;
mod period;
pub mod policy;
mod quantity;
mod resource_lock;
mod share;
mod share_access_rule;
mod share_backend;
mod share_deletion;
mod share_quota;
mod share_type;
mod validation;

pub use generate::{custom_resource_definitions, generated_files};
pub use period::{ParsePeriodError, Period};
pub use quantity::{ParseRatioError, ParseSizeError, Ratio, Size};
pub use resource_lock::{
    LockAction, LockContext, LockPhase, LockedKind, LockedResourceReference, ResourceLock, ResourceLockSpec,
    ResourceLockStatus,
};
pub use share::{
    AccessSummary, Capabilities, Charge, DeletionMode, DeletionPolicy, Differences, ExistingShare,
    ExportLocation, ExportLocationMetadata, FormerData, Placement, Protocol, RootDirectory, Share,
    SharePhase, ShareSource, ShareSpec, ShareStatus, SizeLimits, UserMetadata,
};
pub use share_access_rule::{
    AccessLevel, AccessPhase, AccessType, CredentialsSecretReference, LockReference, SecretKeyReference,
    ShareAccessRule, ShareAccessRuleSpec, ShareAccessRuleStatus, ShareReference, Squash,
};
pub use share_backend::{
    BackendPhase, Capacity, CephBackend, CephStatus, EnsureStatus, FormerOwner, NfsBackend, NfsStatus,
    Orphan, OrphanStatus, SecretReference, ShareBackend, ShareBackendSpec, ShareBackendStatus,
    SimulatedBackend, removable_exports,
};
pub use share_deletion::{
    AdoptingShareReference, DeletedShareReference, DeletionPhase, ShareDeletion, ShareDeletionSpec,
    ShareDeletionStatus,
};
pub use share_quota::{
    QuotaLimits, QuotaPhase, QuotaUse, ShareQuota, ShareQuotaSpec, ShareQuotaStatus, ShareTypeQuota,
    ShareTypeUse,
};
pub use share_type::{
    LabelSelector, MountPointNames, ShareType, ShareTypePhase, ShareTypeSpec, ShareTypeStatus,
};

/// API group of every kind.
pub const GROUP: &str = "shoal.storage";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";
