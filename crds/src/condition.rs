//! Condition types and reasons.
//!
//! `Ready` is the summary; `Reconciling` and `Stalled` are present only while true (kstatus). A reason is the condition
//! reason, the event reason and the metric label alike.

/// Condition types.
pub mod types {
    /// The summary: the object is as its spec asks.
    pub const READY: &str = "Ready";
    /// Shoal is working on it. Present only while true.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will change before the spec or the world does. Present only while true.
    pub const STALLED: &str = "Stalled";
    /// A backend was chosen for the share.
    pub const SCHEDULED: &str = "Scheduled";
    /// The share's size is charged to its namespace's ShareQuotas. Left out where there never was one.
    pub const QUOTA_RESERVED: &str = "QuotaReserved";
    /// The subvolume exists with the size asked for.
    pub const PROVISIONED: &str = "Provisioned";
    /// The share can be reached at its export locations.
    pub const EXPORTED: &str = "Exported";
    /// The backend lets in exactly the clients of the access rules.
    pub const ACCESS_APPLIED: &str = "AccessApplied";
    /// The object is being deleted and something is in the way. Present only while true.
    pub const DELETION_BLOCKED: &str = "DeletionBlocked";
    /// Of a Share: its export or access is being made again. Of a ShareBackend: its shares are being verified. Present only while
    /// true.
    pub const ENSURING: &str = "Ensuring";
    /// Of a ShareBackend: no export is removed from its NFS cluster, for Ceph would do harm. Present only while true.
    pub const EXPORTS_STAY: &str = "ExportsStay";
    /// An admin has asked that the object be left alone. Present only while true.
    pub const PAUSED: &str = "Paused";
    /// Of a ShareType marked as default: whether it is what Shares without a type get.
    pub const DEFAULT: &str = "Default";
}

/// Reasons.
pub mod reasons {
    /// All is as asked.
    pub const AVAILABLE: &str = "Available";
    /// Shoal is creating it.
    pub const CREATING: &str = "Creating";
    /// Shoal is changing its size.
    pub const RESIZING: &str = "Resizing";
    /// Shoal is deleting it.
    pub const DELETING: &str = "Deleting";
    /// The data of a deleted share is kept, and nobody is let in.
    pub const RETAINED: &str = "Retained";
    /// An admin has given up what was left of a deleted share.
    pub const ABANDONED: &str = "Abandoned";
    /// The backend has not accepted the deletion in the time that a user waits.
    pub const NOT_ACCEPTED_YET: &str = "NotAcceptedYet";
    /// The Share that is said to be gone is there.
    pub const SHARE_EXISTS: &str = "ShareExists";
    /// No ShareDeletion keeps what `spec.source.existing` names.
    pub const NOTHING_TO_BRING_BACK: &str = "NothingToBringBack";
    /// Another Share has it, or brings it back; or it is being removed; or it is not this cluster's to give.
    pub const NOT_TO_BE_BROUGHT_BACK: &str = "NotToBeBroughtBack";
    /// A backend holds data that no object owns and that is tagged with the share's namespace and name; a storage admin has to say
    /// what becomes of it.
    pub const FORMER_DATA_FOUND: &str = "FormerDataFound";
    /// What a backend holds has not been searched yet for data that no object owns.
    pub const BACKEND_NOT_SCANNED: &str = "BackendNotScanned";
    /// Shoal is changing who has access.
    pub const APPLYING_ACCESS: &str = "ApplyingAccess";
    /// Shoal is verifying that it is as it should be, and mending what is not.
    pub const ENSURING: &str = "Ensuring";
    /// A rule is in force.
    pub const ACTIVE: &str = "Active";
    /// A backend was chosen.
    pub const SCHEDULED: &str = "Scheduled";
    /// An admin has asked that it be left alone.
    pub const PAUSED: &str = "Paused";
    /// A ResourceLock keeps it from being deleted.
    pub const LOCKED: &str = "Locked";
    /// What a lock holds is marked as locked, or what it hides is hidden.
    pub const ENFORCED: &str = "Enforced";
    /// There is nothing of that kind and name to lock, or it is another object.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// What a lock holds is being deleted already.
    pub const TARGET_DELETING: &str = "TargetDeleting";
    /// A Show lock is on a rule that names its client itself: nothing can hide that.
    pub const CANNOT_BE_HIDDEN: &str = "CannotBeHidden";
    /// The rule that a Show lock is on has no key yet that only the lock's owner can read.
    pub const NOT_HIDDEN_YET: &str = "NotHiddenYet";
    /// An older Show lock hides the rule, for its own owner.
    pub const HIDDEN_BY_ANOTHER: &str = "HiddenByAnother";

