//! One function a command: ask, and say what came of it.

use jiff::Timestamp;
use kube::{ResourceExt, api::ListParams, core::ObjectMeta};
use serde_json::json;
use shoal_crds::{
    ExistingShare, FormerData, LockAction, LockContext, LockedKind, LockedResourceReference, ResourceLock,
    ResourceLockSpec, Share, ShareAccessRule, ShareAccessRuleSpec, ShareBackend, ShareDeletion,
    ShareReference, ShareSource, ShareSpec, Size,
    names::{self, FORMER_DATA, REQUESTED_AT, START_EMPTY},
};

use crate::{
    api::{self, Cluster},
    bundle,
    cli::{
        Access, Action, Allow, Cli, Command, DeletionAction, Deletions, Ensured, Listed, Mount, Recover, Wait,
    },
    complete,
    failure::{Exit, Failure},
    lists, mount,
    outcome::Outcome,
    output::Output,
    resource::{self, Named},
    status::Page,
    text::{Paint, Table},
    wait,
};

type Result<T = Outcome> = std::result::Result<T, Failure>;

pub(crate) async fn run(cli: Cli) -> Result {
    let connection = &cli.connection;
    if let Command::Completion { shell } = cli.command {
        return Ok(Outcome::done(complete::script(shell)));
    }
    if let Command::Complete { words } = &cli.command {
        return Ok(complete::words(connection, words).await);
    }
    let cluster = Cluster::connect(connection).await?;
    match cli.command {
        Command::Status { share, output } => status(&cluster, &share, &output).await,
        Command::Mount(arguments) => mount(&cluster, &arguments).await,
        Command::Access(Access::Allow(arguments)) => allow(&cluster, arguments).await,
        Command::Access(Access::Deny { share, who, wait }) => deny(&cluster, &share, &who, &wait).await,
        Command::Access(Access::List { share, listed }) => rules(&cluster, share.as_deref(), &listed).await,
        Command::Ensure { kind, name, wait } => ensure(&cluster, kind, &name, &wait).await,
        Command::Lock {
            resource,
            action,
            reason,
        } => lock(&cluster, resource, action, reason).await,
        Command::Unlock {
            resource: Some(resource),
            ..
        } => unlock_own(&cluster, &resource).await,
        Command::Unlock { lock, .. } => unlock(&cluster, &lock.unwrap_or_default()).await,
        Command::Locks(listed) => locks(&cluster, &listed).await,
        Command::Extend { share, size, wait } => extend(&cluster, &share, size, &wait).await,
        Command::Backends { output } => backends(&cluster, &output).await,
        Command::Deletions(Deletions { action: None, output }) => {
            deletions(&cluster, connection.namespace.as_deref(), &output).await
        }
        Command::Deletions(Deletions {
            action: Some(DeletionAction::Abandon { deletion, yes }),
            ..
        }) => abandon(&cluster, &deletion, yes).await,
        Command::Recover(arguments) => recover(&cluster, connection.namespace.as_deref(), arguments).await,
        Command::Orphans { output } => orphans(&cluster, &output).await,
        Command::Differences { output } => differences(&cluster, &output).await,
        Command::SupportBundle(arguments) => {
            bundle::make(&cluster, connection.namespace.as_deref(), &arguments).await
        }
        Command::Completion { .. } | Command::Complete { .. } => unreachable!("they need no cluster"),
    }
}

