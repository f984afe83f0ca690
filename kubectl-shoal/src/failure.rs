//! How a command ends, and what its exit code says.

use kube::core::Status;

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Error = 1,
    /// The command line is not understood; clap's, too.
    Usage = 2,
    NotFound = 3,
    /// Refused by the API server or by the state of things, or not ready, or not in time.
    Refused = 4,
}

/// As `--help` tells them.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  done
  1  an error: the API server can't be reached, or failed
  2  the command line is not understood
  3  what is named does not exist
  4  refused, not ready, or not done in the time of --timeout; what stands in the way is said";

/// Why a command did not do what it was asked. The message names the thing and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// What the API server's answer means to who asked about `what`.
    pub(crate) fn of(what: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(what, status),
            other => Self::error(format!(
                "{what}: the API server can't be asked: {}; --context or --kubeconfig names another",
                chain(other)
            )),
        }
    }

    fn of_status(what: &str, status: &Status) -> Self {
        let details = status.details.as_ref().filter(|details| !details.name.is_empty());
        match (status.code, details) {
            (404, Some(details)) => Self::not_found(format!(
                "{what} not found; kubectl get {} -A shows what there is",
                details.kind
            )),
            (404, None) => Self::error(format!(
                "{what}: the API server knows no such kind. Install Shoal's definitions, or name another cluster with --context"
            )),
            (401, _) => Self::error(format!(
                "{what}: the API server does not know who you are; log in, or name another --context"
            )),
            // It names the object itself.
            (400..=499, _) => Self::refused(&status.message),
            _ => Self::error(format!("{what}: the API server failed: {}", status.message)),
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, name: Option<&str>) -> Failure {
        let status = Status {
            code,
            message: "the server's words".into(),
            details: name
                .map(|name| serde_json::from_value(json!({"name": name, "kind": "shares"})).unwrap()),
            ..Status::default()
        };
        Failure::of("Share 'documents'", &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn an_object_that_is_not_there_is_told_from_a_kind_that_is_not() {
        let object = answer(404, Some("documents"));
        assert_eq!(object.exit, Exit::NotFound);
        assert_eq!(
            object.message,
            "Share 'documents' not found; kubectl get shares -A shows what there is"
        );
        let kind = answer(404, None);
        assert_eq!(kind.exit, Exit::Error);
        assert!(kind.message.contains("Install Shoal"), "{}", kind.message);
    }

    #[test]
    fn refusals_keep_the_servers_words() {
        for code in [400, 403, 409, 422, 429] {
            let refused = answer(code, None);
            assert_eq!(refused.exit, Exit::Refused, "{code}");
            assert_eq!(refused.message, "the server's words");
        }
    }

    #[test]
    fn a_server_that_fails_or_knows_nobody_is_an_error() {
        for code in [401, 500, 503] {
            assert_eq!(answer(code, None).exit, Exit::Error, "{code}");
        }
    }
}
