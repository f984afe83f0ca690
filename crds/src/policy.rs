//! Admission policies, as the documents that are applied: no webhook server.

use serde_json::{Value, json};

use crate::{
    GROUP, VERSION,
    names::{ALLOW_DELETION, FINALIZER, FORMER_DATA, LOCKED_BY, PAUSED, REQUESTED_AT, labels},
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

/// The policy and binding that say whose a ResourceLock is when it does not say so itself: whoever creates it. For the servers
/// that [`finalizer_policy`] is for; elsewhere clients write it.
pub fn lock_owner_policy() -> Vec<Value> {
    let name = "lock-owner.shoal.storage";
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                // Without an owner the schema refuses it.
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [rule(&["CREATE", "UPDATE"], &["resourcelocks"])]},
                "matchConditions": [{"name": "lacks-it", "expression": "!has(object.spec.owner)"}],
                "mutations": [{
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {
                        // A client that replaces the lock need not repeat it.
                        "expression": "Object{spec: Object.spec{owner: oldObject != null && has(oldObject.spec.owner) \
                                       ? oldObject.spec.owner : request.userInfo.username}}",
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

/// The policies that hold what is locked, and the locks themselves.
///
/// A lock holds from the moment it is stored, as a parameter of the first policy. That costs a deletion 0.1 ms for each lock of
/// the namespace, so the operator marks what is locked, and the lock as enforced, and then the second policy has it. What
/// slips past both, the operator finds before it takes anything away.
pub fn lock_policies() -> Vec<Value> {
    let targets = ["shares", "shareaccessrules"];
    let undone = [
        rule(&["DELETE"], &targets),
        // Another level or squash takes access away as well as a deletion does.
        rule(&["UPDATE"], &["shareaccessrules"]),
    ];
    let squash = |object: &str| format!("(has({object}.spec.squash) ? {object}.spec.squash : '')");
    let undoes = json!({
        "name": "undoes",
        "expression": format!(
            "request.operation == 'DELETE' || object.spec.accessLevel != oldObject.spec.accessLevel || {} != {}",
            squash("object"), squash("oldObject"),
        ),
    });
    let first =
        "; it has to go first: its owner can delete it, or who has the verb override on resourcelocks";
    let because = "(has(params.spec.reason) ? ' (' + params.spec.reason + ')' : '')";
    let marked = |label: &str| json!({"matchExpressions": [{"key": label, "operator": "Exists"}]});
    let locks = |selector: Value| json!({"selector": selector, "parameterNotFoundAction": "Allow"});
    let kind = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "ResourceLock"});
    let new = json!({"matchExpressions": [{"key": labels::ENFORCED, "operator": "DoesNotExist"}]});
    let by_lock = "create or delete a ResourceLock";
    [
        validating(
            "new-locks",
            &json!({
                "failurePolicy": "Fail",
                "paramKind": kind,
                "matchConstraints": {"resourceRules": undone},
                "matchConditions": [undoes, {
                    "name": "is-locked",
                    "expression": "params.spec.action == 'Delete' && params.spec.resourceRef.kind == request.kind.kind \
                                   && params.spec.resourceRef.name == oldObject.metadata.name \
                                   && (!has(params.spec.resourceRef.uid) || params.spec.resourceRef.uid == oldObject.metadata.uid)",
                }],
                "validations": [deny(&format!(
                    "request.kind.kind + ' ' + oldObject.metadata.name + ' is locked by ResourceLock ' + params.metadata.name \
                     + {because} + '{first}'"
                ))],
            }),
            json!({"paramRef": locks(new)}),
        ),
        validating(
            "locked",
            &json!({
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": undone, "objectSelector": marked(labels::LOCKED)},
                "matchConditions": [undoes],
                "validations": [deny(&format!(
                    "request.kind.kind + ' ' + oldObject.metadata.name + ' is locked by ' \
                     + oldObject.metadata.?annotations[?'{LOCKED_BY}'].orValue('a ResourceLock') + '{first}'"
                ))],
            }),
            json!({}),
        ),
        marks_are_the_operators("locked", labels::LOCKED, Some(LOCKED_BY), &targets, by_lock),
        marks_are_the_operators("enforced", labels::ENFORCED, None, &["resourcelocks"], by_lock),
        validating(
            "locked-namespaces",
            &json!({
                // The others hold what is locked if this one can't be asked; no namespace of a cluster is to hang on Shoal.
                "failurePolicy": "Ignore",
                "paramKind": kind,
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["namespaces"],
                }]},
                "matchConditions": [{"name": "is-locked", "expression": "params.spec.action == 'Delete'"}],
                "validations": [deny(&format!(
                    "'Namespace ' + oldObject.metadata.name + ' holds ResourceLock ' + params.metadata.name + ' on ' \
                     + params.spec.resourceRef.kind + ' ' + params.spec.resourceRef.name + {because} + '{first}'"
                ))],
            }),
            // Without a namespace: the locks of the one that is to be deleted.
            json!({"paramRef": locks(json!({}))}),
        ),
        lock_owners(),
        validating(
            "definitions",
            &json!({
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "operations": ["DELETE"],
                    "resources": ["customresourcedefinitions"],
                }]},
                "matchConditions": [{"name": "is-ours", "expression": format!("oldObject.spec.group == '{GROUP}'")}],
                "validations": [{
                    "expression": format!("oldObject.metadata.?annotations[?'{ALLOW_DELETION}'].hasValue()"),
                    "messageExpression": format!(
                        "'deleting ' + oldObject.metadata.name + ' deletes every object of the kind, locked or not; annotate it with \
                         {ALLOW_DELETION} first, if that is what is wanted'"
                    ),
                    "reason": "Forbidden",
                }],
            }),
            json!({}),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The policies that keep a Share as it is while its export or access is being made again. Only its spec: what users and tools