async fn status(cluster: &Cluster, share: &str, output: &Output) -> Result {
    let share = api::get(&cluster.here::<Share>(), share).await?;
    let name = share.name_any();
    let rules = cluster.rules_of(&name).await;
    let is_of_it = |rule: &str| rules.iter().flatten().any(|of_it| of_it.name_any() == rule);
    let locks = cluster
        .locks_on(|lock| {
            let held = &lock.spec.resource_ref;
            match held.kind {
                LockedKind::Share => held.name == name,
                LockedKind::ShareAccessRule => is_of_it(&held.name),
            }
        })
        .await;
    let events = async {
        let mut events = cluster.events("Share", Some(&name)).await?;
        let of_rules = cluster.events("ShareAccessRule", None).await?;
        let names_it = |event: &k8s_openapi::api::events::v1::Event| {
            let regarding = event.regarding.as_ref().and_then(|about| about.name.as_deref());
            regarding.is_some_and(is_of_it)
        };
        events.extend(of_rules.into_iter().filter(names_it));
        events.sort_by_key(lists::last);
        Ok(events)
    };
    let events = events.await;
    let on = share
        .status
        .as_ref()
        .and_then(|status| status.backend_name.clone());
    let backend = match on {
        Some(on) => api::get(&cluster.global::<ShareBackend>(), &on).await.ok(),
        None => None,
    };
    let deletions = api::list(&cluster.global::<ShareDeletion>(), &ListParams::default()).await;
    let deletions = deletions.ok().map(|mut deletions| {
        deletions.retain(|left| {
            let was = &left.spec.share_ref;
            was.name == name && Some(&was.namespace) == share.namespace().as_ref()
        });
        deletions
    });
    let page = Page {
        share,
        backend,
        rules: rules.map_err(|failure: Failure| failure.message),
        locks: locks.map_err(|failure| failure.message),
        deletions,
        events: events.map_err(|failure: Failure| failure.message),
    };
    let text = match output.value(|| page.value()) {
        Some(text) => text?,
        None => page.text(output.wide(), Paint::of_stdout(), Timestamp::now()),
    };
    Ok(Outcome {
        text,
        notes: Vec::new(),
        exit: page.exit(),
    })
}

async fn mount(cluster: &Cluster, arguments: &Mount) -> Result {
    let share = api::get(&cluster.here::<Share>(), &arguments.share).await?;
    let rules = cluster.rules_of(&arguments.share).await?;
    let rule = mount::choose(&arguments.share, &rules, arguments.client.as_deref())?;
    let wanted = mount::Wanted {
        form: arguments.format,
        at: &arguments.at,
        fuse: arguments.fuse,
    };
    let text = mount::text(&share, rule, &wanted)?;
    let not_yet = mount::not_yet(&share, rule, &rules);
    Ok(Outcome {
        text,
        exit: if not_yet.is_some() {
            Exit::Refused
        } else {
            Exit::Done
        },
        notes: not_yet.into_iter().map(|why| format!("warning: {why}")).collect(),
    })
}

async fn allow(cluster: &Cluster, arguments: Allow) -> Result {
    let share = api::get(&cluster.here::<Share>(), &arguments.share).await?;
    let (access_type, access_to) = resource::client(&share, arguments.kind, arguments.to.as_deref())?;
    let api = cluster.here::<ShareAccessRule>();
    let rules = cluster.rules_of(&arguments.share).await?;
    // One that is made new is another client each time.
    let same = rules.iter().find(|rule| {
        access_to.is_some() && rule.spec.access_type == access_type && rule.spec.access_to == access_to
    });
    let (rule, what) = match same {
        Some(rule) if rule.metadata.deletion_timestamp.is_some() => {
            return Err(Failure::refused(format!(
                "shareaccessrule '{}' lets the same client in, and is being taken away; try again when it is gone",
                rule.name_any()
            )));
        }
        Some(rule) if rule.spec.access_level == arguments.level => (rule.clone(), "unchanged"),
        Some(rule) => {
            let change = json!({"spec": {"accessLevel": arguments.level}});
            (api::patch(&api, &rule.name_any(), &change).await?, "changed")
        }
        None => {
            let metadata = ObjectMeta {
                generate_name: arguments.name.is_none().then(|| format!("{}-", arguments.share)),
                name: arguments.name,
                ..ObjectMeta::default()
            };
            let spec = ShareAccessRuleSpec {
                share_ref: ShareReference {
                    name: arguments.share,
                },
                access_type,
                access_to,
                access_to_secret_ref: None,
                access_level: arguments.level,
                squash: None,
                credentials_secret_name: None,
                metadata: std::collections::BTreeMap::new(),
            };
            let rule = ShareAccessRule {
                metadata,
                spec,
                status: None,
            };
            (api::create(&api, &rule).await?, "created")
        }
    };
    let name = rule.name_any();
    let done = api::until(&api, &name, &arguments.wait, wait::in_force).await?;
    Ok(Outcome::line(&with(
        &format!("shareaccessrule '{name}' {what}"),
        done,
    )))
}

/// What was done, and what came of it if somebody waited for that.
fn with(what: &str, done: Option<String>) -> String {
    done.map_or_else(|| what.to_owned(), |done| format!("{what}: {done}"))
}

