//! What no object owns: how it is found and told, and how it is held for the share whose data it may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shoal_crds::{
    ExistingShare, OrphanStatus, Protocol, Share, ShareSource, ShareStatus,
    condition::{reasons, types},
    names::{FORMER_DATA, START_EMPTY, start_empty},
};
use shoal_domain::{
    Class, Decision, Next, Scope, Step,
    ledger::Ledger,
    orphan::{BATCH, Index, Listing, Orphan, Others, Verdict, may_be_among, pause, subvolume_of, verdict},
    owner::{Left, Owner, Tag},
    placement::Door,
    share::{Effect, Observed, decide, former_volume, volume_ref},
    share_backend,
    volume::{Export, Sight, Volume},
};

use crate::{fixtures::*, world::World};

// ---- the scan

fn owner(cluster: &str, name: &str) -> Owner {
    Owner {
        cluster: cluster.into(),
        namespace: "team".into(),
        name: name.into(),
        uid: format!("old-{name}"),
        left: None,
    }
}

fn listing(subvolumes: &[&str], exports: &[(&str, &str)]) -> Listing {
    Listing {
        group: "shoal".into(),
        subvolumes: subvolumes.iter().map(|name| (*name).to_owned()).collect(),
        exports: exports
            .iter()
            .map(|(path, to)| ((*path).to_owned(), (*to).to_owned()))
            .collect(),
    }
}

fn neighbours(cluster: &str) -> Others {
    Others {
        neighbours: [cluster.to_owned()].into(),
        ..Others::default()
    }
}

