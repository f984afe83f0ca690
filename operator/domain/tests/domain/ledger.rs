//! The books: what was stored and what was reserved, and that nothing is counted twice or forgotten.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shoal_crds::{
    Charge, DeletionPhase, ExistingShare, Placement, Share, ShareDeletion, ShareDeletionStatus, ShareSource,
    Size,
};
use shoal_domain::{
    ledger::{Claim, Ledger, Reservation, charged},
    share_quota::{Amount, Usage},
};

use crate::fixtures::*;

/// A share of so many Gi on a backend, in a version.
fn placed(name: &str, version: u64, backend: &str, gib: u64) -> Share {
    let mut share = unplaced(name, version).placed();
    let status = share.status.as_mut().unwrap();
    status.backend_name = Some(backend.into());
    status.quota = Size::from_bytes(gib * GI).map(|charged| Charge { charged });
    share
}

fn unplaced(name: &str, version: u64) -> Share {
    let mut share = share(name).held();
    share.metadata.resource_version = Some(version.to_string());
    share
}

fn claim(backend: &str, gib: u64) -> Claim {
    Claim {
        backend_name: backend.into(),
        bytes: gib * GI,
        is_exported: true,
        share_type_name: Some("standard".into()),
        mount_point: None,
        subvolume: None,
    }
}

fn promised(ledger: &Ledger, backend: &str) -> u128 {
    ledger.load(backend).promised_bytes / u128::from(GI)
}

/// Reserves as of the newest page.
fn reserve(ledger: &mut Ledger, share: &Share, claim: Claim) {
    let revision = ledger.page(share, None).revision;
    assert_eq!(ledger.reserve(share, revision, claim), Reservation::Made);
}

#[test]
fn a_share_counts_for_what_is_stored_and_not_for_what_it_asks() {
    let mut large = placed("a", 1, "one", 2);
    large.spec.size = size("9Gi");
    let mut ledger = Ledger::default();
    ledger.note(&large);
    assert_eq!((promised(&ledger, "one"), ledger.load("one").shares), (2, 1));
    ledger.gone("uid-a");
    assert_eq!(ledger.loads().len(), 0);
    let status = large.status.as_mut().unwrap();
    status.quota = None;
    assert_eq!(
        charged(&large.spec, large.status.as_ref().unwrap()),
        9 * GI,
        "none was stored"
    );
    large.status.as_mut().unwrap().size = Some(size("3Gi"));
    assert_eq!(charged(&large.spec, large.status.as_ref().unwrap()), 3 * GI);
}

#[test]
fn of_two_that_read_the_same_page_one_reserves() {
    let mut ledger = Ledger::default();
    let (a, b) = (unplaced("a", 1), unplaced("b", 2));
    ledger.note(&a);
    ledger.note(&b);
    let (page_a, page_b) = (ledger.page(&a, None), ledger.page(&b, None));
    let made = ledger.reserve(&a, page_a.revision, claim("one", 1));
    assert_eq!(made, Reservation::Made);
    let overtaken = ledger.reserve(&b, page_b.revision, claim("one", 1));
    assert_eq!(overtaken, Reservation::Overtaken, "it must look again");
    assert_eq!(ledger.page(&b, None).loads["one"].shares, 1);
    assert!(
        ledger.page(&a, None).loads.is_empty(),
        "its own is not in its own way"
    );
}

#[test]
fn what_was_reserved_counts_until_the_watch_has_brought_what_came_of_it() {
    let mut ledger = Ledger::default();
    ledger.note(&unplaced("a", 5));
    reserve(&mut ledger, &unplaced("a", 5), claim("one", 2));
    ledger.note(&unplaced("a", 4));
    ledger.note(&unplaced("a", 5));
    assert_eq!(
        promised(&ledger, "one"),
        2,
        "repeated and older versions say nothing"
    );
    assert!(ledger.is_owed());
    ledger.note(&placed("a", 6, "one", 2));
    assert_eq!((promised(&ledger, "one"), ledger.load("one").shares), (2, 1));
    assert!(!ledger.is_owed());
    // Another's write came between, so ours was refused: it carried the version before.
    ledger.note(&unplaced("b", 7));
    reserve(&mut ledger, &unplaced("b", 7), claim("one", 3));
    ledger.note(&unplaced("b", 8));
    assert_eq!(promised(&ledger, "one"), 2);
}