/// say in its metadata goes on. The operator, and whoever has its verb, is let through.
pub fn ensuring_policies() -> Vec<Value> {
    let shares = ["shares"];
    let is_marked = json!({"matchExpressions": [{"key": labels::ENSURING, "operator": "Exists"}]});
    let freeze = validating(
        "ensuring",
        &json!({
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [rule(&["UPDATE", "DELETE"], &shares)],
                "objectSelector": is_marked,
            },
            "matchConditions": [
                {"name": "is-ensured", "expression": format!("oldObject.metadata.?labels[?'{}'].hasValue()", labels::ENSURING)},
                {"name": "changes", "expression": "request.operation == 'DELETE' || object.spec != oldObject.spec"},
                {"name": "is-not-the-operator", "expression": format!(
                    "!authorizer.group('{GROUP}').resource('shares').namespace(request.namespace).check('operate').allowed()"
                )},
            ],
            "validations": [deny(&format!(
                "'Share ' + oldObject.metadata.name + ' is being ensured: its export is being made again; try again when its condition \
                 Ensuring is gone. If no operator runs, who has the verb operate on shares can take off the label {}'",
                labels::ENSURING
            ))],
        }),
        json!({}),
    );
    let instead = format!("ask for it with the annotation {REQUESTED_AT}");
    let mark = marks_are_the_operators("ensuring", labels::ENSURING, None, &shares, &instead);
    freeze.into_iter().chain(mark).collect()
}