fn claims(names: &[&'static str]) -> impl Fn(&str) -> bool {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    move |name| names.contains(name)
}

fn found(index: &Index, name: &str) -> Vec<String> {
    index.namesakes("team", name).map(|(handle, _)| handle).collect()
}

#[test]
fn a_path_leads_to_a_subvolume_of_the_group() {
    assert_eq!(subvolume_of("shoal", "/volumes/shoal/x/data"), Some("x"));
    assert_eq!(subvolume_of("shoal", "/volumes/shoal/x"), Some("x"));
    for other in [
        "/volumes/shoal/",
        "/volumes/shoals/x",
        "/volumes/other/x",
        "/x",
        "/",
        "",
    ] {
        assert_eq!(subvolume_of("shoal", other), None, "{other}");
    }
}

#[test]
fn tags_are_read_of_what_nobody_claims_and_once() {
    let mut index = Index::default();
    assert!(!index.is_complete(), "nobody has looked");
    index.list(listing(&["a", "b", "c"], &[]), claims(&["b"]));
    assert!(!index.is_complete());
    assert_eq!(index.unread(BATCH), ["a", "c"]);
    index.read("a", Some(Tag::Owner(owner("former", "a"))));
    assert_eq!(index.unread(BATCH), ["c"]);
    // Gone since it was listed.
    index.read("c", None);
    assert!(index.is_complete());
    assert_eq!(found(&index, "a"), ["shoal/a"]);

    index.list(listing(&["a", "b", "d"], &[]), claims(&["b"]));
    assert_eq!(index.unread(BATCH), ["d"]);
    assert!(index.is_complete(), "what it knew it knows still");
    // What was claimed meanwhile, or is gone, is nobody's orphan any more.
    index.list(listing(&["a", "b"], &[]), claims(&["a", "b"]));
    assert_eq!(found(&index, "a"), Vec::<String>::new());
    assert_eq!(index.status(&Others::default()), OrphanStatus::default());
}

#[test]
fn an_empty_backend_is_looked_through_at_once() {
    let mut index = Index::default();
    index.list(listing(&[], &[]), claims(&[]));
    assert!(index.is_complete());
}

#[test]
fn so_many_tags_are_read_in_one_go() {
    let names: Vec<_> = (0..100).map(|n| format!("s{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut index = Index::default();
    index.list(listing(&names, &[]), claims(&[]));
    assert_eq!(index.unread(BATCH).len(), BATCH);
}

#[test]
fn it_is_told_but_for_what_is_a_neighbours() {
    let mut index = Index::default();
    let exports = [
        ("/shoal-1", "a"),
        ("/home", "a"),
        ("/shoal-2", "owned"),
        ("/shoal-3", "gone"),
        ("/shoal-4", "x"),
    ];
    index.list(
        listing(&["a", "b", "owned", "x", "y"], &exports),
        claims(&["owned"]),
    );
    let mut left = owner("former", "b");
    left.left = Some(Left::Retained);
    index.read("a", Some(Tag::Owner(owner("former", "a"))));
    index.read("b", Some(Tag::Owner(left)));
    index.read("x", Some(Tag::Owner(owner("living", "a"))));
    index.read("y", Some(Tag::Absent));
    let status = index.status(&neighbours("living"));
    assert_eq!((status.subvolumes, status.exports), (3, 3));
    let told = status.list.iter().map(|orphan| {
        let owner = orphan.owner.as_ref();
        (
            orphan.handle.as_str(),
            owner.map(|owner| owner.name.as_str()),
            orphan.left.as_deref(),
        )
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("shoal/a", Some("a"), None),
            ("shoal/b", Some("b"), Some("Retained")),
            ("shoal/y", None, None)
        ]
    );
    assert_eq!(
        found(&index, "b"),
        Vec::<String>::new(),
        "what was left behind holds nobody up"
    );
    assert_eq!(found(&index, "a"), ["shoal/a", "shoal/x"]);
}

#[test]
fn a_status_names_a_hundred_at_most() {
    let names: Vec<_> = (0..150).map(|n| format!("s{n:03}")).collect();
    let mut index = Index::default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    index.list(listing(&names, &[]), claims(&[]));
    for name in names {
        index.read(name, Some(Tag::Absent));
    }
    let status = index.status(&Others::default());
    assert_eq!((status.subvolumes, status.list.len()), (150, 100));
}

#[test]
fn later_scans_take_a_twentieth_of_the_managers_time() {
    let took = Duration::from_secs(2);
    assert_eq!(pause(took, true), took);
    assert_eq!(took * 20, took + pause(took, false));
}

// ---- who has what

#[test]
fn a_subvolume_is_whose_share_or_deletion_has_it() {
    let mut ledger = Ledger::default();
    let mut placed = share("a").placed();
    ledger.note(&placed);
    assert_eq!(ledger.holder("shoal-uid-a", "").as_deref(), Some("Share team/a"));
    assert_eq!(ledger.holder("shoal-uid-a", "uid-a"), None, "beside itself");
    assert_eq!(ledger.holder("shoal-uid-b", ""), None);
    // One that brings another's data back.
    placed.status.as_mut().unwrap().handle = Some("shoal/shoal-uid-old".into());
    ledger.note(&placed);
    assert_eq!(
        ledger.holder("shoal-uid-old", "").as_deref(),
        Some("Share team/a")
    );
    let deletion = crate::share_deletion::handed_on(&{
        let mut o = crate::share_deletion::going(|_| ());
        o.failure = Some(failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR));
        o
    });
    ledger.gone("uid-a");
    assert_eq!(ledger.holder("shoal-uid-a", ""), None);
    ledger.note_deletion(&deletion);
    assert_eq!(
        ledger.holder("shoal-uid-a", "").as_deref(),
        Some("ShareDeletion shoal-uid-a")
    );
    ledger.deletion_gone("shoal-uid-a");
    assert_eq!(ledger.holder("shoal-uid-a", ""), None);
}

// ---- a backend is Ready only after its first scan

fn described(scan: share_backend::Scan) -> share_backend::Observed {
    share_backend::Observed {
        description: Some(Ok(backend_description())),
        scan,
        ..of_backend()
    }
}

#[test]
fn a_backend_is_ready_once_it_was_looked_through() {
    let due = share_backend::Scan {
        is_due: true,
        ..share_backend::Scan::default()
    };
    let mut o = described(due);
    assert_eq!(
        share_backend::decide(&o, now()).step,
        Some(Step::Do(share_backend::Effect::Scan(identity())))
    );
    // Not all of it yet.
    o.scan = share_backend::Scan {
        again: Duration::from_millis(300),
        ..share_backend::Scan::default()
    };
    let decision = share_backend::decide(&o, now());
    let Some(Step::Do(share_backend::Effect::Admit(verdict))) = decision.step else {
        panic!("{decision:?}");
    };
    assert_eq!(
        (*verdict).as_ref().unwrap_err().reason,
        reasons::BACKEND_NOT_SCANNED
    );
    o.admitted = Some(*verdict);
    let decision = share_backend::decide(&o, now());
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::BACKEND_NOT_SCANNED
    );
    assert_eq!(decision.next, Next::After(Duration::from_millis(300)));

    o.scan.found = Some(OrphanStatus::default());
    let decision = share_backend::decide(&o, now());
    assert_eq!(decision.step, Some(Step::Record));
    assert!(share_backend::is_ready(&decision.status));
    assert_eq!(decision.status.orphans, Some(OrphanStatus::default()));
}

#[test]
fn a_later_replica_looks_while_shares_are_worked_on() {
    let mut o = described(share_backend::Scan {
        again: Duration::from_secs(1),
        found: Some(OrphanStatus::default()),
        ..share_backend::Scan::default()
    });
    o.backend.status = Some(share_backend::decide(&o, now()).status);
    o.scan.found = None;
    let Some(Step::Do(share_backend::Effect::Admit(verdict))) = share_backend::decide(&o, now()).step else {
        panic!("it is not admitted");
    };
    assert!(verdict.is_ok());
    o.admitted = Some(*verdict);
    let decision = share_backend::decide(&o, now());
    assert_eq!(decision.next, Next::After(Duration::from_secs(1)));
    assert_eq!(
        decision.status.orphans,
        Some(OrphanStatus::default()),
        "as of before"
    );
}

// ---- a share waits for a verdict

fn orphan(name: &str) -> Orphan {
    let owner = owner("former", name);
    Orphan {
        backend_name: "ceph-a".into(),
        handle: format!("shoal/shoal-{}", owner.uid),
        owner,
        volume: None,
    }
}

fn there(orphan: &Orphan) -> Volume {
    Volume {
        tag: Tag::Owner(orphan.owner.clone()),
        handle: orphan.handle.clone(),
        path: format!("/volumes/{}/data", orphan.handle),
        used_bytes: 7,
        ..volume(&share("a"))
    }
}

fn looked_at(mut orphan: Orphan) -> Orphan {
    orphan.volume = Some(there(&orphan));
    orphan
}

/// Share `a`, of which such data was found.
fn waiting(orphans: Vec<Orphan>) -> Observed {
    let mut o = World::new(share("a").held(), []).load().unwrap();
    o.former.orphans = orphans;
    o
}

fn said(mut share: Share, value: &str) -> Share {
    let annotations = share.metadata.annotations.get_or_insert_default();
    annotations.insert(FORMER_DATA.into(), value.into());
    share
}

fn decided(o: &Observed) -> Decision<ShareStatus, Effect> {
    decide(o, now())
}

fn step(o: &Observed) -> Option<Step<Effect>> {
    decided(o).step
}

fn why(o: &Observed) -> String {
    let decision = decided(o);
    assert_eq!(decision.step, None);
    why_not_ready(&decision.status.conditions)
}

#[test]
fn without_former_data_a_share_is_placed_at_once() {
    assert_eq!(step(&waiting(Vec::new())), Some(Step::Record));
}

#[test]
fn what_the_scan_found_is_looked_at_before_it_holds_anybody_up() {
    let mut o = waiting(vec![orphan("a")]);
    assert_eq!(step(&o), Some(Step::Do(Effect::LookAtFormer)));
    // Its own deletion has removed it since.
    o.former.orphans.clear();
    o.former.is_confirmed = true;
    assert_eq!(step(&o), Some(Step::Record));
}

#[test]
fn a_share_with_a_former_namesake_waits_and_says_what_for() {
    let mut o = waiting(vec![looked_at(orphan("a"))]);
    o.former.is_confirmed = true;
    let decision = decided(&o);
    assert_eq!((&decision.step, decision.next), (&None, Next::Await));
    let status = decision.status;
    assert_eq!(why_not_ready(&status.conditions), reasons::FORMER_DATA_FOUND);
    assert!(says(&status.conditions, types::RECONCILING));
    assert_eq!((status.backend_name, status.handle), (None, None));
    let named = &status.former_data[0];
    assert_eq!(
        (
            named.backend_name.as_str(),
            named.handle.as_str(),
            named.cluster.as_str()
        ),
        ("ceph-a", "shoal/shoal-old-a", "former")
    );

    // Woken, and nothing else was found: nobody is asked again, and nothing written.
    o.share.status = Some(decided(&o).status);
    o.former.is_confirmed = false;
    o.former.orphans = vec![orphan("a")];
    let again = decided(&o);
    assert_eq!((again.step, again.next), (None, Next::Await));
    assert_eq!(Some(again.status), o.share.status);
    // Somebody has removed it by hand.
    o.former.orphans.clear();
    assert_eq!(step(&o), Some(Step::Record));
}

#[test]
fn what_can_not_be_looked_at_holds_up_too() {
    let mut o = waiting(vec![orphan("a")]);
    o.former.is_confirmed = true;
    assert_eq!(why(&o), reasons::FORMER_DATA_FOUND);
    // Its backend is about to be asked, and wakes it: nothing is told before.
    o.former.is_to_be_asked = true;
    let decision = decided(&o);
    assert_eq!((&decision.step, decision.next), (&None, Next::Await));
    assert_eq!(decision.status, o.share.status.clone().unwrap_or_default());
}

#[test]
fn a_share_waits_for_backends_that_were_never_looked_through() {
    let mut o = waiting(Vec::new());
    o.candidates.push(candidate("ceph-b", Ok(backend_description())));
    let away = failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE);
    o.former.unscanned = vec![("ceph-b".into(), Some(away))];
    assert_eq!(why(&o), reasons::BACKEND_NOT_SCANNED);
    // Its type never puts shares there.
    o.share_type.as_mut().unwrap().spec.backend_names = Some(vec!["ceph-a".into()]);
    assert_eq!(step(&o), Some(Step::Record));
    // That goes on by itself, and wakes it.
    o.former.unscanned = vec![("ceph-a".into(), None)];
    let decision = decided(&o);
    assert_eq!((&decision.step, decision.next), (&None, Next::Await));
    assert_eq!(decision.status, o.share.status.clone().unwrap_or_default());
    // An admin need not wait.
    let empty = start_empty(o.share.metadata.uid.as_deref().unwrap());
    o.share = said(o.share, &empty);
    assert_eq!(step(&o), Some(Step::Record));
}

