//! The subvolume of a share, the same for every protocol.

use std::collections::{BTreeMap, BTreeSet};

use shoal_backend::{Error, Result};
use shoal_domain::{
    metadata::METADATA_KEY,
    owner::{Owner, Tag, subvolume_name},
    volume::{Export, NewVolume, Volume},
};

use crate::{
    commands::{
        GroupCreate, MetadataLs, MetadataRm, MetadataSet, SnapshotLs, SubvolumeCreate, SubvolumeInfo,
        SubvolumeResize, SubvolumeRm,
    },
    errno::{EINVAL, ENODATA, ENOENT, ENOTEMPTY},
    work::{Work, both},
};

/// A subvolume of our name.
#[derive(Debug)]
pub(crate) struct Found {
    pub data: Data,
    pub notes: Notes,
}

/// What the manager has to tell of it.
enum Info {
    Absent,
    /// A manager died in the midst of making it. Its folders are there without their `.meta`; the manager after it takes them
    /// for a subvolume of old, and finds no layout on it (18.2.7).
    HalfMade,
    There(Data),
}

/// Its data. Of one that is half made there is none.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub path: String,
    pub quota: Option<u64>,
    pub used: u64,
}

/// What Shoal has written at it.
#[derive(Debug)]
pub(crate) struct Notes {
    pub tag: Tag,
    /// Identities that were to be cut off when we were interrupted.
    pub to_cut: BTreeSet<String>,
    /// What users say of it.
    pub metadata: Option<String>,
}

/// Where [`Notes::to_cut`] is kept, as a JSON list. That an identity has lost its capabilities does not end the sessions
/// it has, and nothing else at Ceph tells that they had to be ended.
const TO_CUT: &str = "shoal.storage/evict";

/// Whose a subvolume is, by its metadata.
pub(crate) fn tag_of(metadata: &BTreeMap<String, String>) -> Tag {
    match metadata.get(Owner::METADATA_KEY) {
        None => Tag::Absent,
        Some(text) => serde_json::from_str(text).map_or(Tag::Unreadable, Tag::Owner),
    }
}

