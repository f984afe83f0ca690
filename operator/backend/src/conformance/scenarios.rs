//! The scenarios. Each is one thing that has to hold, told by its name.

use std::time::Duration;

use futures::future::join_all;
use shoal_crds::{
    AccessLevel::{ReadOnly, ReadWrite},
    Protocol, RootDirectory, Squash,
    condition::reasons,
};
use shoal_domain::{
    Class,
    grant::{Client, Grant},
    identity::Identity,
    metadata,
    owner::{Left, Owner, Tag},
    volume::{Export, NewVolume, Sight, VolumeRef},
};
use tokio::time::{Instant, sleep};

use super::{
    Flaw, Hand,
    stage::{
        SIZE, Stage, cephx, ensure, expect, expect_class, ip, key_of, new_key, new_volume, sorted, wrong,
    },
};
use crate::Error;

macro_rules! scenarios {
    ($($protocols:expr => [$($name:ident),* $(,)?]),* $(,)?) => {
        /// Every scenario, with the protocol it is played for.
        pub(super) fn all() -> Vec<(Option<Protocol>, &'static str)> {
            let mut all = Vec::new();
            $(
                for protocol in $protocols {
                    all.extend([$((protocol, stringify!($name))),*]);
                }
            )*
            all
        }

        pub(super) async fn play(stage: &Stage<'_>, name: &str) -> Hand<()> {
            match name {
                $($(stringify!($name) => Box::pin($name(stage)).await,)*)*
                _ => Err(Flaw::Wrong(format!("no scenario '{name}'"))),
            }
        }
    };
}

const NFS: Option<Protocol> = Some(Protocol::NFS);
const CEPHFS: Option<Protocol> = Some(Protocol::CephFS);

scenarios! {
    [None] => [describes_itself],
    [NFS, CEPHFS] => [
        what_is_not_there,
        create_makes_exactly_what_is_asked,
        create_leaves_a_finished_one_as_it_is,
        create_finishes_an_unfinished_one,
        root_has_its_owner_and_mode,
        resize_sets_exactly_what_is_asked,
        resize_never_goes_below_what_is_used,
        changed_quota_is_seen_and_set_back,
        nobody_is_let_in_without_a_grant,
        client_of_another_kind_hinders_nobody,
        unexport_and_remove_can_be_repeated,
        leftovers_of_a_lost_subvolume_are_seen_and_cleared,
        snapshots_stand_in_the_way_of_remove,
        anothers_subvolume_is_left_alone,
        subvolume_with_an_unreadable_tag_is_left_alone,
        another_storage_is_left_alone,
        what_is_handed_over_is_the_others,
        what_is_left_behind_stays_the_shares_and_says_so,
        only_ones_own_is_handed_over,
        without_a_tag_only_what_has_ones_own_name_is_ones_own,
        what_is_handed_over_already_is_not_written_again,
        what_users_say_is_kept_as_it_is,
        what_is_there_is_listed_with_its_tag,
        revoke_ends_all_access_whoever_gave_it,
        many_at_once,
        timeout_means_unknown,
    ],
    [NFS] => [
        clients_stand_in_their_order,
        clients_are_one_set,
        level_and_squash_change_in_place,
        twenty_clients,
        nothing_is_written_when_nothing_differs,
        anothers_export_is_left_alone,
        a_readable_path_is_ones_at_a_time,
        removed_export_is_made_again,
        added_client_is_seen_and_taken_off,
        opened_export_is_seen_and_closed,
    ],
    [CEPHFS] => [
        key_comes_when_let_in_and_on_request,
        identities_are_one_set,
        identity_of_another_namespace_is_refused,
        identity_of_another_file_system_is_refused,
        identity_of_another_tool_is_refused,
        one_identity_on_two_shares,
        nothing_is_authorized_when_nothing_differs,
        added_identity_is_seen_and_taken_off,
        deauthorized_identity_is_seen_and_let_in_again,
        who_loses_access_is_cut_off,
        who_falls_to_read_only_is_cut_off,
        unexport_cuts_everybody_off,
        revoke_cuts_everybody_off,
        cut_off_that_was_left_unfinished_is_finished,
    ],
}

// ---- itself

async fn describes_itself(s: &Stage<'_>) -> Hand<()> {
    let said = s.backend().describe(None).await.map_err(wrong("describe"))?;
    ensure!(
        said.identity == s.on,
        "describe: {:?}, and before {:?}",
        said.identity,
        s.on
    );
    ensure!(!said.identity.fsid.is_empty(), "describe: no fsid");
    let again = s
        .backend()
        .describe(Some(&s.on))
        .await
        .map_err(wrong("describe again"))?;
    ensure!(again.identity == s.on, "describe again: {:?}", again.identity);
    ensure!(!said.protocols.is_empty(), "describe: no protocol");
    let serves_nfs = said.protocols.contains(&Protocol::NFS);
    ensure!(serves_nfs != said.nfs_endpoints.is_empty(), "describe: {said:?}");
    ensure!(!said.monitors.is_empty(), "describe: no monitors");
    let fits = said
        .total_bytes
        .zip(said.free_bytes)
        .is_none_or(|(total, free)| free <= total);
    ensure!(fits, "describe: more is free than there is");
    ensure!(s.backend().deadline() > Duration::ZERO, "no deadline");
    Ok(())
}

// ---- the subvolume

async fn what_is_not_there(s: &Stage<'_>) -> Hand<()> {
    let (volume, backend) = (s.volume(), s.backend());
    let sight = s.look(&volume).await?;
    ensure!(sight == Sight::Absent { leftovers: false }, "look: {sight:?}");
    let lost = NewVolume {
        was_there: true,
        ..new_volume(SIZE)
    };
    let made = backend.create(&s.on, &volume, &lost).await;
    expect("create", made, "NotFound", |error| *error == Error::NotFound)?;
    let resized = backend.resize(&s.on, &volume, SIZE).await;
    expect("resize", resized, "NotFound", |error| *error == Error::NotFound)?;
    let exported = backend.export(&s.on, &volume, &Vec::new()).await;
    expect("export", exported, "NotFound", |error| *error == Error::NotFound)?;
    let key = backend
        .key(&s.on, &volume, &cephx(&s.fresh_identity(), ReadWrite))
        .await;
    ensure!(key.is_err(), "key: there is one");
    backend
        .unexport(&s.on, &volume)
        .await
        .map_err(wrong("unexport"))?;
    backend.remove(&s.on, &volume).await.map_err(wrong("remove"))?;
    let sight = s.look(&volume).await?;
    ensure!(sight == Sight::Absent { leftovers: false }, "look: {sight:?}");
    Ok(())
}