// ---- the verdict

#[test]
fn what_an_admin_may_say() {
    let of = |value: &str| verdict(&said(share("a"), value));
    assert_eq!(verdict(&share("a")), Ok(None));
    let uid = share("a").metadata.uid.unwrap();
    assert_eq!(of(&start_empty(&uid)), Ok(Some(Verdict::StartEmpty)));
    assert_eq!(
        of(&start_empty("former")),
        Ok(None),
        "a verdict on what was before"
    );
    assert_eq!(
        of("ceph-a/shoal/shoal-1"),
        Ok(Some(Verdict::Adopt(ExistingShare {
            backend_name: "ceph-a".into(),
            handle: "shoal/shoal-1".into(),
        })))
    );
    for bad in [
        "",
        "startempty",
        START_EMPTY,
        "ceph-a",
        "shoal/shoal-1",
        "a/b/c/d",
        "a//c",
        "/b/c",
    ] {
        let refused = of(bad).unwrap_err();
        assert_eq!(refused.class, Class::Stalled, "{bad}");
        assert!(refused.message.contains(&format!("'{bad}'")), "{refused}");
    }
    let mut o = waiting(vec![looked_at(orphan("a"))]);
    o.former.is_confirmed = true;
    o.share = said(o.share, "yes");
    assert_eq!(why(&o), reasons::NOTHING_TO_BRING_BACK);
}