async fn deny(cluster: &Cluster, share: &str, who: &str, wait: &Wait) -> Result {
    // So that a wrong name is told from a share without rules.
    api::get(&cluster.here::<Share>(), share).await?;
    let rules = cluster.rules_of(share).await?;
    let meant = resource::meant(&rules, who);
    if meant.is_empty() {
        return Err(Failure::not_found(format!(
            "no rule of Share '{share}' is called, or lets in, '{who}'; its rules: {}",
            lists::names(&rules)
        )));
    }
    let api = cluster.here::<ShareAccessRule>();
    for rule in &meant {
        api::delete(&api, &rule.name_any()).await?;
    }
    let mut lines = Vec::new();
    for rule in meant {
        let name = rule.name_any();
        api::until_gone(&api, &name, wait, |rule: &ShareAccessRule| {
            lists::why(rule.status.as_ref().map_or(&[], |s| &s.conditions), "")
        })
        .await?;
        let client = lists::client(rule);
        lines.push(if wait.wait {
            format!("shareaccessrule '{name}' deleted: {client} is let in no more")
        } else {
            format!("shareaccessrule '{name}' is being taken away; {client} is let in until it is gone")
        });
    }
    Ok(Outcome::line(&lines.join("\n")))
}

async fn rules(cluster: &Cluster, share: Option<&str>, listed: &Listed) -> Result {
    let all = listed.all_namespaces;
    if let Some(share) = share.filter(|_| !all) {
        api::get(&cluster.here::<Share>(), share).await?;
    }
    let of_it = share.map_or_else(ListParams::default, |share| {
        ListParams::default().fields(&format!("spec.shareRef.name={share}"))
    });
    let rules = api::list(&cluster.namespaced::<ShareAccessRule>(all), &of_it).await?;
    show(
        &listed.output,
        &rules,
        "No access rules: nobody is let in.",
        |wide, now| lists::rules(&rules, all, wide, now),
    )
}

/// Objects in the form that is wanted.
fn show<K: api::Object>(
    output: &Output,
    items: &[K],
    nothing: &str,
    table: impl FnOnce(bool, Timestamp) -> Table,
) -> Result {
    let text = match output.objects(items) {
        Some(text) => text?,
        None => table(output.wide(), Timestamp::now()).text(nothing),
    };
    Ok(Outcome::done(text))
}

async fn ensure(cluster: &Cluster, kind: Ensured, name: &str, wait: &Wait) -> Result {
    let token = Timestamp::now().to_string();
    let request = json!({"metadata": {"annotations": {REQUESTED_AT: token}}});
    let (kind, done) = match kind {
        Ensured::Share => {
            let api = cluster.here::<Share>();
            api::patch(&api, name, &request).await?;
            let done = api::until(&api, name, wait, |share| wait::share_ensured(share, &token)).await?;
            ("share", done)
        }
        Ensured::Backend => {
            let api = cluster.global::<ShareBackend>();
            api::patch(&api, name, &request).await?;
            let done = api::until(&api, name, wait, |backend| wait::backend_ensured(backend, &token)).await?;
            ("sharebackend", done)
        }
    };
    let asked = format!("{kind} '{name}' is going to be verified; --wait says what came of it");
    Ok(Outcome::line(&done.unwrap_or(asked)))
}

async fn lock(cluster: &Cluster, resource: Named, action: Action, reason: Option<String>) -> Result {
    // A lock may be made for what is not there yet; here it is likelier that the name is wrong.
    match resource.kind {
        LockedKind::Share => api::get(&cluster.here::<Share>(), &resource.name)
            .await
            .map(drop)?,
        LockedKind::ShareAccessRule => {
            api::get(&cluster.here::<ShareAccessRule>(), &resource.name)
                .await
                .map(drop)?;
        }
    }
    let lock = ResourceLock {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", resource.name)),
            ..ObjectMeta::default()
        },
        spec: ResourceLockSpec {
            resource_ref: LockedResourceReference {
                kind: resource.kind,
                name: resource.name.clone(),
                uid: None,
            },
            action: match action {
                Action::Delete => LockAction::Delete,
                Action::Show => LockAction::Show,
            },
            reason,
            owner: cluster.user().await?,
            context: LockContext::User,
        },
        status: None,
    };
    let lock = api::create(&cluster.here(), &lock).await?;
    let name = lock.name_any();
    let done = match action {
        Action::Delete => format!("{resource} can't be deleted until it is gone"),
        Action::Show => {
            format!(
                "{resource} gets a new key for {} alone; {name} says when",
                lock.spec.owner
            )
        }
    };
    Ok(Outcome::line(&format!("resourcelock '{name}' created: {done}")))
}

