//! What the API server refuses by itself, and how it says so: the field, the value and the remedy. And what it must let pass.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use shoal_crds::names::FINALIZER;
use shoal_e2e::{
    lab::{KubernetesRelease, LabOptions},
    suite::Suite,
    world::{PATIENCE, World, eventually, forbidden},
};

const NAMESPACE: &str = "default";

macro_rules! on {
    ($release:ident, $module:ident: $($scenario:ident),+ $(,)?) => {
        mod $module {
            use super::*;

            static SUITE: Suite<World> = Suite::new();

            $(#[test]
            fn $scenario() {
                SUITE.run(|| start(KubernetesRelease::$release), super::$scenario);
            })+
        }
    };
}

on!(V1_37, on_1_37: verbs, sizes, protocols_and_types, addresses, identities, whom_a_rule_names, backends, share_types, share_quotas, handles, retention_ends, readable_paths, metadata, immutable_fields);
on!(V1_34, on_1_34: verbs, sizes, protocols_and_types, addresses, identities, whom_a_rule_names, backends, share_types, share_quotas, handles, retention_ends, readable_paths, metadata, immutable_fields);

async fn start(release: KubernetesRelease) -> Result<World> {
    let options = LabOptions {
        ceph: None,
        kubernetes: Some(release),
        controller_manager: false,
        ..LabOptions::default()
    };
    World::start(&options).await
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("shoal.storage", "v1alpha1", kind));
    if matches!(kind, "Share" | "ShareAccessRule" | "ShareQuota") {
        Api::namespaced_with(client.clone(), NAMESPACE, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

fn document(kind: &str, name: &str, spec: Value) -> Result<DynamicObject> {
    let document = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    Ok(serde_json::from_value(document)?)
}

/// A dry run: everything happens but the storing.
async fn create(world: &World, kind: &str, spec: Value) -> Result<kube::Result<DynamicObject>> {
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Ok(api(&world.client, kind)
        .create(&params, &document(kind, "tried", spec)?)
        .await)
}

async fn passes(world: &World, kind: &str, spec: Value) -> Result<()> {
    let shown = spec.to_string();
    create(world, kind, spec)
        .await?
        .with_context(|| format!("{kind} {shown} must pass"))?;
    Ok(())
}

/// The refusal must hold all of these words.
async fn is_refused(world: &World, kind: &str, spec: Value, words: &[&str]) -> Result<()> {
    let shown = spec.to_string();
    refusal(create(world, kind, spec).await?, words).with_context(|| format!("{kind} {shown}"))
}

fn refusal(answer: kube::Result<DynamicObject>, words: &[&str]) -> Result<()> {
    let status = match answer {
        Ok(_) => bail!("passed, and must not"),
        Err(kube::Error::Api(status)) => status,
        Err(error) => return Err(error.into()),
    };
    ensure!(
        matches!(status.code, 400 | 422),
        "refused with {}: {}",
        status.code,
        status.message
    );
    for word in words {
        ensure!(
            status.message.contains(word),
            "{word:?} is not in the refusal: {}",
            status.message
        );
    }
    Ok(())
}

fn share(size: Value) -> Value {
    json!({"protocol": "NFS", "size": size})
}

fn source(handle: &str) -> Value {
    json!({"source": {"existing": {"backendName": "b", "handle": handle}}})
}

fn share_deletion() -> Value {
    json!({
        "shareRef": {"namespace": "n", "namespaceUID": "u", "name": "s", "uid": "v"}, "protocol": "NFS", "size": "1Gi",
        "backendName": "b", "fsid": "f", "fsName": "fs", "fsID": 1, "handle": "g/x",
    })
}

fn ip(to: &str) -> Value {
    json!({"shareRef": {"name": "s"}, "accessType": "IP", "accessTo": to})
}

fn cephx(to: &str) -> Value {
    json!({"shareRef": {"name": "s"}, "accessType": "CephX", "accessTo": to})
}

/// `spec` with other fields; null takes one away.
fn with(mut spec: Value, fields: Value) -> Value {
    for (key, value) in fields.as_object().cloned().unwrap_or_default() {
        if value.is_null() {
            spec.as_object_mut().unwrap().remove(&key);
        } else {
            spec[key] = value;
        }
    }
    spec
}

fn ceph_backend() -> Value {
    json!({"connectionSecretRef": {"namespace": "n", "name": "x"}, "filesystem": "cephfs", "nfs": {"clusterID": "nfs"}})
}

async fn sizes(world: &World) -> Result<()> {
    for size in ["100Ti", "1024Pi", "1536Mi", "1", "5k", "1073741824"] {
        passes(world, "Share", share(json!(size))).await?;
    }
    passes(world, "Share", share(json!(1_073_741_824))).await?;
    let remedy = "write for example 100Gi, or 1536Mi for 1.5Gi";
    let text = [
        "0",
        "0Gi",
        "-1Gi",
        "1.5Gi",
        "0.5",
        "1e3",
        "1025Pi",
        "2Ei",
        "99999999999999999999999999",
        "",
        "abc",
        "1 Gi",
        "01Gi",
        "1gi",
    ];
    for size in text {
        is_refused(
            world,
            "Share",
            share(json!(size)),
            &["spec.size", &format!("'{size}' is not"), remedy],
        )
        .await?;
    }
    for size in [0, -5, 1_i64 << 61] {
        is_refused(
            world,
            "Share",
            share(json!(size)),
            &["spec.size", &format!("'{size}' is not"), remedy],
        )
        .await?;
    }
    for size in [json!(1.5), json!(true), json!(["1Gi"]), json!({})] {
        is_refused(
            world,
            "Share",
            share(size),
            &["spec.size", "must be of type integer,string"],
        )
        .await?;
    }
    is_refused(
        world,
        "Share",
        share(json!("9".repeat(65))),
        &["spec.size: Too long", "64"],
    )
    .await?;
    is_refused(
        world,
        "Share",
        json!({"protocol": "NFS"}),
        &["spec.size: Required value"],
    )
    .await
}

async fn protocols_and_types(world: &World) -> Result<()> {
    for protocol in ["NFS", "CephFS"] {
        passes(world, "Share", json!({"protocol": protocol, "size": "1Gi"})).await?;
    }
    for protocol in ["SMB", "nfs", ""] {
        let words = [
            "spec.protocol",
            &format!("Unsupported value: \"{protocol}\""),
            "\"NFS\", \"CephFS\"",
        ];
        is_refused(
            world,
            "Share",
            json!({"protocol": protocol, "size": "1Gi"}),
            &words,
        )
        .await?;
    }
    is_refused(
        world,
        "Share",
        json!({"size": "1Gi"}),
        &["spec.protocol: Required value"],
    )
    .await?;
    let of_type = |name: &str| json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": name});
    passes(world, "Share", of_type("gold")).await?;
    is_refused(
        world,
        "Share",
        of_type(""),
        &["spec.shareTypeName", "at least 1 chars"],
    )
    .await?;
    is_refused(
        world,
        "Share",
        of_type(&"x".repeat(254)),
        &["spec.shareTypeName: Too long", "253"],
    )
    .await
}

async fn addresses(world: &World) -> Result<()> {
    let good = [
        "10.0.0.5",
        "10.0.0.0/24",
        "0.0.0.0/0",
        "10.0.0.5/32",
        "fd00::1",
        "fd00::/64",
        "fd00::1/128",
        "::/0",
    ];
    for to in good {
        passes(world, "ShareAccessRule", ip(to)).await?;
    }
    for to in ["10.0.0.5/24", "fd00::1/64"] {
        let words = [
            "spec.accessTo",
            to,
            "has host bits set",
            "write the first address of the network",
        ];
        is_refused(world, "ShareAccessRule", ip(to), &words).await?;
    }
    let bad = [
        "10.0.0.0/33",
        "fd00::/129",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0.0/ 24",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0",
        "example.com",
        "hello world",
        "10.0.0.5 ",
        "10.0.0.0/24,10.1.0.0/24",
        "::ffff:10.0.0.5",
        "::ffff:10.0.0.0/120",
        "fe80::1%eth0",
    ];
    for to in bad {
        let value = format!("'{to}' is no IPv4 or IPv6 address or network");
        is_refused(
            world,
            "ShareAccessRule",
            ip(to),
            &["spec.accessTo", &value, "write for example 10.0.0.5"],
        )
        .await?;
    }
    is_refused(
        world,
        "ShareAccessRule",
        ip(&"1".repeat(129)),
        &["spec.accessTo: Too long", "128"],
    )
    .await
}

async fn identities(world: &World) -> Result<()> {
    for to in ["alice", "bob_1", "A-b", "a@b", "a+b=c:d"] {
        passes(world, "ShareAccessRule", cephx(to)).await?;
    }
    let remedy = "write ASCII letters, digits and _ @ + = : -";
    let bad = [
        "al.ice",
        "al ice",
        "ålice",
        "client.alice",
        "nfs.x",
        "ganesha.a",
        "mds.a",
        "mgr.x",
        "osd.0",
        "mon.a",
        "-x",
        "a/b",
        "a*",
        "a,b",
    ];
    for to in bad {
        let value = format!("'{to}' is no CephX identity");
        is_refused(
            world,
            "ShareAccessRule",
            cephx(to),
            &["spec.accessTo", &value, remedy],
        )
        .await?;
    }
    for to in ["admin", "client", "ganesha", "mds", "mgr", "mon", "nfs", "osd"] {
        let words = [
            "spec.accessTo",
            &format!("{to} is reserved for Ceph itself"),
            "choose another identity",
        ];
        is_refused(world, "ShareAccessRule", cephx(to), &words).await?;
    }
    is_refused(
        world,
        "ShareAccessRule",
        cephx(&"x".repeat(129)),
        &["spec.accessTo: Too long", "128"],
    )
    .await
}

async fn whom_a_rule_names(world: &World) -> Result<()> {
    let kind = "ShareAccessRule";
    let reference = json!({"name": "n", "key": "k"});
    let by_secret = json!({"accessTo": null, "accessToSecretRef": reference});
    passes(world, kind, with(ip(""), by_secret.clone())).await?;
    passes(world, kind, with(cephx(""), by_secret)).await?;
    passes(world, kind, with(cephx(""), json!({"accessTo": null}))).await?;
    passes(
        world,
        kind,
        with(cephx("alice"), json!({"credentialsSecretName": "alice-key"})),
    )
    .await?;
    passes(
        world,
        kind,
        with(
            ip("10.0.0.5"),
            json!({"squash": "Root", "accessLevel": "ReadOnly"}),
        ),
    )
    .await?;

    let neither = with(ip(""), json!({"accessTo": null}));
    is_refused(
        world,
        kind,
        neither,
        &["spec.accessTo", "needs accessTo or accessToSecretRef", "set one"],
    )
    .await?;
    for spec in [ip("10.0.0.5"), cephx("alice")] {
        let both = with(spec, json!({"accessToSecretRef": reference}));
        is_refused(
            world,
            kind,
            both,
            &["accessTo and accessToSecretRef exclude each other", "keep one"],
        )
        .await?;
    }
    let cases = [
        (
            with(ip("10.0.0.5"), json!({"accessType": "Cert"})),
            [
                "spec.accessType",
                "Unsupported value: \"Cert\"",
                "\"IP\", \"CephX\"",
            ],
        ),
        (
            with(ip("10.0.0.5"), json!({"accessLevel": "Write"})),
            [
                "spec.accessLevel",
                "Unsupported value: \"Write\"",
                "\"ReadWrite\", \"ReadOnly\"",
            ],
        ),
        (
            with(ip("10.0.0.5"), json!({"squash": "Foo"})),
            [
                "spec.squash",
                "Unsupported value: \"Foo\"",
                "\"None\", \"Root\", \"All\"",
            ],
        ),
        (
            with(cephx("alice"), json!({"squash": "Root"})),
            ["spec.squash", "for NFS clients", "remove it"],
        ),
        (
            with(ip("10.0.0.5"), json!({"credentialsSecretName": "x"})),
            [
                "spec.credentialsSecretName",
                "only a rule of accessType CephX",
                "remove",
            ],
        ),
        (
            with(cephx("alice"), json!({"credentialsSecretName": "Xy"})),
            ["spec.credentialsSecretName", "\"Xy\"", "should match"],
        ),
        (
            with(cephx("alice"), json!({"credentialsSecretName": "x".repeat(254)})),
            ["spec.credentialsSecretName", "Too long", "253"],
        ),
        (
            with(ip("10.0.0.5"), json!({"shareRef": {"name": ""}})),
            ["spec.shareRef.name", "\"\"", "at least 1 chars"],
        ),
        (
            with(ip("10.0.0.5"), json!({"shareRef": {"name": "x".repeat(254)}})),
            ["spec.shareRef.name", "Too long", "253"],
        ),
        (
            with(ip("10.0.0.5"), json!({"shareRef": null})),
            ["spec.shareRef", "Required value", ""],
        ),
        (
            with(
                ip(""),
                json!({"accessTo": null, "accessToSecretRef": {"name": "n"}}),
            ),
            ["spec.accessToSecretRef.key", "Required value", ""],
        ),
    ];
    for (spec, words) in cases {
        is_refused(world, kind, spec, &words).await?;
    }
    Ok(())
}

async fn backends(world: &World) -> Result<()> {
    let kind = "ShareBackend";
    let ceph = |fields: Value| json!({"ceph": with(ceph_backend(), fields)});
    let endpoints = |list: Value| ceph(json!({"nfs": {"clusterID": "n", "endpoints": list}}));
    passes(world, kind, ceph(json!({}))).await?;
    passes(world, kind, ceph(json!({"nfs": null}))).await?;
    passes(world, kind, json!({"simulated": {}})).await?;
    for endpoint in [
        "10.0.0.1",
        "10.0.0.1:2049",
        "[::1]:2049",
        "::1",
        "[fd00::1]",
        "host.example",
        "a-b.c:65535",
    ] {
        passes(world, kind, endpoints(json!([endpoint]))).await?;
    }
    for endpoint in [
        "a b",
        "host:99999",
        "10.0.0.1:0",
        "h:65536",
        "[::1",
        "host:",
        "nfs://x",
        "a/b",
    ] {
        let words = [
            "spec.ceph.nfs.endpoints",
            &format!("'{endpoint}' is no endpoint"),
            "write a host, host:port",
        ];
        is_refused(world, kind, endpoints(json!([endpoint])), &words).await?;
    }
    passes(
        world,
        kind,
        json!({
            "simulated": {}, "schedulingEnabled": false, "disabledReason": "worn out", "paused": true,
            "reservedPercentage": 100, "overcommitRatio": "1.5",
        }),
    )
    .await?;
    for ratio in [json!(2), json!("2"), json!("0.5"), json!("20.25")] {
        passes(world, kind, json!({"simulated": {}, "overcommitRatio": ratio})).await?;
    }
    for ratio in [
        json!(0),
        json!("0.00"),
        json!("x"),
        json!("-1"),
        json!("1e3"),
        json!("1.555"),
    ] {
        let text = ratio.as_str().map_or_else(|| ratio.to_string(), str::to_owned);
        let words = [
            "spec.overcommitRatio",
            &format!("'{text}' is not a ratio"),
            "write for example '1.5'",
        ];
        is_refused(
            world,
            kind,
            json!({"simulated": {}, "overcommitRatio": ratio}),
            &words,
        )
        .await?;
    }
    let simulated = |fields: Value| with(json!({"simulated": {}}), fields);
    for (fields, words) in [
        (
            json!({"disabledReason": "why"}),
            ["spec.disabledReason", "set schedulingEnabled to false"],
        ),
        (
            json!({"schedulingEnabled": false, "disabledReason": ""}),
            ["spec.disabledReason", "at least 1 chars"],
        ),
        (
            json!({"reservedPercentage": 101}),
            [
                "spec.reservedPercentage: Invalid value",
                "less than or equal to 100",
            ],
        ),
        (
            json!({"overcommitRatio": 1.5}),
            ["spec.overcommitRatio", "integer,string"],
        ),
    ] {
        is_refused(world, kind, simulated(fields), &words).await?;
    }
    is_refused(
        world,
        kind,
        ceph(json!({"nfs": {"clusterID": "n", "maxExports": 0}})),
        &[
            "spec.ceph.nfs.maxExports: Invalid value",
            "greater than or equal to 1",
        ],
    )
    .await?;
    is_refused(
        world,
        kind,
        ceph(json!({"nfs": {"clusterID": "shoal-nfs", "maxExports": 187}})),
        &[
            "spec.ceph.nfs.maxExports: Invalid value",
            "of more than 8192 / (35 + length of clusterID) exports, 186 for 'shoal-nfs', Ceph loses some",
        ],
    )
    .await?;
    for neither_or_both in [json!({}), json!({"simulated": {}, "ceph": ceph_backend()})] {
        is_refused(
            world,
            kind,
            neither_or_both,
            &["spec", "set exactly one of ceph and simulated"],
        )
        .await?;
    }
    let cases = [
        (
            ceph(json!({"filesystem": ""})),
            ["spec.ceph.filesystem", "at least 1 chars"],
        ),
        (
            ceph(json!({"filesystem": "x".repeat(254)})),
            ["spec.ceph.filesystem: Too long", "253"],
        ),
        (
            ceph(json!({"subvolumeGroup": "a/b"})),
            ["spec.ceph.subvolumeGroup: Invalid value: \"a/b\"", "should match"],
        ),
        (
            ceph(json!({"connectionSecretRef": null})),
            ["spec.ceph.connectionSecretRef", "Required value"],
        ),
        (
            ceph(json!({"nfs": {"clusterID": "a.b/c"}})),
            [
                "spec.ceph.nfs.clusterID: Invalid value: \"a.b/c\"",
                "should match",
            ],
        ),
        (
            endpoints(json!(["h".repeat(254)])),
            ["spec.ceph.nfs.endpoints[0]: Too long", "253"],
        ),
        (
            endpoints((0..17).map(|i| json!(format!("h{i}"))).collect()),
            ["spec.ceph.nfs.endpoints: Too many: 17", "16"],
        ),
        (
            json!({"simulated": {}, "maxConcurrentOperations": 0}),
            ["spec.maxConcurrentOperations: Invalid value: 0", "or equal to 1"],
        ),
        (
            json!({"simulated": {}, "maxConcurrentOperations": 65}),
            [
                "spec.maxConcurrentOperations: Invalid value: 65",
                "or equal to 64",
            ],
        ),
        (
            json!({"simulated": {"capacity": "1.5Gi"}}),
            ["spec.simulated.capacity", "1536Mi for 1.5Gi"],
        ),
        (
            json!({"simulated": {"failurePercent": 101}}),
            [
                "spec.simulated.failurePercent: Invalid value: 101",
                "or equal to 100",
            ],
        ),
    ];
    for (spec, words) in cases {
        is_refused(world, kind, spec, &words).await?;
    }
    Ok(())
}

async fn share_types(world: &World) -> Result<()> {
    let kind = "ShareType";
    passes(world, kind, json!({})).await?;
    passes(
        world,
        kind,
        json!({
            "backendNames": ["b"], "protocols": ["NFS"], "size": {"min": "1Gi", "max": "100Ti", "maxExtend": "200Ti"},
            "shrink": true, "snapshots": true, "createFromSnapshot": true,
            "root": {"uid": 1000, "gid": 4_294_967_294_u32, "mode": "0770"}, "squash": "Root",
            "allowedNamespaces": {"matchLabels": {"a": "b"}},
            "deletion": "Wait", "retention": "720h30m", "deletionPolicy": "Retain",
        }),
    )
    .await?;
    let labels = |labels: Value| json!({"allowedNamespaces": {"matchLabels": labels}});
    let many: Value = (0..33)
        .map(|i| (format!("k{i}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let cases = [
        (
            json!({"backendNames": ["b"], "backendSelector": {}}),
            ["backendNames and backendSelector exclude each other", "keep one"],
        ),
        (
            json!({"backendNames": []}),
            ["spec.backendNames", "at least 1 items"],
        ),
        (
            json!({"backendNames": ["b", "b"]}),
            ["spec.backendNames[1]", "Duplicate value: \"b\""],
        ),
        (
            json!({"backendNames": (0..65).map(|i| format!("b{i}")).collect::<Vec<_>>()}),
            ["spec.backendNames: Too many: 65", "64"],
        ),
        (
            json!({"protocols": ["SMB"]}),
            [
                "spec.protocols[0]: Unsupported value: \"SMB\"",
                "\"NFS\", \"CephFS\"",
            ],
        ),
        (
            json!({"protocols": vec!["NFS"; 9]}),
            ["spec.protocols: Too many: 9", "8"],
        ),
        (
            json!({"size": {"min": "2Gi", "max": "1Gi"}}),
            ["spec.size", "min 2Gi is above max 1Gi; swap them"],
        ),
        (
            json!({"size": {"max": "2Gi", "maxExtend": "1Gi"}}),
            ["spec.size", "maxExtend 1Gi is how far beyond max"],
        ),
        (
            json!({"size": {"maxExtend": "1Gi"}}),
            ["spec.size", "set max, to no more than that"],
        ),
        (json!({"size": {"min": "0"}}), ["spec.size.min", "'0' is not"]),
        (
            json!({"retention": "-1h"}),
            [
                "spec.retention",
                "'-1h' is not a length of time from 0s to 87600h; write for example 720h",
            ],
        ),
        (
            json!({"retention": "30d"}),
            ["spec.retention", "'30d' is not a length of time"],
        ),
        (
            json!({"retention": ""}),
            ["spec.retention", "'' is not a length of time"],
        ),
        (
            json!({"retention": "87601h"}),
            [
                "spec.retention",
                "'87601h' is not a length of time from 0s to 87600h",
            ],
        ),
        (
            json!({"deletion": "Later"}),
            [
                "spec.deletion: Unsupported value: \"Later\"",
                "\"Deferred\", \"Wait\"",
            ],
        ),
        (
            json!({"deletionPolicy": "Keep"}),
            [
                "spec.deletionPolicy: Unsupported value: \"Keep\"",
                "\"Delete\", \"Retain\"",
            ],
        ),
        (
            json!({"root": {"uid": -1}}),
            ["spec.root.uid: Invalid value: -1", "or equal to 0"],
        ),
        (
            json!({"root": {"gid": 4_294_967_295_u32}}),
            [
                "spec.root.gid: Invalid value: 4294967295",
                "or equal to 4294967294",
            ],
        ),
        (
            json!({"root": {"mode": "999"}}),
            ["spec.root.mode: Invalid value: \"999\"", "should match"],
        ),
        (
            json!({"root": {"mode": "07777"}}),
            ["spec.root.mode: Too long", "4"],
        ),
        (
            labels(many),
            ["spec.allowedNamespaces.matchLabels: Too many: 33", "32"],
        ),
        (
            labels(json!({"k": "v".repeat(64)})),
            ["spec.allowedNamespaces.matchLabels.k: Too long", "63"],
        ),
    ];
    for (spec, words) in cases {
        is_refused(world, kind, spec, &words).await?;
    }
    Ok(())
}

/// What takes a verb: who lacks it is told the field and the remedy, who has it passes.
async fn share_quotas(world: &World) -> Result<()> {
    let hard = |hard: Value| json!({"hard": hard});
    for spec in [
        json!({}),
        hard(json!({"shares": 0})),
        hard(json!({"shares": 50, "capacity": "10Ti", "perShareCapacity": "1Ti"})),
        json!({"perShareType": [{"shareTypeName": "gold", "hard": {"shares": 3}}]}),
    ] {
        passes(world, "ShareQuota", spec).await?;
    }
    let refused = async |spec: Value, words: &[&str]| is_refused(world, "ShareQuota", spec, words).await;
    refused(
        hard(json!({"shares": -1})),
        &["spec.hard.shares", "-1", "greater than or equal to 0"],
    )
    .await?;
    for field in ["capacity", "perShareCapacity"] {
        for value in ["-1Gi", "0", "1.5Gi", "lots"] {
            let path = format!("spec.hard.{field}");
            refused(
                hard(json!({field: value})),
                &[&path, value, "whole number of bytes", "write for example"],
            )
            .await?;
        }
    }
    let twice = json!({"shareTypeName": "gold", "hard": {}});
    refused(
        json!({"perShareType": [twice, twice]}),
        &["spec.perShareType[1]", "gold"],
    )
    .await?;
    refused(
        json!({"perShareType": [{"hard": {}}]}),
        &["spec.perShareType[0].shareTypeName", "Required"],
    )
    .await
}

/// Where what a deleted share left is found.
async fn handles(world: &World) -> Result<()> {
    let from = |handle: &str| with(share(json!("1Gi")), source(handle));
    passes(world, "Share", from("group/subvolume")).await?;
    for handle in ["subvolume", "/subvolume", "group/", "group/a/b", "/", ""] {
        is_refused(
            world,
            "Share",
            from(handle),
            &["spec.source.existing.handle", handle, "group/subvolume"],
        )
        .await?;
    }
    Ok(())
}

/// Until when it is kept.
async fn retention_ends(world: &World) -> Result<()> {
    let until = |until: Value| with(share_deletion(), json!({"retainUntil": until}));
    for end in ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00+02:00"] {
        passes(world, "ShareDeletion", until(json!(end))).await?;
    }
    for end in ["tomorrow", "2030-01-01", "2030-13-01T00:00:00Z", "72h", ""] {
        is_refused(
            world,
            "ShareDeletion",
            until(json!(end)),
            &["spec.retainUntil", end],
        )
        .await?;
    }
    is_refused(
        world,
        "ShareDeletion",
        until(json!(4_102_444_800_i64)),
        &["spec.retainUntil", "date-time"],
    )
    .await
}

/// Nobody but the operator lets go of what may still be there.
async fn finalizers(world: &World, user: &Api<DynamicObject>, admin: &Api<DynamicObject>) -> Result<()> {
    let of = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let (operators, none) = (of(json!([FINALIZER])), of(Value::Null));
    let (write, delete) = (PatchParams::default(), DeleteParams::default());
    user.create(
        &PostParams::default(),
        &document("Share", "held", share(json!("1Gi")))?,
    )
    .await?;
    let placed = Patch::Merge(json!({"status": {"backendName": "b"}}));
    api(&world.client, "Share")
        .patch_status("held", &write, &placed)
        .await?;
    let left = user.patch("held", &write, &none).await?;
    let comes_back = world.knows_mutating_policies().await?;
    ensure!(left.finalizers().contains(&FINALIZER.to_owned()) == comes_back);
    if !comes_back {
        forbidden(
            user.delete("held", &delete).await,
            &["metadata.finalizers", "verb operate on shares", "try again"],
        )
        .context("deleted without it")?;
        user.patch("held", &write, &operators).await?;
    }
    user.delete("held", &delete).await?;
    forbidden(
        user.patch("held", &write, &none).await,
        &[
            "metadata.finalizers",
            "verb operate on shares",
            "nothing is left of held",
        ],
    )
    .context("taken off")?;
    admin.patch("held", &write, &none).await?;
    ensure!(user.get_opt("held").await?.is_none());
    Ok(())
}

async fn verbs(world: &World) -> Result<()> {
    let may =
        |verbs: Value| json!([{"apiGroups": ["shoal.storage"], "resources": ["shares"], "verbs": verbs}]);
    let writes = may(json!(["get", "create", "patch", "delete"]));
    world.grant("writes", &["user", "admin"], &writes).await?;
    let verbs = may(json!(["pin", "extend-beyond-max", "operate"]));
    world.grant("has-verbs", &["admin"], &verbs).await?;
    let (user, admin) = (world.client_as("user").await?, world.client_as("admin").await?);
    let (user, admin) = (api(&user, "Share"), api(&admin, "Share"));
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pinned = with(share(json!("1Gi")), json!({"placement": {"backendName": "b"}}));
    let paused = |annotations: Value| Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    // The authorizer hears of roles a moment later.
    eventually("the roles to be known", PATIENCE, async || {
        let tried = document("Share", "tried", pinned.clone())?;
        let may_write = user
            .create(&dry, &document("Share", "tried", share(json!("1Gi")))?)
            .await
            .is_ok();
        Ok((may_write && admin.create(&dry, &tried).await.is_ok()).then_some(()))
    })
    .await?;

    finalizers(world, &user, &admin).await?;
    let plain = document("Share", "guarded", share(json!("1Gi")))?;
    user.create(&PostParams::default(), &plain).await?;
    let limits = json!({"status": {"capabilities": {"size": {"max": "10Gi", "maxExtend": "20Gi"}}}});
    api(&world.client, "Share")
        .patch_status("guarded", &PatchParams::default(), &Patch::Merge(limits))
        .await?;
    let cases: [(&str, Patch<Value>, &[&str]); 4] = [
        (
            "pins",
            Patch::Merge(json!({"spec": {"placement": {"backendName": "b"}}})),
            &[
                "spec.placement.backendName: b pins",
                "the verb pin",
                "leave it out",
            ],
        ),
        (
            "grows beyond the type's largest size",
            Patch::Merge(json!({"spec": {"size": "11Gi"}})),
            &["spec.size: 11Gi is above 10Gi", "the verb extend-beyond-max"],
        ),
        (
            "pauses",
            paused(json!({"shoal.storage/paused": ""})),
            &["metadata.annotations: shoal.storage/paused", "the verb operate"],
        ),
        (
            "pauses, beside another annotation",
            paused(json!({"shoal.storage/paused": "x", "team": "blue"})),
            &["the verb operate"],
        ),
    ];
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    for (what, patch, words) in &cases {
        forbidden(user.patch("guarded", &params, patch).await, words)
            .with_context(|| format!("a user {what}"))?;
        admin
            .patch("guarded", &params, patch)
            .await
            .with_context(|| format!("an admin {what}"))?;
    }
    let refused = user.create(&dry, &document("Share", "tried", pinned)?).await;
    forbidden(refused, &["the verb pin"]).context("a user creates a pinned share")?;
    let mut left_alone = document("Share", "left-alone", share(json!("1Gi")))?;
    left_alone.metadata.annotations = Some([("shoal.storage/paused".to_owned(), String::new())].into());
    forbidden(user.create(&dry, &left_alone).await, &["the verb operate"])
        .context("a user creates a paused share")?;

    // What an admin has set stays, whatever else a user changes; and taking the pause off is the admin's.
    admin
        .patch(
            "guarded",
            &PatchParams::default(),
            &paused(json!({"shoal.storage/paused": ""})),
        )
        .await?;
    let beyond = Patch::Merge(json!({"spec": {"size": "15Gi", "placement": {"backendName": "b"}}}));
    admin.patch("guarded", &PatchParams::default(), &beyond).await?;
    for allowed in [
        json!({"size": "12Gi"}),
        json!({"placement": {"sameBackendAs": ["x"]}}),
        json!({"placement": null}),
    ] {
        user.patch("guarded", &params, &Patch::Merge(json!({"spec": allowed})))
            .await
            .with_context(|| format!("a user changes {allowed}"))?;
    }
    let taken_off = user
        .patch("guarded", &params, &paused(json!({"shoal.storage/paused": null})))
        .await;
    forbidden(taken_off, &["the verb operate"]).context("a user takes the pause off")
}

/// Every field that can't change later, changed, set and taken away.
async fn readable_paths(world: &World) -> Result<()> {
    let named = |name: &str| with(share(json!("1Gi")), json!({"mountPointName": name}));
    for name in ["d", "Team_1-data", "-", "shoal-data", &"x".repeat(255)] {
        passes(world, "Share", named(name)).await?;
    }
    for name in [
        "a/b",
        "/a",
        "a b",
        "a.b",
        "..",
        "a\n",
        "\u{e4}",
        "{namespace}",
        "a;b",
        "a\"b",
    ] {
        let words = [
            "spec.mountPointName",
            name.trim_end(),
            "letters, digits, '-' and '_' alone; leave the rest out",
        ];
        is_refused(world, "Share", named(name), &words).await?;
    }
    let too_long = ["spec.mountPointName", "255"];
    is_refused(world, "Share", named(&"x".repeat(256)), &too_long).await?;
    is_refused(world, "Share", named(""), &["spec.mountPointName", "at least 1"]).await?;
    let native = with(named("data"), json!({"protocol": "CephFS"}));
    let words = [
        "spec.mountPointName",
        "data can not be had with protocol CephFS",
        "leave it out, or set protocol to NFS",
    ];
    is_refused(world, "Share", native, &words).await?;

    let prefixed = |prefix: &str| json!({"mountPointName": {"enabled": true, "prefix": prefix}});
    passes(world, "ShareType", json!({"mountPointName": {"enabled": true}})).await?;
    for prefix in ["", "team_", "{namespace}-{name}_", "{name}{namespace}"] {
        passes(world, "ShareType", prefixed(prefix)).await?;
    }
    for prefix in [
        "{uid}-",
        "{namespace",
        "namespace}",
        "{}",
        "{ name }",
        "a/",
        "a.",
        "{{name}}",
    ] {
        let words = [
            "spec.mountPointName.prefix",
            prefix,
            "the variables {namespace} and {name} alone; leave the rest out",
        ];
        is_refused(world, "ShareType", prefixed(prefix), &words).await?;
    }
    is_refused(
        world,
        "ShareType",
        prefixed(&"x".repeat(256)),
        &["spec.mountPointName.prefix", "255"],
    )
    .await
}

async fn metadata(world: &World) -> Result<()> {
    let many = |count: usize| -> Value {
        let entries = (0..count).map(|n| (format!("k{n}"), json!("v")));
        entries.collect::<serde_json::Map<_, _>>().into()
    };
    let of_share = |metadata: Value| with(share(json!("1Gi")), json!({"metadata": metadata}));
    let of_rule = |metadata: Value| with(ip("10.0.0.5"), json!({"metadata": metadata}));
    let of_location = |metadata: Value| {
        let said = json!([{"id": "0123456789abcdef", "metadata": metadata}]);
        with(share(json!("1Gi")), json!({"exportLocationMetadata": said}))
    };
    let long = "k".repeat(255);
    for (kind, spec) in [
        ("Share", &of_share as &dyn Fn(Value) -> Value),
        ("ShareAccessRule", &of_rule),
        ("Share", &of_location),
    ] {
        for metadata in [
            json!({}),
            many(32),
            json!({long.as_str(): "v".repeat(1023)}),
            json!({"100%": "%", "[x]": "\n[x]\n", "Team": "a", "team": "b", "shoal.example/owner": "\u{1f41f}"}),
        ] {
            passes(world, kind, spec(metadata)).await?;
        }
        for (metadata, words) in [
            (many(33), ["metadata", "32"]),
            (json!({"team": ""}), ["metadata.team", "at least 1"]),
            (json!({"team": "v".repeat(1024)}), ["metadata.team", "1023"]),
            (
                json!({"": "v"}),
                ["metadata: '' is no key", "1 to 255 characters"],
            ),
            (
                json!({format!("{long}k"): "v"}),
                ["…' is no key", "1 to 255 characters"],
            ),
            (
                json!({"team": "v", "shoal.storage/owner": "v"}),
                ["'shoal.storage/owner' is no key for users", "take another"],
            ),
        ] {
            is_refused(world, kind, spec(metadata), &words).await?;
        }
    }
    for own in ["fsName", "cephFSID", "subvolumePath", "preferred"] {
        let words = [
            "spec.exportLocationMetadata[0].metadata",
            own,
            "is no key for users",
        ];
        is_refused(world, "Share", of_location(json!({own: "mine"})), &words).await?;
        passes(world, "Share", of_share(json!({own: "mine"}))).await?;
    }
    let twice = json!({"id": "a", "metadata": {"k": "v"}});
    let twice = with(
        share(json!("1Gi")),
        json!({"exportLocationMetadata": [twice, twice]}),
    );
    is_refused(
        world,
        "Share",
        twice,
        &["spec.exportLocationMetadata[1]", "Duplicate"],
    )
    .await
}

async fn immutable_fields(world: &World) -> Result<()> {
    let reference = json!({"name": "n", "key": "k"});
    let key = json!({"accessTo": null, "accessToSecretRef": reference});
    let objects = [
        (
            "Share",
            "typed",
            with(share(json!("1Gi")), json!({"shareTypeName": "t"})),
        ),
        ("Share", "plain", share(json!("1Gi"))),
        ("Share", "back", with(share(json!("1Gi")), source("g/x"))),
        (
            "Share",
            "readable",
            with(share(json!("1Gi")), json!({"mountPointName": "data"})),
        ),
        ("ShareDeletion", "whole", share_deletion()),
        ("ShareAccessRule", "ip", ip("10.0.0.5")),
        ("ShareAccessRule", "by-secret", with(ip(""), key)),
        (
            "ShareAccessRule",
            "named",
            with(cephx(""), json!({"accessTo": null, "credentialsSecretName": "x"})),
        ),
        (
            "ShareAccessRule",
            "made",
            with(cephx(""), json!({"accessTo": null})),
        ),
        ("ShareBackend", "ceph", json!({"ceph": ceph_backend()})),
        (
            "ShareBackend",
            "native",
            json!({"ceph": with(ceph_backend(), json!({"nfs": null}))}),
        ),
    ];
    for (kind, name, spec) in objects {
        api(&world.client, kind)
            .create(&PostParams::default(), &document(kind, name, spec)?)
            .await?;
    }
    let change = async |kind: &str, name: &str, spec: &Value| {
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        api(&world.client, kind)
            .patch(name, &params, &Patch::Merge(json!({"spec": spec})))
            .await
    };
    let allowed = [
        ("Share", "typed", json!({"size": "2Gi"})),
        ("Share", "typed", json!({"size": "1Mi"})),
        (
            "Share",
            "typed",
            json!({"placement": {"differentBackendFrom": ["x"]}}),
        ),
        ("Share", "typed", json!({"deletionPolicy": "Retain"})),
        ("Share", "typed", json!({"metadata": {"team": "blue"}})),
        ("ShareAccessRule", "ip", json!({"metadata": {"team": "blue"}})),
        ("ShareDeletion", "whole", json!({"abandon": true})),
        (
            "ShareDeletion",
            "whole",
            json!({"retainUntil": "2030-01-01T00:00:00Z"}),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"accessLevel": "ReadOnly", "squash": "Root"}),
        ),
        ("ShareBackend", "ceph", json!({"ceph": {"dataPool": "x"}})),
        (
            "ShareBackend",
            "native",
            json!({"ceph": {"nfs": {"clusterID": "g"}}}),
        ),
    ];
    for (kind, name, spec) in allowed {
        change(kind, name, &spec)
            .await
            .with_context(|| format!("{kind} {name}: {spec} must pass"))?;
    }
    let set_or_taken =
        |field: &str| format!("{field} is immutable: it can't be set or taken away later; create another");
    let from_to = |field: &str, old: &str, new: &str| {
        format!("{field} is immutable: it stays {old} and can not become {new}; create another")
    };
    let refused = [
        (
            "Share",
            "typed",
            json!({"shareTypeName": "x"}),
            from_to("shareTypeName", "t", "x"),
        ),
        (
            "Share",
            "typed",
            json!({"shareTypeName": null}),
            set_or_taken("shareTypeName"),
        ),
        (
            "Share",
            "plain",
            json!({"shareTypeName": "t"}),
            set_or_taken("shareTypeName"),
        ),
        (
            "Share",
            "typed",
            json!({"protocol": "CephFS"}),
            from_to("protocol", "NFS", "CephFS"),
        ),
        (
            "Share",
            "readable",
            json!({"mountPointName": "other"}),
            from_to("mountPointName", "data", "other"),
        ),
        (
            "Share",
            "readable",
            json!({"mountPointName": null}),
            set_or_taken("mountPointName"),
        ),
        (
            "Share",
            "plain",
            json!({"mountPointName": "data"}),
            set_or_taken("mountPointName"),
        ),
        (
            "ShareDeletion",
            "whole",
            json!({"resolvedMountPointName": "data"}),
            "what was deleted is written once".into(),
        ),
        ("Share", "plain", source("g/x"), set_or_taken("source")),
        ("Share", "back", json!({"source": null}), set_or_taken("source")),
        ("Share", "back", source("g/y"), from_to("source", "g/x", "g/y")),
        (
            "ShareDeletion",
            "whole",
            json!({"handle": "g/y"}),
            "what was deleted is written once; only abandon and retainUntil may change".into(),
        ),
        (
            "ShareDeletion",
            "whole",
            json!({"shareRef": {"uid": "another"}}),
            "what was deleted is written once".into(),
        ),
        (
            "Share",
            "typed",
            json!({"size": "0"}),
            "'0' is not a whole number of bytes".into(),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"shareRef": {"name": "x"}}),
            from_to("shareRef", "s", "x"),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"accessType": "CephX", "accessTo": "alice"}),
            from_to("accessType", "IP", "CephX"),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"accessTo": "10.0.0.6"}),
            from_to("accessTo", "10.0.0.5", "10.0.0.6"),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"accessTo": null}),
            set_or_taken("accessTo"),
        ),
        (
            "ShareAccessRule",
            "ip",
            json!({"accessTo": null, "accessToSecretRef": reference}),
            set_or_taken("accessToSecretRef"),
        ),
        (
            "ShareAccessRule",
            "by-secret",
            json!({"accessTo": "10.0.0.5", "accessToSecretRef": null}),
            set_or_taken("accessTo"),
        ),
        (
            "ShareAccessRule",
            "by-secret",
            json!({"accessToSecretRef": {"key": "z"}}),
            "accessToSecretRef is immutable; create another".into(),
        ),
        (
            "ShareAccessRule",
            "made",
            json!({"accessTo": "alice"}),
            set_or_taken("accessTo"),
        ),
        (
            "ShareAccessRule",
            "named",
            json!({"credentialsSecretName": "y"}),
            from_to("credentialsSecretName", "x", "y"),
        ),
        (
            "ShareAccessRule",
            "named",
            json!({"credentialsSecretName": null}),
            set_or_taken("credentialsSecretName"),
        ),
        (
            "ShareAccessRule",
            "made",
            json!({"credentialsSecretName": "y"}),
            set_or_taken("credentialsSecretName"),
        ),
        (
            "ShareBackend",
            "ceph",
            json!({"ceph": {"filesystem": "second"}}),
            from_to("filesystem", "cephfs", "second"),
        ),
        (
            "ShareBackend",
            "ceph",
            json!({"ceph": {"subvolumeGroup": "g"}}),
            from_to("subvolumeGroup", "shoal", "g"),
        ),
        (
            "ShareBackend",
            "ceph",
            json!({"ceph": {"nfs": {"clusterID": "g"}}}),
            from_to("clusterID", "nfs", "g"),
        ),
        (
            "ShareBackend",
            "ceph",
            json!({"ceph": {"nfs": null}}),
            "nfs can't be taken away".into(),
        ),
        (
            "ShareBackend",
            "ceph",
            json!({"ceph": null, "simulated": {}}),
            "the driver is immutable; create another".into(),
        ),
    ];
    for (kind, name, spec, words) in refused {
        refusal(change(kind, name, &spec).await, &["spec", &words])
            .with_context(|| format!("{kind} {name}: {spec}"))?;
    }
    Ok(())
}