#[test]
fn start_empty_makes_a_volume_of_its_own() {
    let mut o = waiting(vec![looked_at(orphan("a"))]);
    o.former.is_confirmed = true;
    o.share.status = Some(decided(&o).status);
    let empty = start_empty(o.share.metadata.uid.as_deref().unwrap());
    o.share = said(o.share, &empty);
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(
        (decision.status.handle, decision.status.former_data),
        (None, Vec::new())
    );
}

/// Share `a`, which is to have the data of `of` in an admin's word.
fn adopting(of: &str) -> Observed {
    let mut o = waiting(vec![looked_at(orphan(of))]);
    o.former.is_confirmed = true;
    o.share = said(o.share, &format!("ceph-a/shoal/shoal-old-{of}"));
    o
}

#[test]
fn who_adopts_is_placed_there_revokes_what_there_was_and_makes_it_its_own() {
    for protocol in [Protocol::NFS, Protocol::CephFS] {
        let mut o = adopting("a");
        o.share.spec.protocol = protocol;
        o.former.is_confirmed = false;
        assert_eq!(
            step(&o),
            Some(Step::Do(Effect::LookAtFormer)),
            "not the index's word"
        );
        o.former.is_confirmed = true;
        let decision = decided(&o);
        assert_eq!(decision.step, Some(Step::Record));
        assert_eq!(decision.status.handle.as_deref(), Some("shoal/shoal-old-a"));
        o.share.status = Some(decision.status);
        o.backend = Some(Ok(backend_description()));
        assert_eq!(volume_ref(&o).place.subvolume, "shoal-old-a");
        assert_eq!(step(&o), Some(Step::Do(Effect::Look)), "it is not made");

        o.sight = there(&orphan("a")).seen();
        assert_eq!(step(&o), Some(Step::Do(Effect::Revoke)));
        assert_eq!(former_volume(&o).unwrap().owner, owner("former", "a"));
        o.former.is_revoked = true;
        assert_eq!(step(&o), Some(Step::Do(Effect::BringBack)));
        let own = Tag::Owner(owner_of(&o.share));
        o.sight = there(&orphan("a")).tagged(own).seen();
        assert_eq!(step(&o), Some(Step::Do(Effect::Export(Vec::new()))));
        assert_eq!(decided(&o).status.handle.as_deref(), Some("shoal/shoal-old-a"));
    }
}

