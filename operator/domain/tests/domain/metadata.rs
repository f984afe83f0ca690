//! What users say of shares and export locations, and how it is written for the storage's admins.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shoal_crds::{ExportLocation, UserMetadata, condition::types};
use shoal_domain::{
    export_location::{revision, with_users_metadata},
    metadata::to_text,
    share::decide,
};

use crate::{fixtures::*, world::World};

fn said(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    let entries = entries.iter();
    entries
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn everything_but_letters_and_digits_is_escaped() {
    assert_eq!(to_text(&BTreeMap::new()), None);
    let text = to_text(&said(&[("team", "blue"), ("100%", "[x]\n\"\\ \u{e4}\u{1f41f}")]));
    assert_eq!(
        text.as_deref(),
        Some(r#"{"100\u0025":"\u005bx\u005d\u000a\u0022\u005c\u0020\u00e4\ud83d\udc1f","team":"blue"}"#)
    );
}

proptest! {
    #[test]
    fn it_reads_back_whatever_it_was(said in proptest::collection::btree_map(".{1,20}", ".{1,20}", 1..5)) {
        let text = to_text(&said).unwrap();
        prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || r#"{}":,\"#.contains(c)), "{}", text);
        prop_assert_eq!(serde_json::from_str::<BTreeMap<String, String>>(&text).unwrap(), said);
    }
}

#[test]
fn a_change_of_metadata_alone_is_one_write() {
    let mut world = World::settled(share("a"), [rule("r", "10.0.0.1")]);
    assert!(!world.steps.contains(&"SetMetadata"), "{:?}", world.steps);
    for entries in [&[("team", "blue")][..], &[("team", "red")], &[]] {
        world.edit_share(|mut share| {
            share.spec.metadata = said(entries);
            share
        });
        world.steps.clear();
        world.run_to_rest();
        // It looks twice.
        assert_eq!(world.steps, ["Look", "SetMetadata", "Look"]);
        assert!(says(&world.status().conditions, types::READY));
        assert_eq!(
            world.subvolume.as_ref().unwrap().metadata,
            to_text(&said(entries))
        );
    }
}

#[test]
fn metadata_that_was_changed_by_hand_is_written_again() {
    let mut share = share("a");
    share.spec.metadata = said(&[("team", "blue")]);
    let mut world = World::settled(share, []);
    world.subvolume.as_mut().unwrap().metadata = Some("by hand".into());
    world.look_due = true;
    world.run_to_rest();
    assert_eq!(
        world.subvolume.as_ref().unwrap().metadata.as_deref(),
        Some(r#"{"team":"blue"}"#)
    );
}

fn locations(world: &World) -> Vec<ExportLocation> {
    world.status().export_locations
}

#[test]
fn what_is_said_of_a_location_stands_beside_what_shoal_says() {
    let mut world = World::settled(share("a"), []);
    let before = locations(&world);
    let id = before[0].id.clone();
    world.edit_share(|mut share| {
        share.spec.export_location_metadata = [(id.as_str(), "rack 7"), ("not-there", "nowhere")]
            .map(|(id, place)| UserMetadata {
                id: id.into(),
                metadata: said(&[("place", place), ("fsName", "mine")]),
            })
            .into();
        share
    });
    world.run_to_rest();
    let after = locations(&world);
    assert_eq!(after.len(), before.len());
    assert_eq!(after[0].id, id, "it is the path's");
    let shown = serde_json::to_value(&after[0]).unwrap();
    assert_eq!(shown["metadata"]["place"], "rack 7");
    assert_eq!(
        shown["metadata"]["fsName"], "cephfs",
        "Shoal's own keys are Shoal's"
    );
    assert_ne!(revision(&after), revision(&before));
    let annotations = world.share().metadata.annotations.clone().unwrap();
    assert!(annotations["shoal.storage/export-locations"].contains("rack 7"));
    let read: ExportLocation = serde_json::from_value(shown).unwrap();
    assert_eq!(read, after[0], "it is read as it is written");
    // Nothing more is to be done.
    assert_eq!(decide(&world.load().unwrap(), now()).step, None);
    assert_eq!(with_users_metadata(before.clone(), &[]), before);
}