async fn unlock_own(cluster: &Cluster, resource: &Named) -> Result {
    let user = cluster.user().await?;
    let locks = cluster.locks_on(|lock| resource.is_held_by(lock)).await?;
    let (own, others): (Vec<_>, Vec<_>) = locks.into_iter().partition(|lock| lock.spec.owner == user);
    let held = || {
        let told = others
            .iter()
            .map(|lock| format!("'{}' of {}", lock.name_any(), lock.spec.owner));
        told.collect::<Vec<_>>().join(", ")
    };
    if own.is_empty() {
        return Err(if others.is_empty() {
            Failure::not_found(format!(
                "there is no lock on {resource}; kubectl shoal locks shows those of the namespace"
            ))
        } else {
            Failure::refused(format!(
                "no lock on {resource} is yours ({user}), and others hold it: {}. Ask them, or name one with --lock, which takes the verb \
                 override on resourcelocks",
                held()
            ))
        });
    }
    let api = cluster.here::<ResourceLock>();
    let mut lines = Vec::new();
    for lock in &own {
        api::delete(&api, &lock.name_any()).await?;
        lines.push(format!("resourcelock '{}' deleted", lock.name_any()));
    }
    if !others.is_empty() {
        lines.push(format!("{resource} is still held by {}", held()));
    }
    Ok(Outcome::line(&lines.join("\n")))
}

async fn unlock(cluster: &Cluster, lock: &str) -> Result {
    api::delete(&cluster.here::<ResourceLock>(), lock).await?;
    Ok(Outcome::line(&format!("resourcelock '{lock}' deleted")))
}

async fn locks(cluster: &Cluster, listed: &Listed) -> Result {
    let all = listed.all_namespaces;
    let locks = api::list(&cluster.namespaced::<ResourceLock>(all), &ListParams::default()).await?;
    show(&listed.output, &locks, "No locks.", |wide, now| {
        lists::locks(&locks, all, wide, now)
    })
}

async fn extend(cluster: &Cluster, name: &str, size: Size, wait: &Wait) -> Result {
    let api = cluster.here::<Share>();
    let share = api::get(&api, name).await?;
    let asked = share.spec.size;
    if size.bytes() < asked.bytes() {
        return Err(Failure::refused(format!(
            "share '{name}' is to have {asked} already, and extend makes larger. Where its type lets it shrink: kubectl patch share {name} \
             --type=merge --patch '{{\"spec\":{{\"size\":\"{size}\"}}}}'"
        )));
    }
    let what = if size == asked {
        format!("share '{name}' is to have {size} already")
    } else {
        // Not if somebody has changed it meanwhile.
        let version = share.metadata.resource_version;
        let change = json!({"metadata": {"resourceVersion": version}, "spec": {"size": size}});
        api::patch(&api, name, &change).await?;
        format!("share '{name}' is to grow from {asked} to {size}")
    };
    let done = api::until(&api, name, wait, |share| wait::extended(share, size)).await?;
    Ok(Outcome::line(&done.unwrap_or(what)))
}

async fn backends(cluster: &Cluster, output: &Output) -> Result {
    let backends = api::list(&cluster.global::<ShareBackend>(), &ListParams::default()).await?;
    show(
        output,
        &backends,
        "No backends: nothing can be stored.",
        |wide, now| lists::backends(&backends, wide, now),
    )
}

async fn deletions(cluster: &Cluster, namespace: Option<&str>, output: &Output) -> Result {
    let mut deletions = api::list(&cluster.global::<ShareDeletion>(), &ListParams::default()).await?;
    deletions.retain(|left| namespace.is_none_or(|namespace| left.spec.share_ref.namespace == namespace));
    show(
        output,
        &deletions,
        "Nothing is left of deleted shares.",
        |wide, now| lists::deletions(&deletions, wide, now),
    )
}