#[test]
fn an_explicit_source_is_as_good() {
    let mut o = adopting("b");
    o.share.metadata.annotations = None;
    o.share.spec.source = Some(ShareSource {
        existing: ExistingShare {
            backend_name: "ceph-a".into(),
            handle: "shoal/shoal-old-b".into(),
        },
    });
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.handle.as_deref(), Some("shoal/shoal-old-b"));
}

#[test]
fn what_is_not_there_or_too_large_is_not_adopted() {
    let mut o = adopting("a");
    o.former.orphans[0].volume.as_mut().unwrap().size_bytes = Some(2 * GI);
    assert_eq!(why(&o), reasons::SIZE_OUT_OF_RANGE);
    // Without a quota it may be made as large as is asked for.
    o.former.orphans[0].volume.as_mut().unwrap().size_bytes = None;
    assert_eq!(step(&o), Some(Step::Record));
    o.former.orphans.clear();
    assert_eq!(why(&o), reasons::NOTHING_TO_BRING_BACK);
}

#[test]
fn of_two_objects_that_claim_the_same_data_the_second_is_refused() {
    let mut o = adopting("a");
    o.former.claimed_by = Some("Share team/b".into());
    assert_eq!(why(&o), reasons::NOT_TO_BE_BROUGHT_BACK);
    // It had been placed before that was known.
    o.former.claimed_by = None;
    o.share.status = Some(decided(&o).status);
    o.backend = Some(Ok(backend_description()));
    o.sight = there(&orphan("a")).seen();
    o.former.claimed_by = Some("Share team/b".into());
    assert_eq!(why(&o), reasons::NOT_TO_BE_BROUGHT_BACK);
}

