//! The ways a pass ends early.

use std::time::Duration;

use shoal_crds::condition::reasons;
use shoal_domain::{Class, Failure};

/// Why a pass, or a step of it, did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("API server: {0}")]
    Api(Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the API server did not answer in {}", .0.as_secs_f32())]
    ApiTimedOut(Duration),
    /// The object was changed by another writer meanwhile; its next event brings another pass.
    #[error("changed meanwhile")]
    Conflict,
    /// The object is gone, or is another of the same name.
    #[error("gone")]
    Gone,
    /// This replica may not act any more, or not for as long as the effect may take.
    #[error("the lease does not cover the effect")]
    NotLeading,
    /// The backend failed. Decided on, never returned from a pass.
    #[error("backend: {0}")]
    Backend(Failure),
    /// A defect of Shoal.
    #[error("defect: {0}")]
    Bug(String),
}

impl Error {
    /// What the error asks for.
    pub fn class(&self) -> Class {
        match self {
            Self::Api(_) | Self::ApiTimedOut(_) => Class::Transient,
            Self::Conflict => Class::Conflict,
            Self::Gone => Class::Gone,
            Self::NotLeading => Class::Waiting,
            Self::Backend(failure) => failure.class,
            Self::Bug(_) => Class::Bug,
        }
    }

    /// Whether a write that ended so is known not to have been stored.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Conflict | Self::Gone | Self::NotLeading => true,
            Self::Api(error) => {
                matches!(&**error, kube::Error::Api(status) if (400..500).contains(&status.code))
            }
            Self::ApiTimedOut(_) | Self::Backend(_) | Self::Bug(_) => false,
        }
    }

    /// The metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api(_) | Self::ApiTimedOut(_) => reasons::API_ERROR,
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::NotLeading => "NotLeading",
            Self::Backend(failure) => failure.reason,
            Self::Bug(_) => reasons::INTERNAL_ERROR,
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            _ => Self::Api(Box::new(error)),
        }
    }
}

impl From<shoal_backend::Error> for Error {
    fn from(error: shoal_backend::Error) -> Self {
        Self::Backend(error.into())
    }
}