async fn abandon(cluster: &Cluster, name: &str, yes: bool) -> Result {
    let api = cluster.global::<ShareDeletion>();
    let left = api::get(&api, name).await?;
    let spec = &left.spec;
    let stays = format!(
        "{} of Share {}/{} ({}) on ShareBackend '{}'",
        spec.handle.as_deref().unwrap_or("whatever there may be"),
        spec.share_ref.namespace,
        spec.share_ref.name,
        spec.size,
        spec.backend_name
    );
    if !yes {
        let revoked = left.status.as_ref().and_then(|s| s.access_revoked) == Some(true);
        let clients = if revoked {
            ""
        } else {
            ", and clients may still be let in"
        };
        return Err(Failure::refused(format!(
            "nothing was changed. Given up, Shoal leaves {stays} as it is{clients}; say --yes to do it"
        )));
    }
    api::patch(&api, name, &json!({"spec": {"abandon": true}})).await?;
    Ok(Outcome::line(&format!(
        "sharedeletion '{name}' given up: {stays} is left as it is"
    )))
}

async fn orphans(cluster: &Cluster, output: &Output) -> Result {
    let backends = api::list(&cluster.global::<ShareBackend>(), &ListParams::default()).await?;
    let text = match output.value(|| lists::orphans_value(&backends)) {
        Some(text) => text?,
        None => lists::orphans(&backends).text("Nothing that no object owns."),
    };
    Ok(Outcome {
        notes: lists::about_orphans(&backends),
        ..Outcome::done(text)
    })
}

async fn differences(cluster: &Cluster, output: &Output) -> Result {
    let all = ListParams::default();
    let backends = api::list(&cluster.global::<ShareBackend>(), &all).await?;
    let shares = api::list(&cluster.namespaced::<Share>(true), &all).await?;
    let text = match output.value(|| lists::differences_value(&shares)) {
        Some(text) => text?,
        None => lists::differences(&shares).text("No differences are told."),
    };
    Ok(Outcome {
        notes: lists::about_differences(&backends, &shares),
        ..Outcome::done(text)
    })
}

async fn recover(cluster: &Cluster, namespace: Option<&str>, arguments: Recover) -> Result {
    if let Some(name) = &arguments.share {
        return decide(cluster, name, &arguments).await;
    }
    if let Some(of) = &arguments.cluster {
        return decide_all(cluster, namespace, of, &arguments).await;
    }
    let deletion = arguments.deletion.clone().unwrap_or_default();
    let left = api::get(&cluster.global::<ShareDeletion>(), &deletion).await?;
    let share = recovered(&left, namespace, &arguments)?;
    let (namespace, name) = (share.namespace().unwrap_or_default(), share.name_any());
    let api = cluster.within::<Share>(&namespace);
    api::create(&api, &share).await?;
    let done = api::until(&api, &name, &arguments.wait, wait::ready).await?;
    let created = format!("share '{name}' created in namespace '{namespace}' from {deletion}");
    Ok(Outcome::line(&with(&created, done)))
}

/// Says of a Share that waits what becomes of the former data that has its name.
async fn decide(cluster: &Cluster, name: &str, arguments: &Recover) -> Result {
    let api = cluster.here::<Share>();
    let share = api::get(&api, name).await?;
    let verdict = verdict(&share, arguments.data.as_deref(), arguments.start_empty)?;
    say(&api, name, &verdict).await?;
    let done = api::until(&api, name, &arguments.wait, wait::ready).await?;
    Ok(Outcome::line(&with(&said(&share, &verdict), done)))
}

/// The same of all whose data is of one former cluster.
async fn decide_all(cluster: &Cluster, namespace: Option<&str>, of: &str, arguments: &Recover) -> Result {
    let shares = api::list(
        &cluster.namespaced::<Share>(namespace.is_none()),
        &ListParams::default(),
    )
    .await?;
    let concerned = |share: &Share| former(share).iter().any(|data| data.cluster == of);
    let concerned: Vec<_> = shares.into_iter().filter(concerned).collect();
    if concerned.is_empty() {
        return Err(Failure::not_found(format!(
            "no Share waits for data of cluster '{of}'; kubectl get shares -A -o wide shows which wait, and kubectl shoal orphans the clusters"
        )));
    }
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    for share in concerned {
        let api = cluster.within::<Share>(&share.namespace().unwrap_or_default());
        match verdict(&share, None, arguments.start_empty) {
            Ok(verdict) => {
                say(&api, &share.name_any(), &verdict).await?;
                let done = api::until(&api, &share.name_any(), &arguments.wait, wait::ready).await?;
                lines.push(with(&said(&share, &verdict), done) + "\n");
            }
            Err(failure) => notes.push(format!("warning: {}", failure.message)),
        }
    }
    Ok(Outcome {
        exit: if notes.is_empty() {
            Exit::Done
        } else {
            Exit::Refused
        },
        text: lines.concat(),
        notes,
    })
}