async fn create_makes_exactly_what_is_asked(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    let made = s.create(&volume).await?;
    ensure!(
        made.size_bytes == Some(SIZE),
        "create: {:?} bytes instead of {SIZE}",
        made.size_bytes
    );
    ensure!(
        made.tag == Tag::Owner(volume.owner.clone()),
        "create: tag {:?}",
        made.tag
    );
    ensure!(made.path.starts_with('/'), "create: path {}", made.path);
    ensure!(
        made.handle.contains(&volume.owner.uid),
        "create: handle {}",
        made.handle
    );
    ensure!(!is_open(&made.export), "create: {:?}", made.export);
    let seen = s.see(&volume).await?;
    ensure!(seen == made, "create says {made:?}, and look says {seen:?}");
    Ok(())
}

fn is_open(export: &Export) -> bool {
    match export {
        Export::Absent => false,
        Export::Taken(_) => true,
        Export::Ours { access, .. } => !access.is_empty(),
    }
}

async fn create_leaves_a_finished_one_as_it_is(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    let made = s.create(&volume).await?;
    let again = s.create(&volume).await?;
    ensure!(again == made, "first {made:?}, then {again:?}");
    s.backend()
        .resize(&s.on, &volume, 2 * SIZE)
        .await
        .map_err(wrong("resize"))?;
    let again = s.create(&volume).await?;
    ensure!(
        again.size_bytes == Some(2 * SIZE),
        "create: has taken the size back to {:?}",
        again.size_bytes
    );
    Ok(())
}

async fn create_finishes_an_unfinished_one(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    let made = s.create(&volume).await?;
    s.subject.set_tag(&volume, None).await?;
    let seen = s.see(&volume).await?;
    ensure!(seen.tag == Tag::Absent, "look: tag {:?}", seen.tag);
    let again = s.create(&volume).await?;
    ensure!(again == made, "first {made:?}, then {again:?}");
    let seen = s.see(&volume).await?;
    ensure!(seen == made, "first {made:?}, then look says {seen:?}");
    // One that is never finished can be removed.
    s.subject.set_tag(&volume, None).await?;
    s.backend()
        .remove(&s.on, &volume)
        .await
        .map_err(wrong("remove"))?;
    let sight = s.look(&volume).await?;
    ensure!(sight == Sight::Absent { leftovers: false }, "look: {sight:?}");
    Ok(())
}

async fn root_has_its_owner_and_mode(s: &Stage<'_>) -> Hand<()> {
    for root in [
        RootDirectory {
            uid: 1000,
            gid: 2000,
            mode: "0770".into(),
        },
        RootDirectory {
            uid: 0,
            gid: 0,
            mode: "1777".into(),
        },
        RootDirectory {
            uid: 65534,
            gid: 65534,
            mode: "750".into(),
        },
    ] {
        let volume = s.volume();
        let new = NewVolume {
            size_bytes: SIZE,
            root: root.clone(),
            was_there: false,
        };
        s.backend()
            .create(&s.on, &volume, &new)
            .await
            .map_err(wrong("create"))?;
        let found = s.subject.root(&volume).await?;
        let same_mode = found.mode.trim_start_matches('0') == root.mode.trim_start_matches('0');
        let same = found.uid == root.uid && found.gid == root.gid && same_mode;
        ensure!(same, "asked for {root:?}, and got {found:?}");
    }
    Ok(())
}

async fn resize_sets_exactly_what_is_asked(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.create(&volume).await?;
    for size in [SIZE + 1, 5 * SIZE, 5 * SIZE, SIZE - 1, 1 << 50, SIZE] {
        s.backend()
            .resize(&s.on, &volume, size)
            .await
            .map_err(wrong("resize"))?;
        let found = s.see(&volume).await?.size_bytes;
        ensure!(found == Some(size), "resize to {size}: look says {found:?}");
    }
    Ok(())
}

async fn resize_never_goes_below_what_is_used(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.create(&volume).await?;
    s.subject.fill(&volume, 3 << 20).await?;
    let used = s.see(&volume).await?.used_bytes;
    ensure!(used >= 3 << 20, "look: {used} bytes are used");
    let resized = s.backend().resize(&s.on, &volume, 1 << 20).await;
    expect(
        "resize",
        resized,
        "BelowUsed",
        |error| matches!(error, Error::BelowUsed { used_bytes } if *used_bytes >= used),
    )?;
    let found = s.see(&volume).await?.size_bytes;
    ensure!(found == Some(SIZE), "look: {found:?} after a refused resize");
    s.backend()
        .resize(&s.on, &volume, 4 << 20)
        .await
        .map_err(wrong("resize"))
}

async fn changed_quota_is_seen_and_set_back(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.create(&volume).await?;
    s.subject.set_quota(&volume, 3 * SIZE).await?;
    let found = s.see(&volume).await?.size_bytes;
    ensure!(found == Some(3 * SIZE), "look: {found:?}");
    s.backend()
        .resize(&s.on, &volume, SIZE)
        .await
        .map_err(wrong("resize"))?;
    let found = s.see(&volume).await?.size_bytes;
    ensure!(found == Some(SIZE), "look: {found:?}");
    Ok(())
}

async fn unexport_and_remove_can_be_repeated(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    s.export_all(&volume, &[s.some_client()?]).await?;
    for _ in 0..2 {
        s.backend()
            .unexport(&s.on, &volume)
            .await
            .map_err(wrong("unexport"))?;
        let export = s.see(&volume).await?.export;
        // Native CephFS knows no difference between exported to nobody and not exported.
        let is_gone = match s.protocol {
            Protocol::NFS => export == Export::Absent,
            Protocol::CephFS => !is_open(&export),
        };
        ensure!(is_gone, "look: {export:?} after unexport");
    }
    for _ in 0..2 {
        s.backend()
            .remove(&s.on, &volume)
            .await
            .map_err(wrong("remove"))?;
        let sight = s.look(&volume).await?;
        ensure!(
            sight == Sight::Absent { leftovers: false },
            "look: {sight:?} after remove"
        );
        s.backend()
            .unexport(&s.on, &volume)
            .await
            .map_err(wrong("unexport after remove"))?;
    }
    Ok(())
}

async fn leftovers_of_a_lost_subvolume_are_seen_and_cleared(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    s.export_all(&volume, &[s.some_client()?]).await?;
    s.subject.delete_subvolume(&volume).await?;
    let sight = s.look(&volume).await?;
    ensure!(sight == Sight::Absent { leftovers: true }, "look: {sight:?}");
    let exported = s.backend().export(&s.on, &volume, &Vec::new()).await;
    expect("export", exported, "NotFound", |error| *error == Error::NotFound)?;
    s.backend()
        .unexport(&s.on, &volume)
        .await
        .map_err(wrong("unexport"))?;
    let sight = s.look(&volume).await?;
    ensure!(
        sight == Sight::Absent { leftovers: false },
        "look: {sight:?} after unexport"
    );
    Ok(())
}