/// Reads. On the storage that was recorded "no such" is only said of the subvolume (or its group) itself.
impl Work<'_> {
    /// The subvolume, if it is there.
    pub(crate) async fn find(&self) -> Result<Option<Found>> {
        let (info, notes) = both(self.info(), self.notes()).await?;
        match (info, notes) {
            (Info::There(data), Some(notes)) => Ok(Some(Found { data, notes })),
            (Info::HalfMade, Some(notes)) if notes.tag == Tag::Absent => Ok(Some(Found {
                data: Data::default(),
                notes,
            })),
            (Info::HalfMade, Some(_)) => Err(self.is_damaged()),
            (Info::Absent, _) | (_, None) => Ok(None),
        }
    }

    /// Its data, if it is there.
    pub(crate) async fn data(&self) -> Result<Option<Data>> {
        match self.info().await? {
            Info::There(data) => Ok(Some(data)),
            Info::Absent => Ok(None),
            Info::HalfMade => Err(self.is_damaged()),
        }
    }

    async fn info(&self) -> Result<Info> {
        let info = match self.call.run(&SubvolumeInfo { place: self.place() }).await {
            Ok(info) => info,
            Err(fault) if fault.errno() == Some(ENOENT) => return Ok(Info::Absent),
            Err(fault) if fault.errno() == Some(ENODATA) => return Ok(Info::HalfMade),
            Err(fault) => return Err(fault.into()),
        };
        let (quota, used) = (info.quota(), info.bytes_used);
        // Without a path only snapshots are left of it.
        let path = info.path.filter(|path| !path.is_empty());
        Ok(path.map_or(Info::Absent, |path| Info::There(Data { path, quota, used })))
    }

    fn is_damaged(&self) -> Error {
        Error::Refused(format!(
            "subvolume {} was there and has lost its .meta file: restore it",
            self.handle()
        ))
    }

    /// What is written at it, if it is there.
    pub(crate) async fn notes(&self) -> Result<Option<Notes>> {
        let metadata = match self.call.run(&MetadataLs { place: self.place() }).await {
            Ok(metadata) => metadata,
            Err(fault) if fault.errno() == Some(ENOENT) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        let tag = tag_of(&metadata);
        let to_cut = metadata
            .get(TO_CUT)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        Ok(Some(Notes {
            tag,
            to_cut,
            metadata: metadata.get(METADATA_KEY).cloned(),
        }))
    }

    /// The same of the share's own; an error if what is there is another's.
    pub(crate) async fn own_notes(&self) -> Result<Option<Notes>> {
        let notes = self.notes().await?;
        if let Some(notes) = &notes {
            self.check_owner(&notes.tag)?;
        }
        Ok(notes)
    }

    /// The share's own subvolume, if it is there; an error if what is there is another's.
    pub(crate) async fn find_own(&self) -> Result<Option<Found>> {
        let found = self.find().await?;
        if let Some(found) = &found {
            self.check_owner(&found.notes.tag)?;
        }
        Ok(found.filter(|found| !found.data.path.is_empty()))
    }

    fn check_owner(&self, tag: &Tag) -> Result<()> {
        let handle = self.handle();
        match tag {
            Tag::Owner(other) if !other.is_same(&self.volume.owner) => Err(Error::OwnedByAnother(format!(
                "subvolume {handle} belongs to {}/{} of Kubernetes cluster {}",
                other.namespace, other.name, other.cluster
            ))),
            Tag::Unreadable => Err(Error::OwnedByAnother(format!(
                "subvolume {handle} has an owner tag that is not Shoal's"
            ))),
            // Without a tag only one under the share's own name is its.
            Tag::Absent if self.volume.place.subvolume != subvolume_name(&self.volume.owner.uid) => Err(
                Error::OwnedByAnother(format!("subvolume {handle} has no owner tag")),
            ),
            Tag::Owner(_) | Tag::Absent => Ok(()),
        }
    }

    pub(crate) fn volume(&self, found: Found, export: Export) -> Volume {
        Volume {
            tag: found.notes.tag,
            handle: self.handle(),
            path: found.data.path,
            size_bytes: found.data.quota,
            used_bytes: found.data.used,
            metadata: found.notes.metadata,
            export,
        }
    }
}