fn former(share: &Share) -> &[FormerData] {
    share.status.as_ref().map_or(&[], |status| &status.former_data)
}

/// What becomes of the former data that has a Share's name, as the annotation says it.
fn verdict(share: &Share, data: Option<&str>, start_empty: bool) -> Result<String> {
    let found = former(share).iter();
    let found: Vec<_> = found
        .map(|data| format!("{}/{}", data.backend_name, data.handle))
        .collect();
    let name = format!("{}/{}", share.namespace().unwrap_or_default(), share.name_any());
    match (&found[..], data) {
        ([], _) => Err(Failure::refused(format!(
            "share '{name}' waits for no verdict on former data; kubectl shoal status says how it does"
        ))),
        _ if start_empty => Ok(names::start_empty(&share.uid().unwrap_or_default())),
        ([only], None) => Ok(only.clone()),
        (_, Some(data)) if found.iter().any(|one| one == data) => Ok(data.into()),
        (_, Some(data)) => Err(Failure::refused(format!(
            "'{data}' has not the name of share '{name}'; what has: {}",
            found.join(", ")
        ))),
        (_, None) => Err(Failure::refused(format!(
            "more than one's data has the name of share '{name}': {}. Say which with --share and --data",
            found.join(", ")
        ))),
    }
}

async fn say(api: &kube::Api<Share>, name: &str, verdict: &str) -> Result<()> {
    let change = json!({"metadata": {"annotations": {FORMER_DATA: verdict}}});
    api::patch(api, name, &change).await.map(drop)
}

fn said(share: &Share, verdict: &str) -> String {
    let name = format!("{}/{}", share.namespace().unwrap_or_default(), share.name_any());
    if verdict.starts_with(START_EMPTY) {
        format!("share '{name}' is made empty; the former data stays where it is")
    } else {
        format!("share '{name}' gets the data of {verdict}")
    }
}

/// The Share that brings the data back.
fn recovered(left: &ShareDeletion, namespace: Option<&str>, arguments: &Recover) -> Result<Share> {
    let name = left.name_any();
    let phase = left.status.as_ref().and_then(|status| status.phase);
    if let Some(adopter) = &left.spec.adopted_by {
        return Err(Failure::refused(format!(
            "Share {}/{} brings back what sharedeletion '{name}' keeps",
            adopter.namespace, adopter.name
        )));
    }
    let handle = left
        .spec
        .handle
        .clone()
        .filter(|_| phase.is_some_and(shoal_crds::DeletionPhase::is_adoptable));
    let handle = handle.ok_or_else(|| {
        Failure::refused(format!(
            "what sharedeletion '{name}' is about can't be brought back in phase {}: only what is Retained or Abandoned can, since it is not being removed",
            phase.map_or("(none yet)", shoal_crds::DeletionPhase::as_str)
        ))
    })?;
    let spec = &left.spec;
    let mut share = Share::new(
        arguments.name.as_deref().unwrap_or(&spec.share_ref.name),
        ShareSpec {
            share_type_name: arguments
                .share_type
                .clone()
                .or_else(|| spec.share_type_name.clone()),
            protocol: spec.protocol,
            size: arguments.size.unwrap_or(spec.size),
            mount_point_name: None,
            placement: None,
            source: Some(ShareSource {
                existing: ExistingShare {
                    backend_name: spec.backend_name.clone(),
                    handle,
                },
            }),
            deletion_policy: None,
            metadata: std::collections::BTreeMap::new(),
            export_location_metadata: Vec::new(),
        },
    );
    share.metadata.namespace = Some(namespace.unwrap_or(&spec.share_ref.namespace).to_owned());
    Ok(share)
}

#[cfg(test)]
mod tests;