async fn snapshots_stand_in_the_way_of_remove(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.create(&volume).await?;
    s.subject.add_snapshot(&volume).await?;
    for _ in 0..2 {
        let removed = s.backend().remove(&s.on, &volume).await;
        expect(
            "remove",
            removed,
            "HasSnapshots",
            |error| matches!(error, Error::HasSnapshots(names) if !names.is_empty()),
        )?;
    }
    s.see(&volume).await?;
    s.subject.remove_snapshots(&volume).await?;
    s.backend().remove(&s.on, &volume).await.map_err(wrong("remove"))
}

// ---- whose it is

async fn anothers_subvolume_is_left_alone(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    let other = Owner {
        cluster: "another".into(),
        ..volume.owner.clone()
    };
    is_left_alone(s, &volume, &other.to_tag(), &Tag::Owner(other.clone())).await
}

async fn subvolume_with_an_unreadable_tag_is_left_alone(s: &Stage<'_>) -> Hand<()> {
    is_left_alone(s, &s.volume(), "made by hand", &Tag::Unreadable).await
}

async fn is_left_alone(s: &Stage<'_>, volume: &VolumeRef, text: &str, tag: &Tag) -> Hand<()> {
    s.create(volume).await?;
    let client = s.some_client()?;
    s.export_all(volume, std::slice::from_ref(&client)).await?;
    s.subject.set_tag(volume, Some(text)).await?;
    let before = s.see(volume).await?;
    ensure!(
        before.tag == *tag,
        "look: tag {:?} instead of {tag:?}",
        before.tag
    );
    let (backend, on) = (s.backend(), &s.on);
    let refused = |what: &str, answer: Result<(), Error>| {
        expect(what, answer, "OwnedByAnother", |error| {
            matches!(error, Error::OwnedByAnother(_))
        })
    };
    refused(
        "create",
        backend.create(on, volume, &new_volume(2 * SIZE)).await.map(drop),
    )?;
    refused("resize", backend.resize(on, volume, 2 * SIZE).await)?;
    refused("export", backend.export(on, volume, &Vec::new()).await.map(drop))?;
    if s.protocol == Protocol::CephFS {
        refused("key", backend.key(on, volume, &client).await.map(drop))?;
    }
    refused("unexport", backend.unexport(on, volume).await)?;
    refused("remove", backend.remove(on, volume).await)?;
    let after = s.see(volume).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    s.subject.set_tag(volume, Some(&volume.owner.to_tag())).await
}

async fn what_is_handed_over_is_the_others(s: &Stage<'_>) -> Hand<()> {
    let giver = s.unkept(&s.subject.fresh_uid());
    s.create(&giver).await?;
    s.export_all(&giver, &[s.some_client()?]).await?;
    let (backend, on) = (s.backend(), &s.on);
    backend.unexport(on, &giver).await.map_err(wrong("unexport"))?;
    let mut heir = s.volume();
    heir.place.clone_from(&giver.place);
    s.keep(&heir);
    for _ in 0..2 {
        let handed = backend.hand_over(on, &giver, &heir.owner).await;
        handed.map_err(wrong("hand_over"))?;
    }
    let (path, seen) = (s.see(&giver).await?.path, s.see(&heir).await?);
    ensure!(
        seen.tag == Tag::Owner(heir.owner.clone()) && seen.path == path,
        "look: {seen:?} after hand_over"
    );
    let refused = |what: &str, answer: Result<(), Error>| {
        expect(what, answer, "OwnedByAnother", |error| {
            matches!(error, Error::OwnedByAnother(_))
        })
    };
    refused("resize", backend.resize(on, &giver, 2 * SIZE).await)?;
    refused("remove", backend.remove(on, &giver).await)?;
    let client = s.some_client()?;
    s.export_all(&heir, std::slice::from_ref(&client)).await?;
    let Export::Ours { access, .. } = s.see(&heir).await?.export else {
        return Err(Flaw::Wrong("look: not exported after export".into()));
    };
    ensure!(
        access.iter().map(|grant| &grant.client).eq([&client.client]),
        "look: {access:?} let in"
    );
    backend.unexport(on, &heir).await.map_err(wrong("unexport"))?;
    backend.remove(on, &heir).await.map_err(wrong("remove"))?;
    let gone = backend.look(on, &heir).await.map_err(wrong("look"))?;
    ensure!(
        matches!(gone, Sight::Absent { .. }),
        "look: {gone:?} after remove"
    );
    Ok(())
}

async fn what_is_left_behind_stays_the_shares_and_says_so(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    s.subject.set_tag(&volume, None).await?;
    for left in [Some(Left::Retained), Some(Left::Abandoned), None] {
        let marked = Owner {
            left,
            ..volume.owner.clone()
        };
        let done = s.backend().hand_over(&s.on, &volume, &marked).await;
        done.map_err(wrong("hand_over"))?;
        let seen = s.see(&volume).await?.tag;
        ensure!(seen == Tag::Owner(marked), "look: tag {seen:?}");
    }
    let resized = s.backend().resize(&s.on, &volume, 2 * SIZE).await;
    resized.map_err(wrong("resize"))
}

async fn what_is_there_is_listed_with_its_tag(s: &Stage<'_>) -> Hand<()> {
    let (backend, on) = (s.backend(), &s.on);
    let volume = s.created().await?;
    let name = &volume.place.subvolume;
    s.export_all(&volume, &[s.some_client()?]).await?;
    let listed = backend.list(on).await.map_err(wrong("list"))?;
    ensure!(listed.subvolumes.contains(name), "list: {name} is not there");
    ensure!(
        s.see(&volume).await?.handle == format!("{}/{name}", listed.group),
        "list: group {}",
        listed.group
    );
    let leads_there = listed.exports.get(&volume.pseudo_path);
    let wanted = (volume.protocol == Protocol::NFS).then_some(name);
    ensure!(leads_there == wanted, "list: its path leads to {leads_there:?}");
    let tag = backend.tag(on, name).await.map_err(wrong("tag"))?;
    ensure!(tag == Some(Tag::Owner(volume.owner.clone())), "tag: {tag:?}");
    backend.unexport(on, &volume).await.map_err(wrong("unexport"))?;
    backend.remove(on, &volume).await.map_err(wrong("remove"))?;
    let listed = backend.list(on).await.map_err(wrong("list"))?;
    ensure!(
        !listed.subvolumes.contains(name) && !listed.exports.contains_key(&volume.pseudo_path),
        "list: {name} is still there"
    );
    let tag = backend.tag(on, name).await.map_err(wrong("tag"))?;
    ensure!(tag.is_none(), "tag: {tag:?} of what is gone");
    let other = Identity {
        fsid: "00000000-0000-4000-8000-000000000000".into(),
        ..on.clone()
    };
    let is_replaced = |error: &Error| matches!(error, Error::Replaced { .. });
    expect("list", backend.list(&other).await, "Replaced", is_replaced)?;
    expect("tag", backend.tag(&other, name).await, "Replaced", is_replaced)
}