/// Effects, each on what was just read.
impl Work<'_> {
    pub(crate) async fn create(&self, there: Option<Notes>, new: &NewVolume) -> Result<Found> {
        let there = match there {
            Some(notes) if notes.tag == Tag::Absent && matches!(self.info().await?, Info::HalfMade) => {
                if new.was_there {
                    return Err(self.is_damaged());
                }
                // Nobody was ever let in. Finished by the manager it would be one of old, with a folder in it.
                self.remove().await?;
                None
            }
            there => there,
        };
        match there {
            None if new.was_there => return Err(Error::NotFound),
            None => self.make(new).await?,
            Some(_) => {}
        }
        let notes = async {
            match there {
                Some(notes) if notes.tag != Tag::Absent => Ok(notes),
                // Made and not tagged by an earlier call is never made again: that would reset its mode and quota.
                _ => self.tag().await,
            }
        };
        let (notes, data) = both(notes, self.data()).await?;
        let data = data.ok_or(Error::NotFound)?;
        Ok(Found { data, notes })
    }

    async fn tag(&self) -> Result<Notes> {
        self.set_tag(&self.volume.owner).await?;
        let notes = self.own_notes().await?.ok_or(Error::NotFound)?;
        if notes.tag == Tag::Absent {
            return Err(Error::NotUnderstood(format!(
                "subvolume {} has not kept its owner tag",
                self.handle()
            )));
        }
        Ok(notes)
    }

    async fn set_tag(&self, owner: &Owner) -> Result<()> {
        self.note(Owner::METADATA_KEY, Some(owner.to_tag())).await
    }

    /// Makes it another's, or says that it is left behind; only what is the share's own, or the other's already.
    pub(crate) async fn hand_over(&self, there: Option<Notes>, to: &Owner) -> Result<()> {
        let tag = there.ok_or(Error::NotFound)?.tag;
        match &tag {
            Tag::Owner(tagged) if tagged == to => return Ok(()),
            Tag::Owner(tagged) if tagged.is_same(to) => {}
            tag => self.check_owner(tag)?,
        }
        self.set_tag(to).await
    }

    async fn make(&self, new: &NewVolume) -> Result<()> {
        let settings = self.settings;
        let create = SubvolumeCreate {
            place: self.place(),
            size: new.size_bytes,
            mode: &new.root.mode,
            uid: new.root.uid,
            gid: new.root.gid,
            namespace_isolated: settings.namespace_isolated,
            pool_layout: settings.data_pool.as_deref(),
        };
        let fault = match self.call.run(&create).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        if fault.errno() != Some(ENOENT) {
            return Err(fault.into());
        }
        // The file system was there a moment ago, so it is the group that is missing.
        let group = GroupCreate {
            vol_name: self.fs_name(),
            group_name: self.group(),
            mode: "755",
        };
        self.call.run(&group).await?;
        Ok(self.call.run(&create).await?)
    }

    pub(crate) async fn resize(&self, data: &Data, size_bytes: u64) -> Result<()> {
        if data.quota == Some(size_bytes) {
            return Ok(());
        }
        let below_used = |used: u64| Error::BelowUsed { used_bytes: used };
        if size_bytes < data.used {
            return Err(below_used(data.used));
        }
        let resize = SubvolumeResize {
            place: self.place(),
            new_size: size_bytes.to_string(),
            no_shrink: true,
        };
        let fault = match self.call.run(&resize).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        match fault.errno() {
            Some(ENOENT) => Err(Error::NotFound),
            // More may have been written to it since we looked.
            Some(EINVAL) => match self.data().await? {
                Some(data) if size_bytes < data.used => Err(below_used(data.used)),
                _ => Err(fault.into()),
            },
            _ => Err(fault.into()),
        }
    }

    pub(crate) async fn remove(&self) -> Result<()> {
        match self.call.run(&SubvolumeRm { place: self.place() }).await {
            Ok(()) => Ok(()),
            Err(fault) => match fault.errno() {
                Some(ENOENT) => Ok(()),
                Some(ENOTEMPTY) => {
                    let snapshots = self.call.run(&SnapshotLs { place: self.place() }).await?;
                    Err(Error::HasSnapshots(
                        snapshots.into_iter().map(|s| s.name).collect(),
                    ))
                }
                _ => Err(fault.into()),
            },
        }
    }

    /// Notes who is to be cut off, before anything is done about it.
    pub(crate) async fn note_to_cut(&self, identities: &BTreeSet<String>) -> Result<()> {
        let value = serde_json::to_string(identities).map_err(|error| Error::Refused(error.to_string()))?;
        self.note(TO_CUT, Some(value)).await
    }

    /// All were cut off.
    pub(crate) async fn forget_to_cut(&self) -> Result<()> {
        self.note(TO_CUT, None).await
    }

    /// Writes what users say of it, or takes it off.
    pub(crate) async fn set_metadata(&self, there: &Notes, text: Option<&str>) -> Result<()> {
        if there.metadata.as_deref() == text {
            return Ok(());
        }
        self.note(METADATA_KEY, text.map(str::to_owned)).await
    }

    async fn note(&self, key_name: &str, value: Option<String>) -> Result<()> {
        let place = self.place();
        let Some(value) = value else {
            return match self.call.run(&MetadataRm { place, key_name }).await {
                Err(fault) if fault.errno() != Some(ENOENT) => Err(fault.into()),
                _ => Ok(()),
            };
        };
        let note = MetadataSet {
            place,
            key_name,
            value,
        };
        Ok(self.call.run(&note).await?)
    }
}