#[test]
fn what_was_reserved_outlives_news_of_versions_before_it() {
    let mut ledger = Ledger::default();
    ledger.note(&unplaced("a", 4));
    // The finalizer's version was answered, and the watch has not brought it yet.
    reserve(&mut ledger, &unplaced("a", 6), claim("one", 2));
    for version in [5, 6] {
        ledger.note(&unplaced("a", version));
        assert_eq!(promised(&ledger, "one"), 2, "version {version}");
    }
    ledger.note(&unplaced("a", 7));
    assert_eq!(promised(&ledger, "one"), 0);
}

/// A pass on an outdated cache: what it would store is refused, and nobody may rest on it until then.
#[test]
fn what_was_decided_on_an_outdated_version_is_not_reserved() {
    let mut ledger = Ledger::default();
    ledger.note(&placed("a", 6, "one", 2));
    let outdated = unplaced("a", 5);
    let revision = ledger.page(&outdated, None).revision;
    let answer = ledger.reserve(&outdated, revision, claim("two", 2));
    assert_eq!(answer, Reservation::Outdated);
    assert_eq!((promised(&ledger, "one"), promised(&ledger, "two")), (2, 0));
    let gone = ledger.reserve(&unplaced("b", 7), revision, claim("two", 2));
    assert_eq!(gone, Reservation::Outdated);
}

/// Of a share that is gone, and of `gib` Gi on a backend.
fn remains(name: &str, backend: &str, gib: u64) -> ShareDeletion {
    let mut o = crate::share_deletion::going(|_| ());
    o.going.is_in_hand = true;
    let mut deletion = crate::share_deletion::handed_on(&o);
    deletion.metadata.name = Some(name.into());
    deletion.spec.backend_name = backend.into();
    deletion.spec.size = Size::from_bytes(gib * GI).unwrap();
    deletion
}

/// The same, which an admin has given up.
fn given_up(name: &str, backend: &str, gib: u64) -> ShareDeletion {
    ShareDeletion {
        status: Some(ShareDeletionStatus {
            phase: Some(DeletionPhase::Abandoned),
            ..ShareDeletionStatus::default()
        }),
        ..remains(name, backend, gib)
    }
}

/// The room is taken until the data is gone; the quota of the namespace is free at once.
#[test]
fn what_is_left_of_a_share_takes_room_and_no_quota() {
    let mut ledger = Ledger::default();
    ledger.note(&placed("a", 1, "one", 2));
    ledger.note_deletion(&remains("d", "one", 2));
    ledger.gone("uid-a");
    let load = ledger.load("one");
    assert_eq!((load.shares, load.deletions, load.exports), (0, 1, 1));
    assert_eq!(promised(&ledger, "one"), 2);
    assert_eq!(ledger.usage("team"), Usage::default());
    assert_eq!(ledger.on_backend("one", 10), ["ShareDeletion d"]);

    // Who brings it back has that room already.
    let mut heir = unplaced("b", 2);
    heir.spec.source = Some(ShareSource {
        existing: ExistingShare {
            backend_name: "one".into(),
            handle: "shoal/shoal-uid-a".into(),
        },
    });
    ledger.note(&heir);
    assert!(ledger.page(&heir, None).loads.is_empty());
    // Also in an admin's word.
    let mut adopting = unplaced("b", 2);
    let said = (
        "shoal.storage/former-data".to_owned(),
        "one/shoal/shoal-uid-a".to_owned(),
    );
    adopting.metadata.annotations = Some([said].into());
    assert!(ledger.page(&adopting, None).loads.is_empty());
    assert_eq!(ledger.page(&unplaced("c", 3), None).loads["one"].deletions, 1);

    assert!(
        ledger.note_deletion(&given_up("d", "one", 2)),
        "others may have it"
    );
    assert!(ledger.loads().is_empty());
}