async fn revoke_ends_all_access_whoever_gave_it(s: &Stage<'_>) -> Hand<()> {
    let (backend, on) = (s.backend(), &s.on);
    let volume = s.created().await?;
    s.export_all(&volume, &[s.some_client()?]).await?;
    // As one that has it now knows it: not by the path that it was exported under.
    let known = VolumeRef {
        pseudo_path: format!("/shoal-{}", s.subject.fresh_uid()),
        ..volume.clone()
    };
    for _ in 0..2 {
        backend.revoke(on, &known).await.map_err(wrong("revoke"))?;
        let export = s.see(&volume).await?.export;
        let is_closed = match &export {
            Export::Absent => true,
            Export::Taken(_) => false,
            Export::Ours {
                pseudo_path,
                access,
                intact,
            } => pseudo_path.is_none() && access.is_empty() && *intact,
        };
        ensure!(is_closed, "look: {export:?} after revoke");
    }
    let client = s.some_client()?;
    s.export_all(&volume, std::slice::from_ref(&client)).await?;
    let stranger = VolumeRef {
        owner: Owner {
            uid: s.subject.fresh_uid(),
            ..volume.owner.clone()
        },
        ..volume.clone()
    };
    let refused = backend.revoke(on, &stranger).await;
    expect("revoke", refused, "OwnedByAnother", |error| {
        matches!(error, Error::OwnedByAnother(_))
    })?;
    s.expect_access(&volume, &[client]).await
}

async fn what_users_say_is_kept_as_it_is(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    let set = async |text: Option<&str>| s.backend().set_metadata(&s.on, &volume, text).await;
    expect("set_metadata", set(Some("{}")).await, "NotFound", |error| {
        *error == Error::NotFound
    })?;
    ensure!(
        s.create(&volume).await?.metadata.is_none(),
        "create: nobody has said anything"
    );
    let long = "%[x]\n; # = ".repeat(92);
    let said = |entries: &[(&str, &str)]| {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        metadata::to_text(&entries.collect())
    };
    for text in [
        said(&[("team", "blue"), ("Team", "Blue"), ("TEAM", "BLUE")]),
        said(&[
            ("100%", "%(owner)s"),
            ("[GLOBAL]", "[x]"),
            (" ", "\n[x]\r\n\ttag = no\0"),
        ]),
        said(&[("shoal", "\u{e4}\u{4e2d}\u{1f41f}\"\\'"), (long.trim(), &long)]),
        said(&[("a", "b")]),
    ] {
        for _ in 0..2 {
            set(text.as_deref()).await.map_err(wrong("set_metadata"))?;
        }
        s.export_all(&volume, &[]).await?;
        let seen = s.see(&volume).await?;
        ensure!(
            seen.metadata == text,
            "look: {:?}, and it was {text:?}",
            seen.metadata
        );
        ensure!(
            seen.tag == Tag::Owner(volume.owner.clone()),
            "look: the tag has become {:?}",
            seen.tag
        );
    }
    let resized = s.backend().resize(&s.on, &volume, 2 * SIZE).await;
    resized.map_err(wrong("resize"))?;
    ensure!(
        s.see(&volume).await?.metadata == said(&[("a", "b")]),
        "resize: it is lost"
    );
    for _ in 0..2 {
        set(None).await.map_err(wrong("set_metadata"))?;
        ensure!(s.see(&volume).await?.metadata.is_none(), "look: it was taken off");
    }
    s.subject.set_tag(&volume, Some("made by hand")).await?;
    expect("set_metadata", set(Some("{}")).await, "OwnedByAnother", |error| {
        matches!(error, Error::OwnedByAnother(_))
    })?;
    s.subject.set_tag(&volume, None).await
}

async fn only_ones_own_is_handed_over(s: &Stage<'_>) -> Hand<()> {
    let (volume, heir) = (s.volume(), s.volume());
    let handed = s.backend().hand_over(&s.on, &volume, &heir.owner).await;
    expect("hand_over", handed, "NotFound", |error| *error == Error::NotFound)?;
    s.create(&volume).await?;
    let other = Owner {
        cluster: "another".into(),
        ..volume.owner.clone()
    };
    // Whoever has no tag to show has only what is under its own name.
    let stranger = VolumeRef {
        place: volume.place.clone(),
        ..s.unkept(&volume.tenant)
    };
    for (giver, text) in [
        (&volume, Some(other.to_tag())),
        (&volume, Some("made by hand".into())),
        (&stranger, None),
    ] {
        s.subject.set_tag(&volume, text.as_deref()).await?;
        let before = s.see(&volume).await?;
        let handed = s.backend().hand_over(&s.on, giver, &heir.owner).await;
        expect("hand_over", handed, "OwnedByAnother", |error| {
            matches!(error, Error::OwnedByAnother(_))
        })?;
        let after = s.see(&volume).await?;
        ensure!(after == before, "before {before:?}, after {after:?}");
    }
    s.subject.set_tag(&volume, Some(&volume.owner.to_tag())).await
}

async fn what_is_handed_over_already_is_not_written_again(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let heir = s.unkept(&volume.tenant).owner;
    let renamed = Owner {
        name: "renamed".into(),
        ..heir.clone()
    };
    let before = s.writes().await?;
    for (to, writes) in [(&heir, 1), (&heir, 1), (&renamed, 2), (&renamed, 2)] {
        let handed = s.backend().hand_over(&s.on, &volume, to).await;
        handed.map_err(wrong("hand_over"))?;
        let (tag, after) = (s.see(&volume).await?.tag, s.writes().await?);
        ensure!(tag == Tag::Owner(to.clone()), "look: tag {tag:?}");
        ensure!(after == before + writes, "hand_over: {} writes", after - before);
    }
    s.subject.set_tag(&volume, Some(&volume.owner.to_tag())).await
}

