//! Completion: a script for a shell, and the words that kubectl asks for by `kubectl_complete-shoal`.

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use kube::{ResourceExt, api::ListParams};
use shoal_crds::{Share, ShareBackend, ShareDeletion};

use crate::{
    api::{self, Cluster},
    cli::{Cli, Connection},
    outcome::Outcome,
};

/// Ends what kubectl reads: the words are no files.
const NO_FILES: &str = ":4";

pub(crate) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-shoal", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// What may come next, one a line with its help. Without a cluster there are no names, and that is no error.
pub(crate) async fn words(connection: &Connection, words: &[String]) -> Outcome {
    let (before, last) = match words.split_last() {
        Some((last, before)) => (before, last.as_str()),
        None => (words, ""),
    };
    let mut candidates = match next(&Cli::command(), before) {
        Next::Words(words) => words,
        Next::Names(kind) => names(&with_flags(connection, before), kind)
            .await
            .unwrap_or_default(),
    };
    candidates.retain(|candidate| candidate.starts_with(last));
    candidates.push(NO_FILES.into());
    Outcome::done(candidates.join("\n") + "\n")
}

/// What can stand in a place of the command line.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Words(Vec<String>),
    Names(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Share,
    Backend,
    Deletion,
}

fn next(root: &Command, before: &[String]) -> Next {
    let mut command = root;
    let mut placed: Vec<&str> = Vec::new();
    let mut words = before.iter().map(String::as_str);
    let mut value_of = None;
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix('-') {
            let takes = flags(root, command).find(|arg| !word.contains('=') && is_called(arg, flag));
            if takes.is_some_and(|arg| arg.get_action().takes_values()) && words.next().is_none() {
                value_of = takes;
            }
        } else if let Some(sub) = command.find_subcommand(word) {
            command = sub;
            placed.clear();
        } else {
            placed.push(word);
        }
    }
    if let Some(arg) = value_of {
        return Next::Words(values(arg));
    }
    let mut found: Vec<String> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| match sub.get_about() {
            Some(about) => format!("{}\t{about}", sub.get_name()),
            None => sub.get_name().to_owned(),
        })
        .collect();
    let positional = command.get_positionals().nth(placed.len());
    if let Some(arg) = positional.filter(|_| found.is_empty()) {
        let kind = match (arg.get_id().as_str(), placed.first()) {
            ("share" | "resource", _) | ("name", Some(&"share")) => Some(Kind::Share),
            ("name", _) => Some(Kind::Backend),
            ("deletion", _) => Some(Kind::Deletion),
            _ => None,
        };
        if let Some(kind) = kind {
            return Next::Names(kind);
        }
        found = values(arg);
    }
    if found.is_empty() {
        found = flags(root, command)
            .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
            .collect();
    }
    Next::Words(found)
}

fn flags<'a>(root: &'a Command, command: &'a Command) -> impl Iterator<Item = &'a Arg> {
    command
        .get_opts()
        .chain(root.get_opts().filter(|arg| arg.is_global_set()))
}

/// `flag` without its first dash.
fn is_called(arg: &Arg, flag: &str) -> bool {
    match flag.strip_prefix('-') {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| flag.chars().eq([short])),
    }
}

fn values(arg: &Arg) -> Vec<String> {
    let values = arg.get_possible_values();
    values.iter().map(|value| value.get_name().to_owned()).collect()
}

/// The flags that say which cluster and namespace; clap leaves to `__complete` all that is behind it.
fn with_flags(connection: &Connection, before: &[String]) -> Connection {
    let value = |long: &str, short: Option<&str>| {
        let with_equals = format!("{long}=");
        before.iter().enumerate().find_map(|(i, word)| {
            let apart = word == long || short == Some(word.as_str());
            let apart = apart.then(|| before.get(i + 1).cloned()).flatten();
            apart.or_else(|| word.strip_prefix(&with_equals).map(str::to_owned))
        })
    };
    Connection {
        namespace: value("--namespace", Some("-n")).or_else(|| connection.namespace.clone()),
        context: value("--context", None).or_else(|| connection.context.clone()),
        kubeconfig: value("--kubeconfig", None)
            .map(Into::into)
            .or_else(|| connection.kubeconfig.clone()),
        act_as: value("--as", None).or_else(|| connection.act_as.clone()),
    }
}

async fn names(connection: &Connection, kind: Kind) -> Option<Vec<String>> {
    fn of<K: api::Object>(objects: &[K]) -> Vec<String> {
        objects.iter().map(ResourceExt::name_any).collect()
    }
    let cluster = Cluster::connect(connection).await.ok()?;
    let all = ListParams::default();
    match kind {
        Kind::Share => Some(of(&api::list::<Share>(&cluster.here(), &all).await.ok()?)),
        Kind::Backend => Some(of(&api::list::<ShareBackend>(&cluster.global(), &all)
            .await
            .ok()?)),
        Kind::Deletion => Some(of(&api::list::<ShareDeletion>(&cluster.global(), &all)
            .await
            .ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(words: &str) -> Next {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        next(&Cli::command(), &words)
    }

    fn words(next: Next) -> Vec<String> {
        match next {
            Next::Words(words) => words,
            Next::Names(kind) => panic!("names of {kind:?}"),
        }
    }

    #[test]
    fn commands_come_first() {
        let all = words(after("-n team-a"));
        assert!(all.iter().any(|word| word.starts_with("status\t")), "{all:?}");
        assert!(!all.iter().any(|word| word.starts_with("__complete")), "{all:?}");
        let access = words(after("access"));
        assert!(
            access.iter().any(|word| word.starts_with("allow\t")),
            "{access:?}"
        );
    }

    #[test]
    fn names_come_where_names_stand() {
        for (line, kind) in [
            ("status", Kind::Share),
            ("mount --at /srv", Kind::Share),
            ("access allow", Kind::Share),
            ("lock", Kind::Share),
            ("ensure share", Kind::Share),
            ("ensure backend", Kind::Backend),
            ("recover", Kind::Deletion),
            ("deletions abandon", Kind::Deletion),
        ] {
            assert_eq!(after(line), Next::Names(kind), "{line}");
        }
    }

    #[test]
    fn values_come_behind_their_flag() {
        assert_eq!(words(after("status documents -o")), ["json", "yaml", "wide"]);
        assert_eq!(
            words(after("mount documents --format")),
            ["command", "fstab", "yaml"]
        );
        assert_eq!(words(after("ensure")), ["share", "backend"]);
    }

    #[test]
    fn flags_come_when_all_is_said() {
        let flags = words(after("status documents"));
        assert!(
            flags.contains(&"--output".into()) && flags.contains(&"--namespace".into()),
            "{flags:?}"
        );
    }

    #[test]
    fn what_was_said_of_the_cluster_counts() {
        let none = Connection {
            namespace: None,
            context: None,
            kubeconfig: None,
            act_as: None,
        };
        let words = ["status", "-n", "team-a", "--context=lab"].map(str::to_owned);
        let read = with_flags(&none, &words);
        assert_eq!(
            (read.namespace.as_deref(), read.context.as_deref()),
            (Some("team-a"), Some("lab"))
        );
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).contains("support-bundle"), "{shell}");
        }
    }
}
