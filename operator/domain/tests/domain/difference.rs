//! What is said of a share whose backend is only looked at. That it is all, and true, is shown in `convergence`.

use shoal_crds::{AccessLevel, OrphanStatus, Share, ShareAccessRule, condition::reasons};
use shoal_domain::{
    Step,
    owner::Tag,
    share_backend::{self, Scan},
    volume::Export,
};

use crate::{fixtures::*, world::World};

/// Etcd is an hour old: these objects are what it has, and the storage is as this world at rest has it.
fn rolled_back(mut world: World, share: impl FnOnce(Share) -> Share, rules: Vec<ShareAccessRule>) -> World {
    world.edit_share(share);
    world.rules = rules;
    world.dry_run = true;
    world
}

fn said(world: &mut World) -> Vec<String> {
    let beside = |world: &World| {
        let mut essence = world.essence();
        let share = essence.share.as_mut().unwrap();
        share.status.as_mut().unwrap().differences = None;
        essence
    };
    let before = beside(world);
    let steps = world.steps.len();
    world.pass(None);
    assert!(
        world.steps[steps..]
            .iter()
            .all(|step| ["Look", "ConfirmRules"].contains(step)),
        "{:?}",
        world.steps
    );
    let differences = world.status().differences.unwrap();
    assert_eq!(usize::try_from(differences.total), Ok(differences.list.len()));
    beside(world).must_equal(&before, "nothing else is said, and nothing done");
    differences.list
}

#[test]
fn what_an_hour_old_etcd_would_change_is_told_and_more_access_first() {
    let now = [
        rule("made-since", "10.0.0.1"),
        rule("lowered-since", "10.0.0.2").read_only(),
        rule("raised-since", "10.0.0.3"),
        rule("as-before", "10.0.0.4"),
    ];
    let world = World::settled(share("a").sized("2Gi"), now);
    let of_before = |name: &str, level: AccessLevel| {
        let mut rule = world.rule(name).clone();
        rule.spec.access_level = level;
        rule
    };
    let before = vec![
        rule("deleted-since", "10.0.0.9"),
        rule("from-a-secret", "").named_in("value"),
        of_before("lowered-since", AccessLevel::ReadWrite),
        of_before("raised-since", AccessLevel::ReadOnly),
        of_before("as-before", AccessLevel::ReadWrite),
    ];
    let mut world = rolled_back(
        world.clone(),
        |mut share| {
            share.spec.metadata.insert("cost".into(), "7".into());
            share
        },
        before,
    );
    world.values.insert("value".into(), "10.0.0.8".into());
    world.subvolume.as_mut().unwrap().size_bytes = Some(3 * GI);
    assert_eq!(
        said(&mut world),
        [
            "rule 'deleted-since' lets its client in, ReadWrite: it is not let in now",
            "rule 'from-a-secret' lets its client in, ReadWrite: it is not let in now",
            "rule 'lowered-since' makes its client ReadWrite, from ReadOnly",
            "rule 'raised-since' makes its client ReadOnly, from ReadWrite",
            "clients that no rule lets in are cut off: 1",
            "its quota becomes 2Gi, from 3Gi",
            "its metadata is written anew",
        ]
    );
    // An admin takes away what should not come back; the rest is done.
    world.delete_rule("deleted-since");
    world.edit_rule("lowered-since", |rule| {
        rule.spec.access_level = AccessLevel::ReadOnly;
    });
    assert_eq!(said(&mut world).len(), 5);
    world.dry_run = false;
    world.look_due = false;
    world.pass(None);
    assert_eq!(world.status().differences, None);
    let access = world.access();
    let level = |client: &str| Some(access.iter().find(|grant| grant.client == ip(client))?.level);
    for client in ["10.0.0.2", "10.0.0.3"] {
        assert_eq!(level(client), Some(AccessLevel::ReadOnly), "{client}");
    }
    assert_eq!([level("10.0.0.1"), level("10.0.0.9")], [None, None]);
}

#[test]
fn nothing_differs_where_all_is_as_the_objects_say() {
    for protocol in [share("a"), share("a").cephfs()] {
        let rules = if protocol.spec.protocol == shoal_crds::Protocol::NFS {
            vec![rule("r", "10.0.0.1")]
        } else {
            vec![cephx_rule("r", None)]
        };
        let mut world = World::settled(protocol, rules);
        world.dry_run = true;
        assert_eq!(said(&mut world), [""; 0]);
        // It was told, and stays as it is.
        let writes = world.status_writes;
        assert_eq!((said(&mut world).len(), world.status_writes), (0, writes));
    }
}

#[test]
fn data_that_is_gone_or_anothers_is_told() {
    let settled = World::settled(share("a"), [rule("r", "10.0.0.1")]);
    let told = |change: fn(&mut World)| {
        let mut world = settled.clone();
        world.dry_run = true;
        change(&mut world);
        said(&mut world)
    };
    let gone = told(|world| world.subvolume = None);
    assert_eq!(gone, ["its data is not there; it is not made again"]);
    let anothers = told(|world| world.subvolume.as_mut().unwrap().tag = another_owner());
    assert!(anothers[0].contains("is tagged as belonging to"), "{anothers:?}");
    let untagged = told(|world| world.subvolume.as_mut().unwrap().tag = Tag::Absent);
    assert_eq!(untagged, ["its subvolume is tagged as its own"]);
    let taken = told(|world| world.export = Export::Taken("cephfs:/other".into()));
    assert!(taken[0].contains("by somebody else"), "{taken:?}");
    let lost = told(|world| world.export = Export::Absent);
    assert_eq!(
        lost,
        [
            "rule 'r' lets its client in, ReadWrite: it is not let in now",
            "its export is made"
        ]
    );
    let open = told(|world| {
        if let Export::Ours { intact, .. } = &mut world.export {
            *intact = false;
        }
    });
    assert_eq!(open, ["its export is made as Shoal makes it"]);
}

#[test]
fn a_backend_that_is_only_looked_at_is_told_and_no_shares_work_on_it() {
    let mut o = share_backend::Observed {
        description: Some(Ok(backend_description())),
        scan: Scan {
            found: Some(OrphanStatus {
                subvolumes: 1,
                ..OrphanStatus::default()
            }),
            ..of_backend().scan
        },
        ..of_backend()
    };
    o.backend.spec.dry_run = true;
    // What it is, is recorded all the same.
    let decision = share_backend::decide(&o, now());
    assert_eq!(decision.step, Some(Step::Record));
    o.backend.status = Some(decision.status);
    let Some(Step::Do(share_backend::Effect::Admit(verdict))) = share_backend::decide(&o, now()).step else {
        panic!("nothing is told to its shares");
    };
    assert_eq!((*verdict).as_ref().unwrap_err().reason, reasons::DRY_RUN);
    o.admitted = Some(*verdict);
    let status = share_backend::decide(&o, now()).status;
    assert_eq!(why_not_ready(&status.conditions), reasons::DRY_RUN);
    assert_eq!(status.orphans.map(|found| found.subvolumes), Some(1));
    assert!(status.ceph.is_some());
    // Who does not look at it waits as for any that can't be used.
    o.backend.spec.paused = true;
    let status = share_backend::decide(&o, now()).status;
    assert_eq!(why_not_ready(&status.conditions), reasons::BACKEND_PAUSED);
}
