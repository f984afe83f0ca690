//! The kubectl plugin, run by kubectl on a real API server. What `docs/kubectl-shoal.md` shows is run, and has to come out as it
//! stands there; `SHOAL_E2E_WRITE_DOCS=1` writes what came out.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::{Resource, api::ListParams};
use serde_json::{Value, json};
use shoal_crds::{Protocol, ResourceLock, ShareAccessRule, ShareBackend};
use shoal_e2e::{
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, ip_rule},
    suite::Suite,
    world::{PATIENCE, eventually, until},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();
// Pages of the documentation list what there is in all namespaces: each has a world of its own.
static FOR_USERS: Suite<SimulatedStorage> = Suite::new();
static DOCUMENTED: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(start, scenario);
}

async fn start() -> Result<SimulatedStorage> {
    let storage = SimulatedStorage::start(KubernetesRelease::V1_37).await?;
    set_desk(&storage)?;
    Ok(storage)
}

/// What completes `kubectl shoal` for kubectl, as the documentation has it.
const COMPLETE: &str = "#!/bin/sh\nexec kubectl shoal __complete -- \"$@\"\n";

/// Where lines are run: with programs as a user has them on the path, and the examples where they are looked for.
fn desk(s: &SimulatedStorage) -> PathBuf {
    s.world.lab.folder().join("desk")
}