async fn without_a_tag_only_what_has_ones_own_name_is_ones_own(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let mut other = s.unkept(&volume.tenant);
    other.place.clone_from(&volume.place);
    s.subject.set_tag(&volume, None).await?;
    let before = s.see(&volume).await?;
    let (backend, on) = (s.backend(), &s.on);
    let refused = |what: &str, answer: Result<(), Error>| {
        expect(what, answer, "OwnedByAnother", |error| {
            matches!(error, Error::OwnedByAnother(_))
        })
    };
    let made = backend.create(on, &other, &new_volume(2 * SIZE)).await;
    refused("create", made.map(drop))?;
    refused("resize", backend.resize(on, &other, 2 * SIZE).await)?;
    let exported = backend.export(on, &other, &Vec::new()).await;
    refused("export", exported.map(drop))?;
    refused("unexport", backend.unexport(on, &other).await)?;
    refused("remove", backend.remove(on, &other).await)?;
    let after = s.see(&volume).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    s.subject.set_tag(&volume, Some(&volume.owner.to_tag())).await
}

async fn another_storage_is_left_alone(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let client = s.some_client()?;
    s.export_all(&volume, std::slice::from_ref(&client)).await?;
    let before = s.see(&volume).await?;
    for on in [
        Identity {
            fsid: "00000000-0000-4000-8000-000000000000".into(),
            ..s.on.clone()
        },
        Identity {
            fs_name: "another".into(),
            ..s.on.clone()
        },
        Identity {
            fs_id: s.on.fs_id + 1000,
            ..s.on.clone()
        },
    ] {
        let backend = s.backend();
        let refused = |what: &str, answer: Result<(), Error>| {
            expect(what, answer, "Replaced", |error| {
                matches!(error, Error::Replaced { .. })
            })
        };
        refused("describe", backend.describe(Some(&on)).await.map(drop))?;
        refused("look", backend.look(&on, &volume).await.map(drop))?;
        refused(
            "look for what is not there",
            backend.look(&on, &s.volume()).await.map(drop),
        )?;
        refused(
            "create",
            backend
                .create(&on, &s.volume(), &new_volume(SIZE))
                .await
                .map(drop),
        )?;
        refused("resize", backend.resize(&on, &volume, 2 * SIZE).await)?;
        refused(
            "export",
            backend.export(&on, &volume, &Vec::new()).await.map(drop),
        )?;
        refused("key", backend.key(&on, &volume, &client).await.map(drop))?;
        refused("unexport", backend.unexport(&on, &volume).await)?;
        let heir = s.volume().owner;
        refused("hand_over", backend.hand_over(&on, &volume, &heir).await)?;
        refused("remove", backend.remove(&on, &volume).await)?;
    }
    let after = s.see(&volume).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    Ok(())
}

// ---- all at once, and none in time

async fn many_at_once(s: &Stage<'_>) -> Hand<()> {
    let lives = join_all((0..8).map(|_| async {
        let volume = s.volume();
        s.create(&volume).await?;
        let client = s.some_client()?;
        s.export_all(&volume, std::slice::from_ref(&client)).await?;
        s.export_all(&volume, &[]).await?;
        s.export_all(&volume, &[client]).await?;
        s.backend()
            .resize(&s.on, &volume, 2 * SIZE)
            .await
            .map_err(wrong("resize"))?;
        s.clear_one(s.backend(), &s.on, &volume).await
    }));
    lives.await.into_iter().collect()
}

async fn timeout_means_unknown(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.subject.stall().await?;
    let result = while_stalled(s, &volume).await;
    s.subject.resume().await?;
    result?;
    // What was held up comes before anything else is answered.
    let start = Instant::now();
    while let Err(error) = s.backend().look(&s.on, &volume).await {
        let holds = matches!(error, Error::TimedOut(_) | Error::Silent(_));
        ensure!(holds, "look after the end of the stall: {error:?}");
        ensure!(
            start.elapsed() < Duration::from_secs(90),
            "still not answered: {error:?}"
        );
        sleep(Duration::from_millis(500)).await;
    }
    s.create(&volume).await?;
    let client = s.some_client()?;
    s.export_all(&volume, &[client]).await?;
    Ok(())
}

async fn while_stalled(s: &Stage<'_>, volume: &VolumeRef) -> Hand<()> {
    let deadline = s.backend().deadline();
    let start = Instant::now();
    let created = s.backend().create(&s.on, volume, &new_volume(SIZE)).await;
    expect("create", created, "TimedOut", |error| {
        matches!(error, Error::TimedOut(_))
    })?;
    let took = start.elapsed();
    // Whatever runs on this machine beside it may take a little too.
    ensure!(
        took < deadline + Duration::from_secs(2),
        "create took {took:?}, of a deadline of {deadline:?}"
    );
    for _ in 0..2 {
        let start = Instant::now();
        let again = s.backend().create(&s.on, volume, &new_volume(SIZE)).await;
        expect("create again", again, "Silent", |error| {
            matches!(error, Error::Silent(_))
        })?;
        let took = start.elapsed();
        ensure!(
            took < deadline + Duration::from_secs(2),
            "that it is silent took {took:?} to say"
        );
    }
    Ok(())
}

// ---- access

impl Stage<'_> {
    /// A client of the kind that the protocol knows.
    fn some_client(&self) -> Hand<Grant> {
        match self.protocol {
            Protocol::NFS => ip("192.0.2.7", ReadWrite, Squash::None),
            Protocol::CephFS => Ok(cephx(&self.fresh_identity(), ReadWrite)),
        }
    }
}

async fn nobody_is_let_in_without_a_grant(s: &Stage<'_>) -> Hand<()> {
    let volume = s.volume();
    s.create(&volume).await?;
    for _ in 0..2 {
        s.export_all(&volume, &[]).await?;
    }
    s.export_all(&volume, &[s.some_client()?]).await?;
    s.export_all(&volume, &[]).await?;
    if let Export::Ours { pseudo_path, .. } = s.see(&volume).await?.export {
        let is_named = pseudo_path
            .as_ref()
            .is_some_and(|path| path.contains(&volume.owner.uid));
        ensure!(
            is_named == (s.protocol == Protocol::NFS),
            "look: pseudo path {pseudo_path:?}"
        );
    }
    Ok(())
}

async fn client_of_another_kind_hinders_nobody(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let good = s.some_client()?;
    let bad = match s.protocol {
        Protocol::NFS => cephx(&s.fresh_identity(), ReadWrite),
        Protocol::CephFS => ip("192.0.2.7", ReadWrite, Squash::None)?,
    };
    let applied = s
        .export(&volume, &sorted(vec![good.clone(), bad.clone()]))
        .await?;
    for one in &applied {
        let is_in = one.outcome.is_ok();
        ensure!(
            is_in == (one.client == good.client),
            "export: {} let in: {is_in}",
            one.client
        );
    }
    s.expect_access(&volume, &[good]).await
}

