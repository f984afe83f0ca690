//! Admission policies, as the documents that are applied: no webhook server.

use serde_json::{Value, json};

use crate::{
    GROUP, VERSION,
    names::{FINALIZER, PAUSED},
};

/// The policy and binding that put the finalizer on at birth, which saves one write per object.
///
/// For servers that know `MutatingAdmissionPolicy` v1 (Kubernetes 1.36 and later); elsewhere the operator patches the
/// finalizer. It acts on UPDATE too: on CREATE alone the finalizer is lost when a client that applies or replaces the
/// object drops its own last one.
pub fn finalizer_policy() -> Vec<Value> {
    let name = "finalizer.shoal.storage";
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                // A share that slips through is no harm: the operator patches what it finds without.
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["shares", "shareaccessrules", "sharebackends"],
                    }],
                },
                "matchConditions": [
                    {"name": "lives", "expression": "!has(object.metadata.deletionTimestamp)"},
                    {
                        "name": "lacks-it",
                        "expression": format!(
                            "!has(object.metadata.finalizers) || !object.metadata.finalizers.exists(f, f == '{FINALIZER}')"
                        ),
                    },
                ],
                "mutations": [{
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {
                        "expression": format!("Object{{metadata: Object.metadata{{finalizers: ['{FINALIZER}']}}}}"),
                    },
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        }),
    ]
}

/// The policies that ask the authorizer whether a user may write what is not for everybody: a controller can't know who
/// wrote a field. One policy and binding for each verb on a kind.
pub fn verb_policies() -> Vec<Value> {
    let pin = "has({}.spec.placement) && has({}.spec.placement.backendName)";
    let paused = format!("has({{}}.metadata.annotations) && '{PAUSED}' in {{}}.metadata.annotations");
    let of = |expression: &str, whose: &str| expression.replace("{}", whose);
    let max = "object.status.capabilities.size.max";
    [
        Guarded {
            resource: "shares",
            verb: "pin",
            operations: &["CREATE", "UPDATE"],
            when: format!(
                "{} && (oldObject == null || !({}) || \
                 oldObject.spec.placement.backendName != object.spec.placement.backendName)",
                of(pin, "object"),
                of(pin, "oldObject"),
            ),
            message: "'spec.placement.backendName: ' + object.spec.placement.backendName + ' pins the share to a \
                      ShareBackend, which takes the verb pin on shares; leave it out, or ask an admin'"
                .into(),
        },
        Guarded {
            resource: "shares",
            verb: "adopt",
            // It can't be changed later.
            operations: &["CREATE"],
            when: "has(object.spec.source) && has(object.spec.source.existing)".into(),
            message: "'spec.source.existing: ' + object.spec.source.existing.handle + ' is data that is there already, which takes \
                      the verb adopt on shares; leave it out, or ask an admin'"
                .into(),
        },
        Guarded {
            resource: "shares",
            verb: "extend-beyond-max",
            operations: &["UPDATE"],
            when: format!(
                "object.spec.size != oldObject.spec.size && has(object.status) && has(object.status.capabilities) \
                 && has(object.status.capabilities.size) && has({max}) \
                 && quantity(string(object.spec.size)).isGreaterThan(quantity(string({max}))) \
                 && quantity(string(object.spec.size)).isGreaterThan(quantity(string(oldObject.spec.size)))"
            ),
            message: format!(
                "'spec.size: ' + string(object.spec.size) + ' is above ' + string({max}) + ', the largest size of its type; \
                 more takes the verb extend-beyond-max on shares: ask for at most that, or ask an admin'"
            ),
        },
        Guarded {
            resource: "shares",
            verb: "operate",
            operations: &["CREATE", "UPDATE"],
            when: format!(
                "({}) != (oldObject != null && {})",
                of(&paused, "object"),
                of(&paused, "oldObject")
            ),
            message: format!(
                "'metadata.annotations: {PAUSED} makes Shoal leave a share alone; setting it and taking it off take the \
                 verb operate on shares: leave it as it is, or ask an admin'"
            ),
        },
        // What it says is gone is removed: a forged one would cost somebody's data.
        Guarded {
            resource: "sharedeletions",
            verb: "operate",
            operations: &["CREATE", "UPDATE"],
            when: "oldObject == null || has(object.spec.adoptedBy) != has(oldObject.spec.adoptedBy) \
                   || (has(object.spec.adoptedBy) && object.spec.adoptedBy != oldObject.spec.adoptedBy)"
                .into(),
            message: "'ShareDeletion ' + object.metadata.name + ': making one, and spec.adoptedBy, are the operator\\'s (verb operate on \
                      sharedeletions); delete the Share, or name the handle in spec.source.existing of a Share'"
                .into(),
        },
    ]
    .into_iter()
    .flat_map(Guarded::policy)
    .collect()
}

/// A write that takes a verb.
struct Guarded {
    resource: &'static str,
    verb: &'static str,
    operations: &'static [&'static str],
    when: String,
    message: String,
}

impl Guarded {
    fn policy(self) -> [Value; 2] {
        // Of what is in no namespace a request names none.
        let (name, namespace) = match self.resource {
            "shares" => (format!("{}.{GROUP}", self.verb), ".namespace(request.namespace)"),
            other => (format!("{}.{other}.{GROUP}", self.verb), ""),
        };
        [
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "failurePolicy": "Fail",
                    "matchConstraints": {
                        "resourceRules": [{
                            "apiGroups": [GROUP],
                            "apiVersions": [VERSION],
                            "operations": self.operations,
                            "resources": [self.resource],
                        }],
                    },
                    "matchConditions": [{"name": "takes-the-verb", "expression": self.when}],
                    "validations": [{
                        "expression": format!(
                            "authorizer.group('{GROUP}').resource('{}'){namespace}.name(object.metadata.name)\
                             .check('{}').allowed()",
                            self.resource, self.verb
                        ),
                        "messageExpression": self.message,
                        "reason": "Forbidden",
                    }],
                },
            }),
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }),
        ]
    }
}