/// With a name on NFS cluster `nfs-1`.
fn named(mut share: Share, name: &str) -> Share {
    let status = share.status.as_mut().unwrap();
    status.resolved_mount_point_name = Some(name.into());
    share
}

fn is_taken(ledger: &Ledger, for_: &str, name: &str) -> bool {
    let page = ledger.page(&unplaced(for_, 1), Some(name));
    page.taken_on == BTreeSet::from([backend_description().nfs_cluster().unwrap()])
}

#[test]
fn a_name_is_ones_from_its_reservation_until_nothing_is_left_of_its_export() {
    let mut ledger = Ledger::default();
    let share = named(placed("a", 6, "one", 1), "data");
    ledger.note(&unplaced("a", 5));
    let claimed = Claim::of(&share.spec, share.status.as_ref().unwrap()).unwrap();
    reserve(&mut ledger, &unplaced("a", 5), claimed);
    assert!(is_taken(&ledger, "b", "data"), "reserved");
    assert!(!is_taken(&ledger, "a", "data") && !is_taken(&ledger, "b", "other"));
    ledger.note(&share);
    ledger.note(&named(placed("a", 7, "one", 1), "data").leaving());
    assert!(is_taken(&ledger, "b", "data"), "on its way out");
    // Whoever takes over what is left has it before the share lets go.
    let mut left = remains("d", "one", 1);
    left.spec.resolved_mount_point_name = Some("data".into());
    ledger.note_deletion(&left);
    assert!(ledger.note(&named(placed("a", 8, "one", 1), "data").leaving().not_held()));
    assert!(is_taken(&ledger, "b", "data"), "its export may be there");
    // Also when it was given up like that.
    let mut status = ShareDeletionStatus {
        phase: Some(DeletionPhase::Abandoned),
        access_revoked: Some(false),
        ..ShareDeletionStatus::default()
    };
    left.status = Some(status.clone());
    ledger.note_deletion(&left);
    assert!(is_taken(&ledger, "b", "data") && ledger.loads().is_empty());
    status.access_revoked = Some(true);
    left.status = Some(status);
    assert!(ledger.note_deletion(&left), "others may have it");
    assert!(!is_taken(&ledger, "b", "data"));
    assert!(!ledger.deletion_gone("d"));
}

#[test]
fn a_name_that_was_reserved_and_not_stored_is_free() {
    let mut ledger = Ledger::default();
    ledger.note(&unplaced("a", 5));
    let share = named(placed("a", 6, "one", 1), "data");
    let claimed = Claim::of(&share.spec, share.status.as_ref().unwrap()).unwrap();
    reserve(&mut ledger, &unplaced("a", 5), claimed);
    ledger.release("uid-a");
    assert!(!is_taken(&ledger, "b", "data"));
}

#[test]
fn a_list_of_deletions_says_which_are_gone() {
    let mut ledger = Ledger::default();
    for name in ["d", "e", "f"] {
        ledger.note_deletion(&remains(name, "one", 1));
    }
    ledger.begin_deletions();
    ledger.note_deletion(&remains("d", "one", 1));
    ledger.deletion_is_there("e");
    // Written while the others were listed.
    ledger.note_deletion(&remains("g", "one", 1));
    ledger.end_deletions();
    assert_eq!(
        ledger.on_backend("one", 10),
        ["ShareDeletion d", "ShareDeletion e", "ShareDeletion g"]
    );
    assert!(ledger.deletion_gone("d"));
    assert!(!ledger.deletion_gone("d"));
}

#[test]
fn one_that_grows_counts_for_the_larger_of_both_until_it_is_known_which_is_stored() {
    let mut ledger = Ledger::default();
    let share = placed("a", 1, "one", 2);
    ledger.note(&share);
    reserve(&mut ledger, &share, claim("one", 5));
    assert_eq!((promised(&ledger, "one"), ledger.load("one").shares), (5, 1));
    ledger.release("uid-a");
    assert_eq!(promised(&ledger, "one"), 2);
}