async fn clients_stand_in_their_order(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = sorted(vec![
        ip("0.0.0.0/0", ReadOnly, Squash::All)?,
        ip("10.0.0.0/8", ReadOnly, Squash::Root)?,
        ip("10.1.0.0/16", ReadWrite, Squash::None)?,
        ip("10.1.2.3", ReadOnly, Squash::None)?,
        ip("10.1.2.4", ReadWrite, Squash::Root)?,
        ip("2001:db8::/32", ReadOnly, Squash::None)?,
        ip("2001:db8::7", ReadWrite, Squash::All)?,
    ]);
    s.export_all(&volume, &access).await?;
    // A client that is more specific, let in later, goes to the front.
    let access = sorted([access, vec![ip("10.1.2.0/28", ReadWrite, Squash::None)?]].concat());
    s.export_all(&volume, &access).await?;
    Ok(())
}

async fn clients_are_one_set(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let a = ip("192.0.2.1", ReadWrite, Squash::None)?;
    let b = ip("192.0.2.2", ReadOnly, Squash::Root)?;
    let c = ip("192.0.2.0/24", ReadOnly, Squash::All)?;
    for access in [
        vec![a.clone()],
        vec![a.clone(), b.clone(), c.clone()],
        vec![b.clone()],
        vec![a.clone(), c.clone()],
        Vec::new(),
        vec![c],
    ] {
        s.export_all(&volume, &sorted(access)).await?;
    }
    Ok(())
}

async fn level_and_squash_change_in_place(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    for (level, squash) in [
        (ReadWrite, Squash::None),
        (ReadOnly, Squash::None),
        (ReadOnly, Squash::Root),
        (ReadWrite, Squash::All),
    ] {
        s.export_all(&volume, &[ip("192.0.2.1", level, squash)?]).await?;
    }
    Ok(())
}

async fn twenty_clients(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access: Hand<Vec<_>> = (0..20_u8)
        .map(|n| {
            let level = if n % 2 == 0 { ReadWrite } else { ReadOnly };
            let bits = 32 - n % 5;
            ip(&format!("10.{n}.0.0/{bits}"), level, Squash::None)
        })
        .collect();
    s.export_all(&volume, &sorted(access?)).await?;
    Ok(())
}

async fn nothing_is_written_when_nothing_differs(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = sorted(vec![
        ip("192.0.2.1", ReadWrite, Squash::None)?,
        ip("2001:db8::/64", ReadOnly, Squash::All)?,
    ]);
    writes_once(s, &volume, &access).await
}

async fn nothing_is_authorized_when_nothing_differs(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = sorted(vec![
        cephx(&s.fresh_identity(), ReadWrite),
        cephx(&s.fresh_identity(), ReadOnly),
    ]);
    writes_once(s, &volume, &access).await
}

async fn writes_once(s: &Stage<'_>, volume: &VolumeRef, access: &[Grant]) -> Hand<()> {
    s.export_all(volume, access).await?;
    let before = s.writes().await?;
    s.export_all(volume, access).await?;
    s.create(volume).await?;
    s.backend()
        .resize(&s.on, volume, SIZE)
        .await
        .map_err(wrong("resize"))?;
    let after = s.writes().await?;
    ensure!(
        before == after,
        "{} writes although nothing differed",
        after - before
    );
    Ok(())
}

async fn anothers_export_is_left_alone(s: &Stage<'_>) -> Hand<()> {
    let (volume, other) = (s.volume(), s.created().await?);
    s.create(&volume).await?;
    s.subject.take_path(&volume, &other).await?;
    let Export::Taken(holder) = s.see(&volume).await?.export else {
        return Err(Flaw::Wrong(
            "look: does not say that the pseudo path is taken".into(),
        ));
    };
    let path = s.see(&other).await?.path;
    ensure!(
        holder.contains(&path),
        "look: taken by {holder}, and it is {path}"
    );
    let exported = s.backend().export(&s.on, &volume, &vec![s.some_client()?]).await;
    expect("export", exported, "PathTaken", |error| {
        matches!(error, Error::PathTaken(_))
    })?;
    expect_class(
        "unexport",
        s.backend().unexport(&s.on, &volume).await,
        Class::Conflict,
    )?;
    let export = s.see(&volume).await?.export;
    ensure!(
        export == Export::Taken(holder.clone()),
        "look: taken by {holder} before, now {export:?}"
    );
    // The share itself can go all the same, and what is another's stays.
    s.backend()
        .remove(&s.on, &volume)
        .await
        .map_err(wrong("remove"))?;
    let sight = s.look(&volume).await?;
    ensure!(sight == Sight::Absent { leftovers: false }, "look: {sight:?}");
    s.create(&volume).await?;
    let export = s.see(&volume).await?.export;
    ensure!(
        export == Export::Taken(holder.clone()),
        "look: taken by {holder} before, now {export:?}"
    );
    s.subject.remove_export(&volume).await?;
    s.export_all(&volume, &[s.some_client()?]).await?;
    Ok(())
}

async fn a_readable_path_is_ones_at_a_time(s: &Stage<'_>) -> Hand<()> {
    let path = format!("/Team_{}-data", s.subject.fresh_uid());
    let named = || {
        let volume = VolumeRef {
            pseudo_path: path.clone(),
            ..s.unkept("tenant")
        };
        s.keep(&volume);
        volume
    };
    let (volume, other) = (named(), named());
    for volume in [&volume, &other] {
        s.create(volume).await?;
    }
    s.export_all(&volume, &[s.some_client()?]).await?;
    let Export::Ours { pseudo_path, .. } = s.see(&volume).await?.export else {
        return Err(Flaw::Wrong("look: it is exported, and does not say so".into()));
    };
    ensure!(
        pseudo_path.as_ref() == Some(&path),
        "look: pseudo path {pseudo_path:?}"
    );
    let taken = s.see(&other).await?.export;
    ensure!(matches!(taken, Export::Taken(_)), "look: {taken:?}");
    let exported = s.backend().export(&s.on, &other, &Vec::new()).await;
    expect("export", exported, "PathTaken", |error| {
        matches!(error, Error::PathTaken(_))
    })?;
    s.expect_access(&volume, &[s.some_client()?]).await?;
    s.backend()
        .unexport(&s.on, &volume)
        .await
        .map_err(wrong("unexport"))?;
    s.export_all(&other, &[s.some_client()?]).await?;
    // Its first owner has nothing there any more.
    let taken = s.see(&volume).await?.export;
    ensure!(matches!(taken, Export::Taken(_)), "look: {taken:?}");
    s.backend()
        .unexport(&s.on, &other)
        .await
        .map_err(wrong("unexport"))
}