fn set_desk(s: &SimulatedStorage) -> Result<()> {
    let plugin = std::env::var_os("SHOAL_KUBECTL_PLUGIN").map(PathBuf::from).context(
        "SHOAL_KUBECTL_PLUGIN does not name the plugin's program; run the suites by `cargo xtask test`, or build it with \
         `cargo build --profile lab -p kubectl-shoal` and name target/lab/kubectl-shoal",
    )?;
    ensure!(
        plugin.is_file(),
        "SHOAL_KUBECTL_PLUGIN names {}, which does not exist",
        plugin.display()
    );
    let programs = desk(s).join("bin");
    fs::create_dir_all(&programs)?;
    symlink(&plugin, programs.join("kubectl-shoal"))?;
    symlink(
        s.world.lab.control_plane()?.kubectl_program(),
        programs.join("kubectl"),
    )?;
    symlink(repository().join("examples"), desk(s).join("examples"))?;
    let complete = programs.join("kubectl_complete-shoal");
    fs::write(&complete, COMPLETE)?;
    fs::set_permissions(&complete, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a line in a shell.
async fn shell(s: &SimulatedStorage, line: &str) -> Result<Output> {
    let folder = desk(s);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(&folder)
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("KUBECONFIG", s.world.lab.control_plane()?.kubeconfig());
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// Runs `kubectl shoal` with these words; it has to end with this code. What it says on standard output, and on standard error.
async fn shoal(s: &SimulatedStorage, words: &str, code: i32) -> Result<(String, String)> {
    let output = shell(s, &format!("kubectl shoal {words}")).await?;
    let (out, err) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    ensure!(
        output.status.code() == Some(code),
        "kubectl shoal {words}: {:?}, not {code}\n{out}{err}",
        output.status.code()
    );
    Ok((out, err))
}

/// The same without its errors.
async fn said(s: &SimulatedStorage, words: &str) -> Result<String> {
    Ok(shoal(s, words, 0).await?.0)
}

fn is_said(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    Ok(())
}

// ---- the documentation

/// What differs from run to run, as it is written down.
#[derive(Default)]
struct Names {
    uids: Vec<String>,
    generated: Vec<(String, String)>,
}

/// Ends of generated names, in turn.
const SUFFIXES: [&str; 6] = ["4wqzn", "8kd2p", "c5mxt", "fj9rs", "hv6lb", "tn7gw"];

impl Names {
    fn uid(n: usize) -> String {
        format!(
            "{:08x}-70f4-4e0a-9d3c-2b6a51c8e7{n:02x}",
            0x3f5a_91c0_u32 + u32::try_from(n).unwrap() * 0x0101
        )
    }

    /// Learns of names that the API server has made.
    async fn learn(&mut self, s: &SimulatedStorage) -> Result<()> {
        let all = ListParams::default();
        let locks = s.world.api::<ResourceLock>("default").list(&all).await?.items;
        let rules = s.world.api::<ShareAccessRule>("default").list(&all).await?.items;
        let objects = locks
            .iter()
            .map(Resource::meta)
            .chain(rules.iter().map(Resource::meta));
        for object in objects {
            let (Some(prefix), Some(name)) = (&object.generate_name, &object.name) else {
                continue;
            };
            if !self.generated.iter().any(|(known, _)| known == name) {
                let suffix = SUFFIXES
                    .get(self.generated.len())
                    .context("another suffix is needed")?;
                self.generated.push((name.clone(), format!("{prefix}{suffix}")));
            }
        }
        Ok(())
    }

    /// Lines, as they are written down.
    fn written(&mut self, text: &str) -> Vec<String> {
        let mut text = text.to_owned();
        for (name, shown) in &self.generated {
            text = text.replace(name, shown);
        }
        let mut done = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if let Some(uid) = rest.get(..36).filter(|word| is_uid(word)) {
                let n = self
                    .uids
                    .iter()
                    .position(|known| known == uid)
                    .unwrap_or_else(|| {
                        self.uids.push(uid.to_owned());
                        self.uids.len() - 1
                    });
                done += &Self::uid(n);
                rest = &rest[36..];
            } else if let Some(time) = rest.get(..20).filter(|word| is_time(word)) {
                done += "2026-12-23T17:01:48Z";
                rest = &rest[time.len()..];
            } else if let Some(age) = age(rest).filter(|_| done.ends_with([' ', '\n'])) {
                let shown = format!("{:age$}", "5s");
                done += &shown;
                rest = &rest[age..];
            } else {
                done.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        done.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// As it really is.
    fn real(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (n, uid) in self.uids.iter().enumerate() {
            line = line.replace(&Self::uid(n), uid);
        }
        for (name, shown) in &self.generated {
            line = line.replace(shown, name);
        }
        line
    }
}

fn is_uid(word: &str) -> bool {
    word.chars().enumerate().all(|(i, c)| match i {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit() && !c.is_ascii_uppercase(),
    })
}

fn is_time(word: &str) -> bool {
    word.chars()
        .zip("0000-00-00T00:00:00Z".chars())
        .all(|(c, form)| match form {
            '0' => c.is_ascii_digit(),
            form => c == form,
        })
}

/// The length of an age in seconds, if the text begins with one.
fn age(text: &str) -> Option<usize> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let rest = text[digits..].strip_prefix('s')?;
    (digits > 0 && !rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(digits + 1)
}

/// Waits until nothing changes by itself any more: what is shown next is then the same each time.
async fn at_rest(s: &SimulatedStorage) -> Result<()> {
    s.until_settled(None).await?;
    eventually("the locks to be looked at", PATIENCE, async || {
        let locks = s
            .world
            .api::<ResourceLock>("default")
            .list(&ListParams::default())
            .await?;
        let seen = |lock: &ResourceLock| lock.status.as_ref().is_some_and(|status| status.phase.is_some());
        Ok(locks.items.iter().all(seen).then_some(()))
    })
    .await
}

/// Runs a page's commands in their order, and compares what comes out with what the page shows.
async fn play(s: &SimulatedStorage, page: &str) -> Result<()> {
    let path = repository().join(page);
    let text = fs::read_to_string(&path)?;
    until(
        &s.world.cluster_api::<ShareBackend>(),
        BACKEND,
        "counted",
        |backend: &ShareBackend| {
            let status = backend.status.as_ref();
            status.is_some_and(|s| s.shares.is_some() && s.capacity.is_some())
        },
    )
    .await?;
    let mut names = Names::default();
    let (mut written, mut in_block, mut in_output) = (Vec::new(), false, false);
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            let output = shell(s, &format!("exec 2>&1; {}", names.real(command))).await?;
            at_rest(s).await?;
            names.learn(s).await?;
            written.push(line.to_owned());
            written.extend(names.written(&String::from_utf8(output.stdout)?));
            match output.status.code() {
                Some(0) => {}
                Some(code) => written.push(format!("(exit code {code})")),
                None => bail!("{command}: {}", output.status),
            }
            in_output = true;
            continue;
        }
        if line.starts_with("```") {
            in_block = line == "```console";
            in_output = false;
        }
        if !in_output {
            written.push(line.to_owned());
        }
    }
    if std::env::var_os("SHOAL_E2E_WRITE_DOCS").is_some() {
        fs::write(&path, written.join("\n") + "\n")?;
        return Ok(());
    }
    let shown: Vec<_> = text.lines().collect();
    let longest = shown.len().max(written.len());
    for i in 0..longest {
        let (shown, came) = (shown.get(i).copied(), written.get(i).map(String::as_str));
        ensure!(
            shown == came,
            "line {} of {page} is {shown:?}, and now {came:?} comes out; SHOAL_E2E_WRITE_DOCS=1 writes what comes out",
            i + 1
        );
    }
    Ok(())
}

#[test]
fn the_page_about_the_plugin_shows_what_really_comes_out() {
    DOCUMENTED.run(start, |s| async move {
        let page = "docs/kubectl-shoal.md";
        let text = fs::read_to_string(repository().join(page))?;
        ensure!(
            text.contains(COMPLETE),
            "{page} has another kubectl_complete-shoal"
        );
        play(s, page).await
    });
}

#[test]
fn the_page_for_users_shows_what_really_comes_out() {
    FOR_USERS.run(start, |s| play(s, "docs/using-shares.md"));
}

// ---- what the documentation does not show

#[test]
fn objects_come_as_json_and_yaml() {
    run(|s| async move {
        let namespace = s.world.namespace("plugin").await?;
        s.ready_share(&namespace, "papers", Protocol::NFS).await?;
        s.world
            .rule(&namespace, "desk", ip_rule("papers", "10.0.0.7", "ReadWrite"))
            .await?;
        s.until_rule(&namespace, "desk", "True", "Active").await?;
        let page: Value =
            serde_json::from_str(&said(s, &format!("status papers -n {namespace} -o json")).await?)?;
        ensure!(page["share"]["metadata"]["name"] == "papers", "{page}");
        ensure!(page["accessRules"][0]["spec"]["accessTo"] == "10.0.0.7", "{page}");
        let list: Value = serde_saphyr::from_str(&said(s, "access list -A -o yaml").await?)?;
        ensure!(
            list["kind"] == "List" && list["items"][0]["kind"] == "ShareAccessRule",
            "{list}"
        );
        is_said(&said(s, "locks -A").await?, &["No locks."])?;
        is_said(
            &said(s, &format!("status papers -n {namespace} -o wide")).await?,
            &["Conditions", "AccessApplied"],
        )?;
        s.clear(&namespace).await
    });
}

#[test]
fn a_volume_for_pods_is_taken_by_the_api_server_and_no_key_is_told() {
    run(|s| async move {
        let namespace = s.world.namespace("plugin").await?;
        s.ready_share(&namespace, "papers", Protocol::NFS).await?;
        s.ready_share(&namespace, "data", Protocol::CephFS).await?;
        said(s, &format!("access allow papers 10.0.0.7 -n {namespace} --wait")).await?;
        said(
            s,
            &format!("access allow data -n {namespace} --name trainer --wait"),
        )
        .await?;
        for share in ["papers", "data"] {
            let line = format!(
                "kubectl shoal mount {share} -n {namespace} --format yaml | kubectl apply --dry-run=server -f -"
            );
            let output = shell(s, &line).await?;
            let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
            is_said(
                &text,
                &[
                    "persistentvolume/shoal-",
                    &format!("persistentvolumeclaim/{share} created"),
                ],
            )?;
        }
        let secret = s.secret(&namespace, "trainer-cephx").await?.context("a Secret")?;
        let key = String::from_utf8(secret.data.context("data")?["userKey"].0.clone())?;
        let line = format!("kubectl get secret trainer-cephx -n {namespace} -o jsonpath='{{.data.userKey}}'");
        let encoded = String::from_utf8(shell(s, &line).await?.stdout)?;
        ensure!(key.len() > 20 && encoded.len() > 20, "there is no key");
        for words in [
            "status data -o yaml",
            "mount data",
            "mount data --fuse",
            "access list -o json",
            "support-bundle -f -",
        ] {
            let text = said(s, &format!("{words} -n {namespace}")).await?;
            ensure!(
                !text.contains(&key) && !text.contains(&encoded),
                "{words} tells a key"
            );
        }
        let bundle = said(s, "support-bundle -f -").await?;
        is_said(
            &bundle,
            &[
                "kind: ShareAccessRule",
                "kind: ShareBackend",
                "kind: Lease",
                "madeBy: kubectl-shoal",
            ],
        )?;
        s.clear(&namespace).await
    });
}

#[test]
fn who_may_less_is_told_what_is_missing() {
    run(|s| async move {
        let namespace = s.world.namespace("plugin").await?;
        s.ready_share(&namespace, "papers", Protocol::NFS).await?;
        let read = json!([{"apiGroups": ["shoal.storage"], "resources": ["shares", "shareaccessrules"], "verbs": ["get", "list"]}]);
        s.world.grant("plugin-reader", &["mallory"], &read).await?;
        let as_mallory = format!("-n {namespace} --as mallory");
        let mut text = String::new();
        eventually("the authorizer to hear of it", PATIENCE, async || {
            let output = shell(s, &format!("kubectl shoal status papers {as_mallory}")).await?;
            text = String::from_utf8(output.stdout)?;
            Ok(output.status.success().then_some(()))
        })
        .await?;
        is_said(
            &text,
            &[
                "Ready      True, Available",
                "Locks: not shown: ",
                "Events: not shown: ",
            ],
        )?;
        ensure!(!text.contains("deleted shares"), "{text}");
        for words in [
            "extend papers 2Gi",
            "ensure share papers",
            "access allow papers 10.0.0.7",
            "backends",
            "deletions",
        ] {
            let (_, error) = shoal(s, &format!("{words} {as_mallory}"), 4).await?;
            is_said(&error, &["error: ", "cannot"])?;
        }
        s.clear(&namespace).await
    });
}

#[test]
fn what_can_not_be_is_said_with_its_code() {
    run(|s| async move {
        let namespace = s.world.namespace("plugin").await?;
        s.world
            .share(
                &namespace,
                "large",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "none-such"}),
            )
            .await?;
        s.until_share(&namespace, "large", "False", "ShareTypeNotFound")
            .await?;
        let n = format!("-n {namespace}");
        is_said(
            &shoal(s, &format!("status large {n}"), 4).await?.0,
            &["ShareTypeNotFound"],
        )?;
        is_said(
            &shoal(s, &format!("mount large {n}"), 4).await?.1,
            &["can't be mounted yet: ShareTypeNotFound"],
        )?;
        is_said(
            &shoal(s, &format!("extend large 2Gi --wait --timeout 2 {n}"), 4)
                .await?
                .1,
            &["ShareTypeNotFound"],
        )?;
        for (words, code, word) in [
            ("extend large 1.5Gi", 2, "whole number"),
            ("access allow large", 2, "name one"),
            ("access allow large 10.0.0.1/24", 4, "host bits"),
            ("access deny large 10.0.0.7", 3, "its rules: none"),
            ("status other", 3, "not found"),
            ("lock other", 3, "not found"),
            ("unlock large", 3, "no lock"),
            ("deletions abandon shoal-x --yes", 3, "not found"),
            ("status large --context other", 1, "kubeconfig"),
            ("status large --kubeconfig /nowhere", 1, "/nowhere"),
        ] {
            is_said(&shoal(s, &format!("{words} {n}"), code).await?.1, &[word])?;
        }
        s.clear(&namespace).await
    });
}

#[test]
fn kubectl_completes_commands_flags_and_names() {
    run(|s| async move {
        let namespace = s.world.namespace("plugin").await?;
        s.ready_share(&namespace, "papers", Protocol::NFS).await?;
        for (words, candidate) in [
            ("''", "support-bundle"),
            ("ens", "ensure"),
            ("access ''", "allow"),
            ("status papers -o ''", "json"),
            (&format!("status -n {namespace} pa"), "papers"),
            ("ensure backend ''", BACKEND),
        ] {
            let output = shell(s, &format!("kubectl __complete shoal {words}")).await?;
            let text = String::from_utf8(output.stdout)?;
            let found = text
                .lines()
                .any(|line| line.split('\t').next() == Some(candidate));
            ensure!(found, "{candidate} does not complete {words:?}:\n{text}");
        }
        s.clear(&namespace).await
    });
}