#[test]
fn it_is_free_when_its_finalizer_has_gone_whoever_else_holds_it() {
    let mut ledger = Ledger::default();
    ledger.note(&placed("a", 1, "one", 2).leaving());
    assert_eq!(promised(&ledger, "one"), 2, "it is still there");
    let mut held_by_another = placed("a", 2, "one", 2).leaving().not_held();
    held_by_another.metadata.finalizers = Some(vec!["another/finalizer".into()]);
    ledger.note(&held_by_another);
    assert_eq!(promised(&ledger, "one"), 0);
    assert_eq!(ledger.waiting(9), []);
}

#[test]
fn a_namespace_is_charged_for_its_own_shares_by_type_until_their_deletion_is_accepted() {
    let mut ledger = Ledger::default();
    let amount = |shares, gib| Amount {
        shares,
        bytes: u128::from(GI) * gib,
    };
    let mut elsewhere = placed("x", 1, "one", 7);
    elsewhere.metadata.namespace = Some("other".into());
    let mut gold = placed("b", 2, "one", 3);
    gold.status.as_mut().unwrap().share_type_name = Some("gold".into());
    for share in [placed("a", 1, "one", 2), gold, elsewhere, unplaced("c", 3)] {
        assert!(!ledger.note(&share), "nothing became free");
    }
    let usage = ledger.usage("team");
    assert_eq!(usage.total, amount(2, 5));
    assert_eq!(usage.by_type["gold"], amount(1, 3));
    assert_eq!(usage.by_type["standard"], amount(1, 2));
    assert_eq!(
        ledger.page(&placed("a", 1, "one", 2), None).usage.total,
        amount(1, 3)
    );

    assert!(ledger.note(&placed("a", 4, "one", 1)), "it shrank");
    assert!(
        !ledger.note(&placed("a", 5, "one", 1).leaving()),
        "it is not accepted yet"
    );
    assert_eq!(ledger.usage("team").total, amount(2, 4));
    assert!(ledger.note(&placed("a", 6, "one", 1).leaving().not_held()));
    assert_eq!(ledger.usage("team").total, amount(1, 3));
    assert_eq!(ledger.usage("nobody"), Usage::default());
}

#[test]
fn a_list_ends_what_is_not_in_it_and_keeps_what_can_not_be_read() {
    let mut ledger = Ledger::default();
    for name in ["a", "b", "c"] {
        ledger.note(&placed(name, 1, "one", 1));
    }
    ledger.begin_list();
    ledger.note(&placed("a", 1, "one", 1));
    ledger.is_there(&share("b").metadata);
    assert_eq!(promised(&ledger, "one"), 3, "not before the list has ended");
    ledger.end_list();
    assert_eq!(ledger.on_backend("one", 9), ["team/a", "team/b"]);
    assert_eq!(ledger.on_backend("one", 1), ["team/a"]);
    assert_eq!(ledger.on_backend("two", 9), [""; 0]);
}

#[test]
fn a_name_used_again_is_the_new_share() {
    let mut ledger = Ledger::default();
    let mut wishing = unplaced("b", 1);
    wishing.spec.placement = Some(Placement {
        same_backend_as: vec!["a".into()],
        ..Placement::default()
    });
    let neighbours = |ledger: &Ledger| {
        let page = ledger.page(&wishing, None);
        page.neighbours
            .into_iter()
            .map(|n| n.backend_name)
            .collect::<Vec<_>>()
    };
    ledger.note(&placed("a", 1, "one", 1));
    assert_eq!(neighbours(&ledger), [Some("one".into())]);
    let mut anew = unplaced("a", 2);
    anew.metadata.uid = Some("uid-anew".into());
    ledger.note(&anew);
    assert_eq!(ledger.waiting(9), [("team".to_owned(), "a".to_owned())]);
    ledger.gone("uid-a");
    assert_eq!(neighbours(&ledger), [None]);
    assert_eq!(
        ledger.waiting(9).len(),
        1,
        "the older one's end is not the newer one's"
    );
    ledger.note(&wishing);
    let named: Vec<_> = ledger
        .page(&anew, None)
        .neighbours
        .into_iter()
        .map(|n| n.name)
        .collect();
    assert_eq!(named, ["b"], "it is told of those that name it, too");
}

