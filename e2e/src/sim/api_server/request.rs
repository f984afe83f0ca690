//! What a request asks for.

use std::collections::BTreeMap;

use http::{Method, header, request::Parts};
use serde_json::{Value, json};

use super::{
    Verb,
    managers::Identity,
    refusal::Refusal,
    resource::{self, Resource},
    store::Key,
};

/// A request, understood.
#[derive(Debug)]
pub(super) struct Request {
    pub caller: String,
    pub verb: Verb,
    pub resource: &'static Resource,
    pub subresource: Option<String>,
    /// Empty: of a cluster-scoped resource, or of all namespaces.
    pub namespace: String,
    /// Empty: none was named.
    pub name: String,
    pub field_manager: Option<String>,
    pub force: bool,
    pub dry_run: bool,
    pub metadata_only: bool,
    query: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    pub fn parse(caller: &str, parts: &Parts, body: Vec<u8>) -> Result<Self, Refusal> {
        let unknown = || {
            Refusal::new(
                404,
                "NotFound",
                "the server could not find the requested resource",
            )
        };
        let path: Vec<&str> = parts
            .uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let (group, rest) = match path.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return Err(unknown()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && *rest != ["status"] => {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", None),
            [plural, name] => (*plural, *name, None),
            [plural, name, subresource] => (*plural, *name, Some((*subresource).to_owned())),
            _ => return Err(unknown()),
        };
        let resource = resource::find(group, plural).ok_or_else(unknown)?;
        if subresource
            .as_ref()
            .is_some_and(|s| s != "status" || !resource.status_subresource)
        {
            return Err(unknown());
        }
        let query = query(parts.uri.query().unwrap_or_default());
        let is = |name: &str, value: &str| query.get(name).is_some_and(|found| found == value);
        let header = |name| {
            let value = parts.headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let verb = match (&parts.method, header(header::CONTENT_TYPE)) {
            (&Method::GET, _) if is("watch", "true") => Verb::Watch,
            (&Method::GET, _) if name.is_empty() => Verb::List,
            (&Method::GET, _) => Verb::Get,
            (&Method::POST, _) if name.is_empty() => Verb::Create,
            (&Method::PUT, _) => Verb::Replace,
            (&Method::PATCH, "application/apply-patch+yaml") => Verb::Apply,
            (&Method::PATCH, "application/merge-patch+json") => Verb::Patch,
            (&Method::DELETE, _) if !name.is_empty() => Verb::Delete,
            _ => return Err(Refusal::new(405, "MethodNotAllowed", "this is not served here")),
        };
        Ok(Self {
            caller: caller.into(),
            verb,
            resource,
            subresource,
            namespace: namespace.into(),
            name: name.into(),
            field_manager: query.get("fieldManager").cloned(),
            force: is("force", "true"),
            dry_run: query.contains_key("dryRun"),
            metadata_only: header(header::ACCEPT).contains("as=PartialObjectMetadata"),
            query,
            body,
        })
    }

    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// A parameter of the query; none where it is empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A number in the query.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.parameter(name)
            .map(|text| {
                let wrong = |_| Refusal::bad_request(format!("{name}: Invalid value: \"{text}\""));
                text.parse().map_err(wrong)
            })
            .transpose()
    }

    /// The body; none is an empty object.
    pub fn body(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body).map_err(|error| Refusal::bad_request(error.to_string()))
    }

    /// Who owns what it writes.
    pub fn manager(&self, applies: bool) -> Identity {
        Identity {
            name: self.field_manager.clone().unwrap_or_else(|| self.caller.clone()),
            applies,
            subresource: self.subresource.clone(),
        }
    }
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Of `application/x-www-form-urlencoded`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|b| char::from(b).to_digit(16))
                        .unwrap_or_default()
                };
                u8::try_from(digit() * 16 + digit()).unwrap_or_default()
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