#[test]
fn a_neighbours_is_not_adopted() {
    let mut o = adopting("a");
    o.former.others = neighbours("former");
    assert_eq!(why(&o), reasons::NOT_TO_BE_BROUGHT_BACK);
}

#[test]
fn who_makes_shares_in_one_place_has_the_same_neighbours() {
    let backend = |name: &str, group: &str, fs_id: i64, neighbours: &[&str]| {
        let mut o = of_backend();
        o.description = Some(Ok(backend_description()));
        o.backend.metadata.name = Some(name.into());
        o.backend.spec.ceph = Some(shoal_crds::CephBackend {
            subvolume_group: group.into(),
            ..shoal_crds::CephBackend::default()
        });
        o.backend.spec.neighbours = neighbours.iter().map(|&cluster| cluster.to_owned()).collect();
        let mut status = share_backend::decide(&o, now()).status;
        status.ceph.as_mut().unwrap().fs_id = fs_id;
        o.backend.status = Some(status);
        o.backend
    };
    let mut all = vec![
        backend("one", "shoal", 1, &["a"]),
        backend("two", "shoal", 1, &["b"]),
        backend("another-group", "others", 1, &["c"]),
        backend("another-fs", "shoal", 2, &["d"]),
    ];
    let of = |all: &[shoal_crds::ShareBackend], n: usize| {
        let found = share_backend::neighbours(&all[n], all);
        found.into_iter().collect::<Vec<_>>().join(",")
    };
    assert_eq!([of(&all, 0), of(&all, 1)], ["a,b", "a,b"]);
    assert_eq!([of(&all, 2), of(&all, 3)], ["c", "d"]);
    // Of one that was never asked it is not known where it is.
    all[1].status = None;
    assert_eq!([of(&all, 0), of(&all, 1)], ["a", "b"]);
}

#[test]
fn what_is_in_another_group_is_not_adopted_nor_looked_at() {
    for is_source in [false, true] {
        let mut o = adopting("a");
        let handle = "theirs/shoal-old-a";
        o.former.orphans[0].handle = handle.into();
        let field = if is_source {
            o.share.metadata.annotations = None;
            o.share.spec.source = Some(ShareSource {
                existing: ExistingShare {
                    backend_name: "ceph-a".into(),
                    handle: handle.into(),
                },
            });
            "spec.source.existing.handle"
        } else {
            o.share = said(o.share, &format!("ceph-a/{handle}"));
            FORMER_DATA
        };
        for is_confirmed in [false, true] {
            o.former.is_confirmed = is_confirmed;
            assert_eq!(why(&o), reasons::NOT_TO_BE_BROUGHT_BACK);
            let status = decided(&o).status;
            let told = status
                .conditions
                .iter()
                .find(|c| c.type_ == types::READY)
                .unwrap();
            for words in [
                field,
                "'theirs/shoal-old-a'",
                "group 'shoal'",
                "kubectl shoal orphans",
            ] {
                assert!(told.message.contains(words), "{}", told.message);
            }
            assert!(says(&status.conditions, types::STALLED));
        }
    }
}

