//! What tools make of a status: `kubectl wait`, Flux (kstatus) and Argo CD (its Lua, as users install it) agree on every object,
//! in every phase. `docs/operations/gitops.md` has the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use mlua::{Lua, LuaSerdeExt as _};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde::Serialize;
use serde_json::{Value, json};
use shoal_crds::{LockedKind, ShareType, condition::reasons};
use shoal_domain::{
    Class, Scope, resource_lock, share_backend,
    share_quota::{self, Amount, Usage},
    share_type,
};

use crate::{convergence::history, fixtures::*, resource_lock::enforced};

const SCRIPT: &str = include_str!("../../../../examples/gitops/health.lua");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations/gitops.md");
/// How many lives of shares are looked at.
const LIVES: usize = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ready,
    InProgress,
    Failed,
    /// On its way out.
    Terminating,
}

/// What was seen: by kind and phase, what tools said.
struct Seen {
    lua: Lua,
    phases: BTreeMap<(&'static str, String), BTreeSet<Verdict>>,
}

impl Seen {
    fn new() -> Self {
        Self {
            lua: Lua::new(),
            phases: BTreeMap::new(),
        }
    }

    /// Notes an object as it is stored, with the phase that it is told in.
    fn note(&mut self, kind: &'static str, object: &impl Serialize) {
        let mut object = serde_json::to_value(object).unwrap();
        // As the API server does.
        object["metadata"]["generation"] = object["metadata"]["generation"].as_i64().unwrap_or(1).into();
        if object["status"].as_object().is_none_or(serde_json::Map::is_empty) {
            object["status"] = json!({"observedGeneration": -1});
        }
        let phase = object["status"]["phase"]
            .as_str()
            .unwrap_or("none yet")
            .to_owned();
        let verdict = kstatus(&object);
        let argo = self.argo(&object);
        let expected = match verdict {
            Verdict::Ready => "Healthy",
            Verdict::InProgress | Verdict::Terminating => "Progressing",
            Verdict::Failed => "Degraded",
        };
        assert_eq!(argo, expected, "Argo CD and Flux differ: {object:#}");
        // What can be used stays Ready while it is worked on, in the generation that it was last as asked in.
        match (verdict, kubectl_waits_no_more(&object)) {
            (Verdict::Ready, true)
            | (Verdict::InProgress | Verdict::Failed, false)
            | (Verdict::Terminating, _) => {}
            (Verdict::InProgress, true) if is(&object, "Reconciling") => {
                let size = |of: &str| object[of]["size"].clone();
                assert!(
                    kind != "Share" || size("spec") == size("status"),
                    "kubectl does not wait: {object:#}"
                );
            }
            differ => panic!("kubectl and Flux differ, {differ:?}: {object:#}"),
        }
        self.phases.entry((kind, phase)).or_default().insert(verdict);
    }

    fn argo(&self, object: &Value) -> String {
        self.lua
            .globals()
            .set("obj", self.lua.to_value(object).unwrap())
            .unwrap();
        let health: mlua::Table = self.lua.load(SCRIPT).eval().unwrap();
        health.get("status").unwrap()
    }

    fn table(&self) -> String {
        let mut table = String::from("| kind | phase | Flux and Argo CD say |\n| --- | --- | --- |\n");
        for ((kind, phase), verdicts) in &self.phases {
            let said = |verdict: &Verdict| match verdict {
                Verdict::Ready => "ready",
                Verdict::InProgress => "in progress",
                Verdict::Failed => "failed",
                Verdict::Terminating => "being deleted",
            };
            let said = verdicts.iter().map(said).collect::<Vec<_>>().join(", ");
            writeln!(table, "| {kind} | {phase} | {said} |").unwrap();
        }
        table
    }
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition["type"] == type_)
}

fn is(object: &Value, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition["status"] == "True")
}

/// The rules of kstatus, as its documentation has them.
fn kstatus(object: &Value) -> Verdict {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Verdict::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Verdict::InProgress;
    }
    if is(object, "Reconciling") {
        return Verdict::InProgress;
    }
    if is(object, "Stalled") {
        return Verdict::Failed;
    }
    if condition(object, "Ready").is_none() || is(object, "Ready") {
        Verdict::Ready
    } else {
        Verdict::InProgress
    }
}

/// `kubectl wait --for=condition=Ready` ends: the condition is true, and of this generation.
fn kubectl_waits_no_more(object: &Value) -> bool {
    is(object, "Ready")
        && condition(object, "Ready")
            .is_some_and(|ready| ready["observedGeneration"] == object["metadata"]["generation"])
}