#[test]
fn those_that_wait_are_those_that_have_less_than_they_ask() {
    let mut ledger = Ledger::default();
    ledger.note(&unplaced("a", 1));
    ledger.note(&placed("b", 1, "one", 1));
    let mut grows = placed("c", 1, "one", 1);
    grows.spec.size = size("2Gi");
    ledger.note(&grows);
    ledger.note(&unplaced("d", 1).leaving());
    let names: Vec<_> = ledger.waiting(9).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "c"]);
    ledger.note(&placed("a", 2, "one", 1));
    assert_eq!(ledger.waiting(9).len(), 1);
}

proptest! {
    /// Whatever happens in whatever order, the sums are those over what is there: shares, and what is left of deleted ones.
    #[test]
    fn sums_never_drift(events in proptest::collection::vec((0_u8..11, 0_usize..4, 0_u64..20, 0_usize..2, 1_u64..4), 1..60)) {
        let (names, backends) = (["a", "b", "c", "d"], ["one", "two"]);
        let mut ledger = Ledger::default();
        let mut left: BTreeMap<String, (String, u64)> = BTreeMap::new();
        for (what, name, version, backend, gib) in events {
            let (name, backend) = (names[name], backends[backend]);
            let deletion = format!("left-{name}");
            match what {
                0 => {
                    ledger.note(&unplaced(name, version));
                },
                1 => {
                    ledger.note(&placed(name, version, backend, gib));
                },
                2 => {
                    ledger.note(&named(placed(name, version, backend, gib), "data"));
                },
                3 => ledger.gone(&format!("uid-{name}")),
                4 => ledger.release(&format!("uid-{name}")),
                5 => {
                    let share = unplaced(name, version);
                    let revision = ledger.page(&share, None).revision;
                    let _ = ledger.reserve(&share, revision, claim(backend, gib));
                }
                6 | 7 => {
                    ledger.note_deletion(&remains(&deletion, backend, gib));
                    left.insert(deletion, (backend.to_owned(), gib));
                }
                8 => {
                    ledger.note_deletion(&given_up(&deletion, backend, gib));
                    left.remove(&deletion);
                }
                9 => {
                    ledger.deletion_gone(&deletion);
                    left.remove(&deletion);
                }
                // A list that has one of them, and another of which nothing can be told.
                _ => {
                    let unread = format!("left-{}", names[0]);
                    ledger.begin_deletions();
                    ledger.note_deletion(&remains(&deletion, backend, gib));
                    ledger.deletion_is_there(&unread);
                    ledger.end_deletions();
                    left.insert(deletion.clone(), (backend.to_owned(), gib));
                    left.retain(|name, _| *name == deletion || *name == unread);
                }
            }
            // Of each share, what others see is what all see without it.
            for name in names {
                let page = ledger.page(&unplaced(name, 0), None);
                let mut without = ledger.clone();
                without.gone(&format!("uid-{name}"));
                prop_assert_eq!(&page.loads, without.loads());
                prop_assert_eq!(page.usage, without.usage("team"));
                prop_assert_eq!(is_taken(&ledger, name, "data"), is_taken(&without, name, "data"));
            }
            // What is left of deleted ones takes room, and no quota.
            let mut without = ledger.clone();
            for name in names {
                without.gone(&format!("uid-{name}"));
            }
            prop_assert_eq!(without.usage("team"), Usage::default());
            for backend in backends {
                let on_it = left.values().filter(|(of, _)| of == backend).map(|(_, gib)| gib);
                prop_assert_eq!(promised(&without, backend), u128::from(on_it.sum::<u64>()));
            }
        }
        for name in names {
            ledger.gone(&format!("uid-{name}"));
            ledger.deletion_gone(&format!("left-{name}"));
        }
        prop_assert!(ledger.loads().is_empty());
        prop_assert_eq!(ledger.usage("team"), Usage::default());
        prop_assert_eq!(ledger.waiting(9), vec![]);
    }
}