#[test]
fn what_could_not_be_looked_for_is_not_said_to_be_gone() {
    let mut o = adopting("a");
    o.former.orphans.clear();
    let away = failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE);
    o.former.not_looked_for = Some(away.clone());
    assert_eq!(why(&o), reasons::BACKEND_UNREACHABLE);
    let decision = decided(&o);
    let conditions = &decision.status.conditions;
    let told = conditions.iter().find(|c| c.type_ == types::READY).unwrap();
    assert!(
        told.message
            .contains("'shoal/shoal-old-a' on ShareBackend 'ceph-a'"),
        "{}",
        told.message
    );
    assert!(told.message.contains(&away.message), "{}", told.message);
    assert!(!says(conditions, types::STALLED), "it is tried again");
    assert!(matches!(decision.next, Next::After(_)));
}

#[test]
fn the_turn_is_taken_where_that_is_which_it_brings_back() {
    let mut o = adopting("a");
    o.candidates
        .insert(0, candidate("ceph-b", Ok(replaced(backend_description()))));
    assert_eq!(o.fsid().as_deref(), Some("fsid-1"));
    // One whose namesake was found, and is to be looked at.
    o.share.metadata.annotations = None;
    assert_eq!(o.fsid().as_deref(), Some("fsid-1"));
    o.former.orphans[0].backend_name = "ceph-b".into();
    assert_eq!(o.fsid().as_deref(), Some("fsid-2"));
    o.share = o.share.placed();
    assert_eq!(o.fsid().as_deref(), Some("fsid-1"), "its own");
}

// ---- what can't be read

#[test]
fn what_can_not_be_read_has_what_is_tagged_as_its() {
    let mut ledger = Ledger::default();
    ledger.begin_list();
    ledger.is_there(&share("a").metadata);
    ledger.end_list();
    ledger.deletion_is_there("shoal-uid-b");
    for (uid, holder) in [("uid-a", "Share team/a"), ("uid-b", "ShareDeletion shoal-uid-b")] {
        assert_eq!(
            ledger.holder(&format!("shoal-{uid}"), "").as_deref(),
            Some(holder)
        );
    }
    let others = Others {
        unread: ledger.unread(),
        ..Others::default()
    };
    assert_eq!(
        others.unread,
        BTreeSet::from(["uid-a".to_owned(), "uid-b".to_owned()])
    );
    // What one of them had brought back has another's name, and its tag.
    let its = Owner {
        uid: "uid-a".into(),
        ..owner(CLUSTER, "a")
    };
    let mut index = Index::default();
    index.list(listing(&["old", "x"], &[("/shoal-1", "old")]), |name| {
        ledger.is_held(name)
    });
    index.read("old", Some(Tag::Owner(its.clone())));
    index.read("x", Some(Tag::Owner(owner(CLUSTER, "x"))));
    let told = index.status(&others);
    assert_eq!(
        (told.subvolumes, told.exports, told.list[0].handle.as_str()),
        (1, 0, "shoal/x")
    );
    // Nor may anybody have it.
    let mut o = adopting("a");
    o.former.orphans[0].owner = its;
    assert_eq!(step(&o), Some(Step::Record));
    o.former.others = others;
    assert_eq!(why(&o), reasons::NOT_TO_BE_BROUGHT_BACK);

    // It was corrected, or is gone.
    ledger.note(&share("a").placed());
    assert_eq!(ledger.unread(), BTreeSet::from(["uid-b".to_owned()]));
    ledger.deletion_gone("shoal-uid-b");
    assert_eq!(ledger.unread(), BTreeSet::new());
    ledger.is_there(&share("a").metadata);
    assert_eq!(ledger.unread(), BTreeSet::new(), "what it had is known");
    ledger.is_there(&share("c").metadata);
    ledger.gone("uid-c");
    ledger.is_there(&share("d").metadata);
    ledger.begin_list();
    ledger.end_list();
    assert_eq!(ledger.unread(), BTreeSet::new());
}