/// Who may make a lock, and who may change it or take it away.
fn lock_owners() -> [Value; 2] {
    // They delete for others, and have every right; the controller manager does so itself where they have no accounts.
    let cleaners = "['system:serviceaccount:kube-system:namespace-controller', \
                    'system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']";
    let me = "request.userInfo.username";
    let forbid = |expression: &str, message: &str| json!({"expression": expression, "messageExpression": message, "reason": "Forbidden"});
    validating(
        "lock-owners",
        &json!({
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule(&["CREATE", "UPDATE", "DELETE"], &["resourcelocks"])]},
            // A Show lock keeps nothing from going, and so goes with its namespace.
            "matchConditions": [{
                "name": "is-not-cleaned-away",
                "expression": format!(
                    "request.operation != 'DELETE' || oldObject.spec.action != 'Show' || !({me} in {cleaners})"
                ),
            }],
            "variables": [{
                "name": "override",
                "expression": format!(
                    "authorizer.group('{GROUP}').resource('resourcelocks').namespace(request.namespace).check('override').allowed()"
                ),
            }],
            "validations": [
                forbid(
                    &format!("request.operation != 'DELETE' || !({me} in {cleaners})"),
                    "'ResourceLock ' + oldObject.metadata.name + ' on ' + oldObject.spec.resourceRef.kind + ' ' \
                     + oldObject.spec.resourceRef.name + ' does not go with its namespace or its owner object; ' \
                     + oldObject.spec.owner + ' can delete it, or who has the verb override on resourcelocks'",
                ),
                forbid(
                    &format!("request.operation != 'CREATE' || object.spec.owner == {me} || variables.override"),
                    &format!(
                        "'spec.owner: ' + object.spec.owner + ' is not who creates the lock; write ' + {me} + ', or leave it out \
                         from Kubernetes 1.36 on. Another\\'s takes the verb override on resourcelocks'"
                    ),
                ),
                forbid(
                    "request.operation != 'CREATE' || object.spec.context == 'User' || variables.override",
                    "'spec.context: ' + object.spec.context + ' takes the verb override on resourcelocks; write User, or leave it out'",
                ),
                // What it hides, its owner is given.
                forbid(
                    "request.operation != 'CREATE' || object.spec.action != 'Show' || variables.override || authorizer.group('')\
                     .resource('secrets').namespace(request.namespace).check('get').allowed()",
                    "'spec.action: Show gives the key of ' + object.spec.resourceRef.name + ' to ' + object.spec.owner + ', and you may not \
                     get the Secrets of namespace ' + request.namespace + ', where it is; ask for the verb get on secrets there'",
                ),
                forbid(
                    &format!("request.operation == 'CREATE' || oldObject.spec.owner == {me} || variables.override"),
                    "'ResourceLock ' + oldObject.metadata.name + ' belongs to ' + oldObject.spec.owner + '; only its owner, or who \
                     has the verb override on resourcelocks, may change or delete it'",
                ),
            ],
        }),
        json!({}),
    )
}

/// Only the operator writes a label by which a policy selects, and the annotation that goes with it.
fn marks_are_the_operators(
    name: &str,
    label: &str,
    annotation: Option<&str>,
    resources: &[&str],
    instead: &str,
) -> [Value; 2] {
    let differs = |field: &str, key: &str| {
        format!("object.metadata.?{field}[?'{key}'] != oldObject.metadata.?{field}[?'{key}']")
    };
    let annotation = annotation.map(|key| format!(" || {}", differs("annotations", key)));
    let changes = differs("labels", label) + &annotation.unwrap_or_default();
    validating(
        &format!("{name}-label"),
        &json!({
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [rule(&["CREATE", "UPDATE"], resources)],
                // Of the object before or after.
                "objectSelector": {"matchExpressions": [{"key": label, "operator": "Exists"}]},
            },
            "matchConditions": [{"name": "changes", "expression": format!("oldObject == null || {changes}")}],
            "validations": [operators(&format!(
                    "'metadata.labels: {label} is the operator\\'s (verb operate on ' + request.resource.resource \
                     + '); leave it as it is, and {instead}'"
                ))],
        }),
        json!({}),
    )
}

/// What takes the verb `operate` on the kind.
fn operators(message: &str) -> Value {
    let may = format!(
        "authorizer.group('{GROUP}').resource(request.resource.resource).namespace(request.namespace).check('operate').allowed()"
    );
    json!({"expression": may, "messageExpression": message, "reason": "Forbidden"})
}

fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": operations, "resources": resources})
}

fn deny(message: &str) -> Value {
    json!({"expression": "false", "messageExpression": message, "reason": "Forbidden"})
}

/// A policy, and a binding that denies.
fn validating(name: &str, spec: &Value, mut binding: Value) -> [Value; 2] {
    let name = format!("{name}.{GROUP}");
    binding["policyName"] = name.clone().into();
    binding["validationActions"] = json!(["Deny"]);
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": spec,
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": binding,
        }),
    ]
}