async fn removed_export_is_made_again(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = [s.some_client()?];
    s.export_all(&volume, &access).await?;
    s.subject.remove_export(&volume).await?;
    let export = s.see(&volume).await?.export;
    ensure!(export == Export::Absent, "look: {export:?}");
    s.export_all(&volume, &access).await?;
    Ok(())
}

async fn added_client_is_seen_and_taken_off(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = [s.some_client()?];
    s.export_all(&volume, &access).await?;
    s.subject.add_client(&volume).await?;
    let export = s.see(&volume).await?.export;
    let Export::Ours { access: found, .. } = &export else {
        return Err(Flaw::Wrong(format!("look: {export:?}")));
    };
    let everybody = ip("0.0.0.0/0", ReadWrite, Squash::None)?.client;
    ensure!(
        found.iter().any(|grant| grant.client == everybody),
        "look: {found:?}"
    );
    s.export_all(&volume, &access).await?;
    Ok(())
}

async fn opened_export_is_seen_and_closed(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let access = [s.some_client()?];
    s.export_all(&volume, &access).await?;
    s.subject.open_export(&volume).await?;
    let export = s.see(&volume).await?.export;
    ensure!(
        matches!(export, Export::Ours { intact: false, .. }),
        "look: {export:?}"
    );
    s.export_all(&volume, &access).await?;
    Ok(())
}

// ---- identities

async fn key_comes_when_let_in_and_on_request(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let identity = s.fresh_identity();
    let grant = cephx(&identity, ReadWrite);
    let key = new_key(
        &s.export_all(&volume, std::slice::from_ref(&grant)).await?,
        &identity,
    )?;
    ensure!(!key.reveal().is_empty(), "the key is empty");
    ensure!(
        s.key(&volume, &grant).await? == key,
        "key: another than the one it came with"
    );
    let again = key_of(
        &s.export_all(&volume, std::slice::from_ref(&grant)).await?,
        &identity,
    )?;
    ensure!(
        again.is_none_or(|again| again == key),
        "export, repeated, has another key"
    );
    // A level changes in place: the key stays.
    let lowered = cephx(&identity, ReadOnly);
    s.export_all(&volume, std::slice::from_ref(&lowered)).await?;
    ensure!(
        s.key(&volume, &lowered).await? == key,
        "key: another after the level changed"
    );
    let other_level = s.backend().key(&s.on, &volume, &grant).await;
    ensure!(
        other_level.is_err() || other_level == Ok(key),
        "key: another for a level that the client does not have"
    );
    s.expect_access(&volume, std::slice::from_ref(&lowered)).await?;
    s.export_all(&volume, std::slice::from_ref(&grant)).await?;
    s.export_all(&volume, &[]).await?;
    let after = s.backend().key(&s.on, &volume, &grant).await;
    ensure!(after.is_err(), "key: given for a client that is not let in");
    s.expect_access(&volume, &[]).await
}

async fn identities_are_one_set(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let [a, b, c] = [ReadWrite, ReadOnly, ReadWrite].map(|level| cephx(&s.fresh_identity(), level));
    for access in [
        vec![a.clone()],
        vec![a.clone(), b.clone(), c.clone()],
        vec![b.clone()],
        vec![a.clone(), c.clone()],
        Vec::new(),
        vec![c],
    ] {
        s.export_all(&volume, &sorted(access)).await?;
    }
    Ok(())
}

async fn identity_of_another_namespace_is_refused(s: &Stage<'_>) -> Hand<()> {
    let (first, second) = (s.created().await?, s.created().await?);
    let identity = s.fresh_identity();
    let grant = cephx(&identity, ReadWrite);
    let key = new_key(
        &s.export_all(&first, std::slice::from_ref(&grant)).await?,
        &identity,
    )?;
    is_refused(s, &second, &grant).await?;
    let stolen = s.backend().key(&s.on, &second, &grant).await;
    ensure!(stolen.is_err(), "key: given to another namespace");
    s.expect_access(&first, std::slice::from_ref(&grant)).await?;
    ensure!(
        s.key(&first, &grant).await? == key,
        "key: another after another namespace asked for it"
    );
    // Given up by the one, it is free for the other, with another key.
    s.export_all(&first, &[]).await?;
    let other = new_key(&s.export_all(&second, &[grant]).await?, &identity)?;
    ensure!(other != key, "another namespace got the first one's key");
    Ok(())
}

/// Asks for it beside one that is to be had.
async fn is_refused(s: &Stage<'_>, volume: &VolumeRef, grant: &Grant) -> Hand<()> {
    let good = cephx(&s.fresh_identity(), ReadOnly);
    let applied = s
        .export(volume, &sorted(vec![good.clone(), grant.clone()]))
        .await?;
    for one in &applied {
        match &one.outcome {
            Ok(_) if one.client == grant.client => {
                return Err(Flaw::Wrong(format!("{} was let in", one.client)));
            }
            Err(failure) if one.client != grant.client => {
                return Err(Flaw::Wrong(format!("{} was not let in: {failure}", one.client)));
            }
            Err(failure) => ensure!(
                failure.reason == reasons::IDENTITY_NOT_AVAILABLE && failure.class == Class::Conflict,
                "{} was refused with: {failure}",
                one.client
            ),
            Ok(_) => {}
        }
    }
    s.expect_access(volume, &[good]).await
}

async fn identity_of_another_file_system_is_refused(s: &Stage<'_>) -> Hand<()> {
    let Some(sibling) = s.subject.sibling() else {
        return super::missing("sibling");
    };
    let on = sibling
        .describe(None)
        .await
        .map_err(wrong("describe the sibling"))?
        .identity;
    ensure!(
        on.fsid == s.on.fsid && on != s.on,
        "the sibling is {on:?}, and this is {:?}",
        s.on
    );
    let here = s.created().await?;
    let identity = s.fresh_identity();
    let grant = cephx(&identity, ReadWrite);
    let key = new_key(
        &s.export_all(&here, std::slice::from_ref(&grant)).await?,
        &identity,
    )?;
    // Even by its own namespace.
    let there = s.unkept(&here.tenant);
    sibling
        .create(&on, &there, &new_volume(SIZE))
        .await
        .map_err(wrong("create on the sibling"))?;
    let exported = sibling.export(&on, &there, &vec![grant.clone()]).await;
    s.clear_one(sibling, &on, &there).await?;
    let exported = exported.map_err(wrong("export on the sibling"))?;
    let refused = exported
        .iter()
        .map(|one| one.outcome.as_ref().map_err(|failure| failure.reason));
    let refused: Vec<_> = refused.collect();
    ensure!(
        matches!(refused[..], [Err(reasons::IDENTITY_NOT_AVAILABLE)]),
        "export on the sibling: {refused:?}"
    );
    ensure!(
        s.key(&here, &grant).await? == key,
        "key: another after the sibling was asked for it"
    );
    s.expect_access(&here, &[grant]).await
}