#[test]
fn tools_agree_on_every_object_in_every_phase() {
    let mut seen = Seen::new();
    lives_of_shares(&mut seen);
    backends(&mut seen);
    locks(&mut seen);
    types_and_quotas(&mut seen);
    let table = seen.table();
    let page = fs::read_to_string(PAGE).unwrap();
    assert!(page.contains(&table), "{PAGE} should say:\n{table}");
}

/// Shares, their rules and what is left of them, whatever happens to them.
fn lives_of_shares(seen: &mut Seen) {
    let mut draw = TestRunner::deterministic();
    for _ in 0..LIVES {
        let life = history().new_tree(&mut draw).unwrap().current();
        let mut world = life.world_watched(|world| {
            if let Some(share) = &world.share {
                seen.note("Share", share);
            }
            for rule in &world.rules {
                seen.note("ShareAccessRule", rule);
            }
            if let Some(deletion) = &world.deletion {
                seen.note("ShareDeletion", deletion);
            }
            if world.share.is_none() && world.deletion.is_some() {
                // What is left is told step by step where the storage is slow.
                for (step, backend) in [(0, true), (1, true), (2, true), (0, false)] {
                    let mut left = world.clone();
                    left.slow = true;
                    left.backend = left.backend.filter(|_| backend);
                    left.pass(Some(step));
                    left.deletion
                        .iter()
                        .for_each(|deletion| seen.note("ShareDeletion", deletion));
                }
            }
        });
        // Nobody else needs what is left.
        if let Some(deletion) = &mut world.deletion {
            deletion.spec.abandon = true;
            deletion.metadata.generation = Some(2);
            world.pass(None);
            if let Some(deletion) = &world.deletion {
                seen.note("ShareDeletion", deletion);
            }
        }
    }
}

fn backends(seen: &mut Seen) {
    let refused = failure(
        Scope::Backend,
        Class::Stalled,
        reasons::BACKEND_CREDENTIALS_REFUSED,
    );
    let away = failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE);
    for description in [
        None,
        Some(Ok(backend_description())),
        Some(Err(refused)),
        Some(Err(away)),
    ] {
        let mut observed = share_backend::Observed {
            description,
            ..of_backend()
        };
        observed.backend.metadata.generation = Some(1);
        for is_leaving in [false, true] {
            if is_leaving {
                observed.backend = observed.backend.leaving();
                observed.in_the_way = vec!["team/a".into()];
            }
            for is_dry_run in [true, false] {
                observed.backend.spec.dry_run = is_dry_run;
                observed.backend.status = Some(share_backend::decide(&observed, now()).status);
                seen.note("ShareBackend", &observed.backend);
            }
        }
    }
}

fn locks(seen: &mut Seen) {
    let there = share("a").held().metadata;
    let leaving = share("a").held().leaving().metadata;
    for target in [None, Some(there), Some(leaving)] {
        for (uid, mark) in [(None, false), (None, true), (Some("another"), false)] {
            let mut lock = lock("keep", LockedKind::Share, "a");
            lock.metadata.generation = Some(1);
            if mark {
                lock = enforced(lock, "uid-a");
            }
            lock.spec.resource_ref.uid = uid.map(str::to_owned);
            let observed = resource_lock::Observed {
                lock: lock.clone(),
                target: target.clone(),
                target_confirmed: true,
                rule: None,
            };
            lock.status = Some(resource_lock::decide(&observed, now()).status);
            seen.note("ResourceLock", &lock);
        }
    }
    for rule in [cephx_rule("r", None), cephx_rule("r", Some("alice"))] {
        let mut lock = show_lock("hide", "r", "alice");
        lock.metadata.generation = Some(1);
        let observed = resource_lock::Observed {
            lock: lock.clone(),
            target: Some(rule.metadata.clone()),
            target_confirmed: true,
            rule: Some(rule),
        };
        lock.status = Some(resource_lock::decide(&observed, now()).status);
        seen.note("ResourceLock", &lock);
    }
}

fn types_and_quotas(seen: &mut Seen) {
    for candidates in [vec![], vec![candidate("a", Ok(backend_description()))]] {
        let mut share_type = ShareType::new("standard", share_type().spec);
        share_type.metadata.generation = Some(1);
        let observed = share_type::Observed {
            share_type: share_type.clone(),
            candidates,
            newer_default: None,
        };
        share_type.status = Some(share_type::decide(&observed, now()).status);
        seen.note("ShareType", &share_type);
    }
    for shares in [1, 3] {
        let mut quota = quota(limits(Some(2), None, None));
        quota.metadata.generation = Some(1);
        let total = Amount { shares, bytes: 1 };
        let usage = Usage {
            total,
            by_type: BTreeMap::new(),
        };
        let observed = share_quota::Observed {
            quota: quota.clone(),
            usage,
        };
        quota.status = Some(share_quota::decide(&observed, now()).status);
        seen.note("ShareQuota", &quota);
    }
}