/// The policies that ask the authorizer whether a user may write what is not for everybody: a controller can't know who
/// wrote a field. One policy and binding for each.
pub fn verb_policies() -> Vec<Value> {
    let pin = "has({}.spec.placement) && has({}.spec.placement.backendName)";
    let paused = format!("has({{}}.metadata.annotations) && '{PAUSED}' in {{}}.metadata.annotations");
    let former = |whose: &str| format!("{whose}.metadata.?annotations[?'{FORMER_DATA}']");
    let neighbours = |whose: &str| format!("{whose}.spec.?neighbours.orValue([])");
    let of = |expression: &str, whose: &str| expression.replace("{}", whose);
    let max = "object.status.capabilities.size.max";
    [
        Guarded {
            name: "pin",
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
            name: "adopt",
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
            name: "adopt-former",
            resource: "shares",
            verb: "adopt",
            operations: &["CREATE", "UPDATE"],
            // Who takes it off decides nothing: a Share without a place waits again.
            when: format!(
                "{new}.hasValue() && (oldObject == null || {new} != {})",
                former("oldObject"),
                new = former("object"),
            ),
            message: format!(
                "'metadata.annotations: {FORMER_DATA} says what becomes of the data of a former Share, which takes the verb adopt on \
                 shares; leave it out, or ask an admin'"
            ),
        },
        Guarded {
            name: "adopt.sharebackends",
            resource: "sharebackends",
            verb: "adopt",
            operations: &["CREATE", "UPDATE"],
            when: format!(
                "{} != (oldObject == null ? [] : {})",
                neighbours("object"),
                neighbours("oldObject")
            ),
            message: "'spec.neighbours: whose data is not held for the Shares that it is tagged with takes the verb adopt on \
                      sharebackends; leave it as it is, or ask an admin'"
                .into(),
        },
        Guarded {
            name: "extend-beyond-max",
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
            name: "operate",
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
            name: "operate.sharedeletions",
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
    .chain(finalizers_are_the_operators())
    .collect()
}

/// Who takes a finalizer off, or deletes what has lost it, gets its quota back and leaves the data behind, with clients let in that no
/// object tells of any more.
fn finalizers_are_the_operators() -> [Value; 2] {
    let held = |whose: &str| {
        format!("(has({whose}.metadata.finalizers) && '{FINALIZER}' in {whose}.metadata.finalizers)")
    };
    let is_used =
        "has(oldObject.status) && (has(oldObject.status.backendName) || has(oldObject.status.appliedLevel))";
    validating(
        "finalizers",
        &json!({
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule(&["UPDATE", "DELETE"], &["shares", "shareaccessrules"])]},
            "matchConditions": [{
                "name": "loses-it",
                // Of one that is not being deleted it comes back.
                "expression": format!(
                    "request.operation == 'DELETE' ? {is_used} && !{old} \
                     : has(oldObject.metadata.deletionTimestamp) && {old} && !{new}",
                    old = held("oldObject"),
                    new = held("object"),
                ),
            }],
            "validations": [operators(&format!(
                    "'metadata.finalizers: {FINALIZER} is the operator\\'s (verb operate on ' + request.resource.resource + '): ' \
                     + (request.operation == 'DELETE' ? 'it puts it on before ' + oldObject.metadata.name + ' can be deleted; try again' \
                     : 'it takes it off when nothing is left of ' + oldObject.metadata.name + ', and its conditions say what that waits for')"
                ))],
        }),
        json!({}),
    )
}

/// A write that takes a verb.
struct Guarded {
    name: &'static str,
    resource: &'static str,
    verb: &'static str,
    operations: &'static [&'static str],
    when: String,
    message: String,
}

impl Guarded {
    fn policy(self) -> [Value; 2] {
        // Of what is in no namespace a request names none.
        let namespace = match self.resource {
            "shares" => ".namespace(request.namespace)",
            _ => "",
        };
        validating(
            self.name,
            &json!({
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule(self.operations, &[self.resource])]},
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
            }),
            json!({}),
        )
    }
}