async fn identity_of_another_tool_is_refused(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let identity = s.fresh_identity();
    s.subject.add_identity(&identity).await?;
    let grant = cephx(&identity, ReadWrite);
    is_refused(s, &volume, &grant).await?;
    let key = s.backend().key(&s.on, &volume, &grant).await;
    ensure!(key.is_err(), "key: given for an identity of another tool");
    Ok(())
}

async fn one_identity_on_two_shares(s: &Stage<'_>) -> Hand<()> {
    let first = s.created().await?;
    let second = s.volume_of(&first.tenant);
    s.create(&second).await?;
    let identity = s.fresh_identity();
    let (here, there) = (cephx(&identity, ReadWrite), cephx(&identity, ReadOnly));
    let key = new_key(
        &s.export_all(&first, std::slice::from_ref(&here)).await?,
        &identity,
    )?;
    let other = new_key(
        &s.export_all(&second, std::slice::from_ref(&there)).await?,
        &identity,
    )?;
    ensure!(key == other, "one identity, two keys");
    s.expect_access(&first, std::slice::from_ref(&here)).await?;
    s.export_all(&first, &[]).await?;
    s.expect_access(&second, std::slice::from_ref(&there)).await?;
    ensure!(
        s.key(&second, &there).await? == key,
        "key: another after the other share let it go"
    );
    Ok(())
}

async fn added_identity_is_seen_and_taken_off(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let grant = cephx(&s.fresh_identity(), ReadWrite);
    s.export_all(&volume, std::slice::from_ref(&grant)).await?;
    let added = s.fresh_identity();
    s.subject.authorize(&volume, &added).await?;
    let export = s.see(&volume).await?.export;
    let Export::Ours { access, .. } = &export else {
        return Err(Flaw::Wrong(format!("look: {export:?}")));
    };
    ensure!(
        access
            .iter()
            .any(|one| one.client == Client::CephX(added.clone())),
        "look: {access:?}"
    );
    s.export_all(&volume, &[grant]).await?;
    Ok(())
}

async fn deauthorized_identity_is_seen_and_let_in_again(s: &Stage<'_>) -> Hand<()> {
    let volume = s.created().await?;
    let identity = s.fresh_identity();
    let access = sorted(vec![
        cephx(&identity, ReadWrite),
        cephx(&s.fresh_identity(), ReadOnly),
    ]);
    s.export_all(&volume, &access).await?;
    s.subject.deauthorize(&volume, &identity).await?;
    let export = s.see(&volume).await?.export;
    ensure!(
        matches!(&export, Export::Ours { access, .. } if access.len() == 1),
        "look: {export:?}"
    );
    new_key(&s.export_all(&volume, &access).await?, &identity)?;
    Ok(())
}

async fn who_loses_access_is_cut_off(s: &Stage<'_>) -> Hand<()> {
    cut_off(s, async |volume, _, other| {
        s.export_all(volume, std::slice::from_ref(other)).await.map(drop)
    })
    .await
}

async fn who_falls_to_read_only_is_cut_off(s: &Stage<'_>) -> Hand<()> {
    cut_off(s, async |volume, identity, other| {
        let access = sorted(vec![cephx(identity, ReadOnly), other.clone()]);
        s.export_all(volume, &access).await.map(drop)
    })
    .await
}

async fn cut_off_that_was_left_unfinished_is_finished(s: &Stage<'_>) -> Hand<()> {
    cut_off(s, async |volume, identity, other| {
        s.subject.deauthorize(volume, identity).await?;
        // What a crash between the two leaves; it must be seen, or nobody would end it.
        let export = s.see(volume).await?.export;
        ensure!(
            matches!(export, Export::Ours { intact: false, .. }),
            "look: {export:?}"
        );
        s.export_all(volume, std::slice::from_ref(other)).await.map(drop)
    })
    .await
}

async fn unexport_cuts_everybody_off(s: &Stage<'_>) -> Hand<()> {
    everybody_is_cut_off(s, async |volume| {
        s.backend()
            .unexport(&s.on, volume)
            .await
            .map_err(wrong("unexport"))
    })
    .await
}

async fn revoke_cuts_everybody_off(s: &Stage<'_>) -> Hand<()> {
    everybody_is_cut_off(s, async |volume| {
        s.backend().revoke(&s.on, volume).await.map_err(wrong("revoke"))
    })
    .await
}

async fn everybody_is_cut_off(s: &Stage<'_>, by: impl AsyncFnOnce(&VolumeRef) -> Hand<()>) -> Hand<()> {
    let volume = s.created().await?;
    let identity = s.fresh_identity();
    let key = new_key(
        &s.export_all(&volume, &[cephx(&identity, ReadWrite)]).await?,
        &identity,
    )?;
    let session = s.subject.mount(&volume, &identity, &key, "/below").await?;
    ensure!(
        s.subject.is_mounted(session).await?,
        "a client that was let in is not connected"
    );
    by(&volume).await?;
    ensure!(!s.subject.is_mounted(session).await?, "a client was not cut off");
    Ok(())
}

/// Lets two clients in and mounts, changes the access of the one, and sees it cut off and the other not.
async fn cut_off<'a>(
    s: &Stage<'a>,
    change: impl AsyncFnOnce(&VolumeRef, &str, &Grant) -> Hand<()>,
) -> Hand<()> {
    let volume = s.created().await?;
    let (identity, other) = (s.fresh_identity(), s.fresh_identity());
    let (grant, stays) = (cephx(&identity, ReadWrite), cephx(&other, ReadWrite));
    let applied = s.export_all(&volume, &sorted(vec![grant, stays.clone()])).await?;
    let (key, other_key) = (new_key(&applied, &identity)?, new_key(&applied, &other)?);
    let root = s.subject.mount(&volume, &identity, &key, "").await?;
    let below = s.subject.mount(&volume, &identity, &key, "/below").await?;
    let others = s.subject.mount(&volume, &other, &other_key, "/below").await?;
    change(&volume, &identity, &stays).await?;
    ensure!(
        !s.subject.is_mounted(root).await?,
        "a client that mounted the root was not cut off"
    );
    ensure!(
        !s.subject.is_mounted(below).await?,
        "a client that mounted a directory was not cut off"
    );
    ensure!(
        s.subject.is_mounted(others).await?,
        "a client that kept its access was cut off"
    );
    Ok(())
}