    /// The share type does not exist.
    pub const SHARE_TYPE_NOT_FOUND: &str = "ShareTypeNotFound";
    /// No type was named and none is marked as default.
    pub const NO_DEFAULT_SHARE_TYPE: &str = "NoDefaultShareType";
    /// The namespace may not use the share type.
    pub const SHARE_TYPE_NOT_ALLOWED: &str = "ShareTypeNotAllowed";
    /// The type does not offer the protocol.
    pub const PROTOCOL_NOT_OFFERED: &str = "ProtocolNotOffered";
    /// The type's shares have no names of their own.
    pub const MOUNT_POINT_NAME_NOT_ALLOWED: &str = "MountPointNameNotAllowed";
    /// With the type's prefix the name is none.
    pub const INVALID_MOUNT_POINT_NAME: &str = "InvalidMountPointName";
    /// Somebody else has the name on the NFS cluster.
    pub const MOUNT_POINT_NAME_TAKEN: &str = "MountPointNameTaken";
    /// The size is outside the type's limits.
    pub const SIZE_OUT_OF_RANGE: &str = "SizeOutOfRange";
    /// No backend fits.
    pub const NO_BACKEND_FITS: &str = "NoBackendFits";
    /// A Share that `spec.placement.sameBackendAs` names does not exist yet.
    pub const WAITING_FOR_SHARE: &str = "WaitingForShare";
    /// The share's backend has no room for what more it asks for.
    pub const NO_ROOM_TO_EXTEND: &str = "NoRoomToExtend";
    /// A ShareQuota of the namespace does not let the share have what it asks for.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// It is charged.
    pub const QUOTA_RESERVED: &str = "QuotaReserved";
    /// A newer ShareType is marked as the default, too, and is taken.
    pub const NEWER_DEFAULT: &str = "NewerDefault";
    /// The type does not let shares shrink.
    pub const SHRINK_NOT_ALLOWED: &str = "ShrinkNotAllowed";
    /// The new size is below what is used.
    pub const SHRINK_BELOW_USED: &str = "ShrinkBelowUsed";

    /// The chosen ShareBackend does not exist.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    /// The chosen ShareBackend is not Ready; its own conditions say why.
    pub const BACKEND_NOT_READY: &str = "BackendNotReady";
    /// The ShareBackend is paused: an admin has asked that nothing be asked or changed there.
    pub const BACKEND_PAUSED: &str = "BackendPaused";
    /// The ShareBackend is only looked at: an admin wants to see what would be changed there first.
    pub const DRY_RUN: &str = "DryRun";
    /// The ShareBackend is to be deleted, and shares, or what is left of deleted ones, are still on it.
    pub const HAS_SHARES: &str = "HasShares";
    /// The operator has just started, or the ShareBackend just changed, and the backend has not been asked yet what it is.
    pub const BACKEND_NOT_ASKED: &str = "BackendNotAsked";
    /// The backend now is another Ceph cluster or file system than the one recorded.
    pub const BACKEND_REPLACED: &str = "BackendReplaced";
    /// The subvolume was there and is gone. It is never re-created empty.
    pub const VOLUME_MISSING: &str = "VolumeMissing";
    /// What is there under our name carries another owner's tag.
    pub const OWNED_BY_ANOTHER: &str = "OwnedByAnother";
    /// Another export has our pseudo path.
    pub const EXPORT_PATH_TAKEN: &str = "ExportPathTaken";
    /// The NFS cluster has more exports than Ceph can remove one of without losing others.
    pub const TOO_MANY_EXPORTS: &str = "TooManyExports";
    /// The NFS cluster has exports of an older Ceph, on account of which this one removes none.
    pub const OUTDATED_EXPORTS: &str = "OutdatedExports";
    /// The subvolume has snapshots and can't be removed.
    pub const HAS_SNAPSHOTS: &str = "HasSnapshots";
    /// The share that the object refers to does not exist.
    pub const SHARE_NOT_FOUND: &str = "ShareNotFound";
    /// The share exists and is not there yet.
    pub const SHARE_NOT_READY: &str = "ShareNotReady";

    /// The access type does not fit the share's protocol.
    pub const ACCESS_TYPE_NOT_SUPPORTED: &str = "AccessTypeNotSupported";
    /// An older rule of the share names the same client.
    pub const DUPLICATE_RULE: &str = "DuplicateRule";
    /// `accessTo`, or the value its Secret holds, is not a client.
    pub const INVALID_ACCESS_TO: &str = "InvalidAccessTo";
    /// The identity is reserved.
    pub const IDENTITY_RESERVED: &str = "IdentityReserved";
    /// The identity belongs to another namespace, file system or tool.
    pub const IDENTITY_NOT_AVAILABLE: &str = "IdentityNotAvailable";
    /// The Secret, or its key, does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// The Secret lacks the label `shoal.storage/access`.
    pub const SECRET_NOT_LABELLED: &str = "SecretNotLabelled";
    /// A Secret of that name exists and Shoal did not make it.
    pub const SECRET_NOT_OURS: &str = "SecretNotOurs";

    /// The backend can't be reached.
    pub const BACKEND_UNREACHABLE: &str = "BackendUnreachable";
    /// The backend refused the credentials.
    pub const BACKEND_CREDENTIALS_REFUSED: &str = "BackendCredentialsRefused";
    /// A command was not answered in time; whether it took effect is not known yet.
    pub const COMMAND_TIMED_OUT: &str = "CommandTimedOut";
    /// The backend's commands are held until it has answered a harmless one.
    pub const BACKEND_SILENT: &str = "BackendSilent";
    /// The file system does not exist.
    pub const FILE_SYSTEM_NOT_FOUND: &str = "FileSystemNotFound";
    /// The NFS cluster does not exist.
    pub const NFS_CLUSTER_NOT_FOUND: &str = "NFSClusterNotFound";
    /// The NFS cluster's address is not known and none is given in `spec.ceph.nfs.endpoints`.
    pub const NFS_ENDPOINTS_UNKNOWN: &str = "NFSEndpointsUnknown";
    /// The backend failed the command; the message holds its words.
    pub const BACKEND_ERROR: &str = "BackendError";
    /// The API server refused or did not answer.
    pub const API_ERROR: &str = "ApiError";
    /// The object can't be understood.
    pub const INVALID_OBJECT: &str = "InvalidObject";
    /// A defect of Shoal.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// For evaluation only: nothing is stored anywhere.
    pub const SIMULATED: &str = "Simulated";
}