#[test]
fn a_verdict_that_was_taken_back_gives_nothing_away() {
    let mut o = adopting("a");
    o.share.status = Some(decided(&o).status);
    o.backend = Some(Ok(backend_description()));
    o.sight = there(&orphan("a")).seen();
    for other in [None, Some("ceph-a/shoal/other"), Some(&start_empty("x"))] {
        o.share.metadata.annotations =
            other.map(|value| BTreeMap::from([(FORMER_DATA.to_owned(), value.to_owned())]));
        assert_eq!(why(&o), reasons::OWNED_BY_ANOTHER, "{other:?}");
    }
    // Nor does its deletion touch what never was its.
    o.share = o.share.leaving();
    o.locks_confirmed = true;
    assert_eq!(step(&o), Some(Step::RemoveFinalizer));
}

#[test]
fn what_was_promised_to_others_is_not_promised_twice() {
    let mut o = adopting("a");
    o.candidates[0].overcommit = Some("1".parse().unwrap());
    o.candidates[0].load.promised_bytes = u128::from(200 * GI);
    assert_eq!(why(&o), reasons::NO_ROOM_TO_EXTEND);
    o.candidates[0].load.promised_bytes = 0;
    o.candidates[0].door = Door::Disabled(None);
    assert_eq!(
        step(&o),
        Some(Step::Record),
        "it is there already, so it is as one that is pinned"
    );
}

#[test]
fn what_is_left_of_one_that_went_before_it_had_the_data_is_nothing() {
    let mut o = adopting("a");
    o.share.status = Some(decided(&o).status);
    o.backend = Some(Ok(backend_description()));
    let seen = there(&orphan("a"));
    assert!(matches!(seen.export, Export::Absent));
    let sight: Option<Sight> = seen.seen();
    o.sight.clone_from(&sight);
    assert!(!o.may_hold_data());
    assert_eq!(o.handle(), None);
}

// ---- what is known of a backend that is away

#[test]
fn data_of_a_name_may_be_where_nobody_can_look_now() {
    let listed = |namespace: &str, name: &str, left: Option<&str>| shoal_crds::Orphan {
        handle: "shoal/x".into(),
        owner: Some(shoal_crds::FormerOwner {
            cluster: "c".into(),
            namespace: namespace.into(),
            name: name.into(),
        }),
        left: left.map(str::to_owned),
    };
    let seen = |list: Vec<shoal_crds::Orphan>, subvolumes: i64| shoal_crds::OrphanStatus {
        subvolumes,
        exports: 0,
        list,
    };
    let may = |seen: &shoal_crds::OrphanStatus| may_be_among(seen, "ns", "a");
    assert!(!may(&seen(vec![], 0)));
    assert!(!may(&seen(
        vec![listed("ns", "b", None), listed("other", "a", None)],
        2
    )));
    assert!(!may(&seen(vec![listed("ns", "a", Some("Retained"))], 1)));
    assert!(may(&seen(vec![listed("ns", "a", None)], 1)));
    assert!(may(&seen(vec![listed("ns", "b", None)], 2)), "not all is told of");
}

#[test]
fn a_tag_without_an_owner_is_read_again_with_the_next_listing() {
    let listing = || Listing {
        group: "shoal".into(),
        subvolumes: ["x".to_owned()].into(),
        ..Listing::default()
    };
    let mut index = Index::default();
    index.list(listing(), |_| false);
    assert_eq!(index.unread(9), ["x"]);
    index.read("x", Some(Tag::Absent));
    assert_eq!((index.unread(9), index.is_complete()), (vec![], true));
    index.list(listing(), |_| false);
    assert_eq!(
        (index.unread(9), index.is_complete()),
        (vec!["x".to_owned()], true)
    );
    assert_eq!(
        index.status(&Others::default()).subvolumes,
        1,
        "it is told of meanwhile"
    );
    let owner = orphan("x").owner;
    index.read("x", Some(Tag::Owner(owner.clone())));
    assert!(index.namesakes(&owner.namespace, &owner.name).next().is_some());
    index.list(listing(), |_| false);
    assert_eq!(index.unread(9), Vec::<String>::new());
}
