//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use shoal_crds::{AccessLevel, AccessType, Size};

use crate::{failure::EXIT_CODES, mount::Form, output::Output, resource::Named};

/// Shares of Shoal: how they do, who may mount them and how, what keeps them, and what is left of them
#[derive(Parser)]
#[command(name = "kubectl-shoal", bin_name = "kubectl shoal", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the flags stand that every command has.
const OF_KUBECTL: &str = "Options of kubectl";

// Comments of what is flattened would be taken for the about of the command.
#[derive(Args)]
pub(crate) struct Connection {
    /// The namespace; the context's if left out
    #[arg(short, long, global = true, help_heading = OF_KUBECTL, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, global = true, help_heading = OF_KUBECTL, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig; else $KUBECONFIG, else ~/.kube/config, else the Pod's own
    #[arg(long, global = true, help_heading = OF_KUBECTL, value_name = "PATH")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Another user to act as
    #[arg(long = "as", global = true, help_heading = OF_KUBECTL, value_name = "USER")]
    pub(crate) act_as: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// A share on one page: its rules, locks, what is left of its namesakes, events. Exit code 4 if it is not Ready
    Status {
        share: String,
        #[command(flatten)]
        output: Output,
    },
    /// How to mount a share. Exit code 4 if that does not work yet
    Mount(Mount),
    /// Who may mount a share
    #[command(subcommand)]
    Access(Access),
    /// Have a share, or all shares of a backend, verified now and mended where they are not as they should be
    Ensure {
        #[arg(value_enum)]
        kind: Ensured,
        name: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Keep a share, or an access rule with its share, from being deleted; or the key of an access rule from being read by others
    Lock {
        /// A share's name, or share/NAME, or rule/NAME
        #[arg(value_name = "SHARE|rule/NAME")]
        resource: Named,
        /// What nobody is to do: show is to read the key of an access rule, which gets a new one for you alone
        #[arg(long, value_enum, default_value = "delete")]
        action: Action,
        /// Why, for whoever meets the lock
        #[arg(long)]
        reason: Option<String>,
    },
    /// Take one's own locks off a share or an access rule
    Unlock {
        /// A share's name, or share/NAME, or rule/NAME
        #[arg(value_name = "SHARE|rule/NAME", required_unless_present = "lock")]
        resource: Option<Named>,
        /// This lock instead, whoever's it is; another's takes the verb override on resourcelocks
        #[arg(long, value_name = "NAME", conflicts_with = "resource")]
        lock: Option<String>,
    },
    /// The locks there are
    Locks(Listed),
    /// Make a share larger
    Extend {
        share: String,
        /// The new size, as 20Gi
        size: Size,
        #[command(flatten)]
        wait: Wait,
    },
    /// The backends, their room, and why they are not as they should be
    Backends {
        #[command(flatten)]
        output: Output,
    },
    /// What is left of deleted shares (for storage admins)
    Deletions(Deletions),
    /// Bring data back, of a deleted share or of a former one that no object owns (takes the verb adopt on shares)
    Recover(Recover),
    /// What backends hold that no object owns: it is told, and never removed (for storage admins)
    Orphans {
        #[command(flatten)]
        output: Output,
    },
    /// What would be changed on backends that are only looked at (spec.dryRun), after etcd was restored, say (for storage admins)
    Differences {
        #[command(flatten)]
        output: Output,
    },
    /// What a report of a problem needs, in one file of YAML: Shoal's objects, events and operator, and no Secret
    SupportBundle(SupportBundle),
    /// A script that completes kubectl-shoal in a shell. For kubectl itself see docs/kubectl-shoal.md
    Completion { shell: Shell },
    /// What kubectl asks for by kubectl_complete-shoal
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Args)]
pub(crate) struct Mount {
    pub(crate) share: String,
    /// The rule, by its name or by whom it lets in; else the oldest that is in force
    #[arg(long, value_name = "RULE|CLIENT")]
    pub(crate) client: Option<String>,
    #[arg(long, value_enum, default_value = "command")]
    pub(crate) format: Form,
    /// Where on the client
    #[arg(long, value_name = "PATH", default_value = "/mnt")]
    pub(crate) at: String,
    /// By ceph-fuse and not by the kernel (CephFS)
    #[arg(long)]
    pub(crate) fuse: bool,
}

#[derive(Subcommand)]
pub(crate) enum Access {
    /// Let a client in, or change what it may do
    Allow(Allow),
    /// Let a client in no more
    Deny {
        share: String,
        /// The rule's name, or whom it lets in
        #[arg(value_name = "RULE|CLIENT")]
        who: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// The rules of a share, or of all in the namespace
    List {
        share: Option<String>,
        #[command(flatten)]
        listed: Listed,
    },
}

#[derive(Args)]
pub(crate) struct Allow {
    pub(crate) share: String,
    /// An address or network for NFS, as 10.0.0.0/24; an identity for CephFS, and if left out one is made
    #[arg(value_name = "CLIENT")]
    pub(crate) to: Option<String>,
    /// What it may do
    #[arg(long, default_value = "ReadWrite", value_parser = level, value_name = "ReadWrite|ReadOnly")]
    pub(crate) level: AccessLevel,
    /// How it is known; else as the share's protocol asks
    #[arg(long = "type", value_parser = access_type, value_name = "IP|CephX")]
    pub(crate) kind: Option<AccessType>,
    /// The rule's name; else one that begins with the share's
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    Delete,
    Show,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ensured {
    Share,
    Backend,
}

#[derive(Args)]
pub(crate) struct Wait {
    /// Until it is done, or can't be
    #[arg(long)]
    pub(crate) wait: bool,
    /// For how many seconds at most
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Args)]
pub(crate) struct Listed {
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Deletions {
    #[command(subcommand)]
    pub(crate) action: Option<DeletionAction>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Subcommand)]
pub(crate) enum DeletionAction {
    /// Give one up: Shoal says what is left where, and does nothing more about it
    Abandon {
        deletion: String,
        /// Do it; without this it is only said what it would leave
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
pub(crate) struct Recover {
    /// The ShareDeletion, as kubectl shoal deletions names it: its data becomes a new Share
    #[arg(required_unless_present_any = ["share", "cluster"], conflicts_with_all = ["share", "cluster"])]
    pub(crate) deletion: Option<String>,
    /// Instead a Share that is there, and waits because data of a former one has its name (FormerDataFound)
    #[arg(long, value_name = "NAME", conflicts_with = "cluster")]
    pub(crate) share: Option<String>,
    /// Instead all such Shares whose data is of this former cluster, in all namespaces or in that of --namespace
    #[arg(long, value_name = "UID")]
    pub(crate) cluster: Option<String>,
    /// Which data the Share gets, if there is more than one's, as kubectl shoal orphans names it
    #[arg(
        long,
        value_name = "BACKEND/HANDLE",
        requires = "share",
        conflicts_with_all = ["cluster", "start_empty"]
    )]
    pub(crate) data: Option<String>,
    /// Leave the data where it is, and have the Share made empty
    #[arg(long, conflicts_with = "deletion")]
    pub(crate) start_empty: bool,
    /// The new Share's name; else as it was. With --namespace it may be in another namespace than it was
    #[arg(long, conflicts_with_all = ["share", "cluster"])]
    pub(crate) name: Option<String>,
    /// Its size; else as it was
    #[arg(long, conflicts_with_all = ["share", "cluster"])]
    pub(crate) size: Option<Size>,
    /// Its ShareType; else as it was
    #[arg(long = "type", value_name = "SHARETYPE", conflicts_with_all = ["share", "cluster"])]
    pub(crate) share_type: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Args)]
pub(crate) struct SupportBundle {
    /// The file to make; - for standard output
    #[arg(short, long, value_name = "PATH", default_value = "shoal-support-bundle.yaml")]
    pub(crate) file: String,
    /// Put other words in place of the names of namespaces, shares, rules, locks, users and clients, and leave out what users wrote
    #[arg(long)]
    pub(crate) redact_names: bool,
    /// The operator's namespace
    #[arg(long, value_name = "NAME", default_value = "shoal-system")]
    pub(crate) operator_namespace: String,
}

/// As in the API, or in Manila's words.
fn level(text: &str) -> Result<AccessLevel, String> {
    match text.to_ascii_lowercase().as_str() {
        "readwrite" | "rw" => Ok(AccessLevel::ReadWrite),
        "readonly" | "ro" => Ok(AccessLevel::ReadOnly),
        _ => Err("write ReadWrite (rw) or ReadOnly (ro)".into()),
    }
}

fn access_type(text: &str) -> Result<AccessType, String> {
    match text.to_ascii_lowercase().as_str() {
        "ip" => Ok(AccessType::IP),
        "cephx" => Ok(AccessType::CephX),
        _ => Err("write IP or CephX".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| "write whole seconds, as 120".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_one() {
        Cli::command().debug_assert();
    }

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("kubectl-shoal").chain(words.split(' '))).map(|cli| cli.command)
    }

    #[test]
    fn kubectls_flags_stand_before_and_after() {
        for words in [
            "-n a status x",
            "status x -n a",
            "status -n=a x --context c --kubeconfig /k --as bob",
        ] {
            let cli = Cli::try_parse_from(std::iter::once("kubectl-shoal").chain(words.split(' '))).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("a"), "{words}");
        }
    }

    #[test]
    fn levels_and_types_are_the_apis_or_manilas() {
        for (word, level) in [
            ("rw", AccessLevel::ReadWrite),
            ("readonly", AccessLevel::ReadOnly),
        ] {
            let Command::Access(Access::Allow(allow)) =
                parse(&format!("access allow s 10.0.0.1 --level {word}")).unwrap()
            else {
                panic!("another command");
            };
            assert_eq!(allow.level, level);
        }
        assert!(parse("access allow s 10.0.0.1 --type user").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            "extend s 1.5Gi",
            "extend s 10Gi --timeout 5",
            "unlock",
            "unlock s --lock l",
            "lock secret/x",
            "lock rule/x --action look",
            "locks -A -n x",
            "mount s --format json",
            "ensure type x",
            "recover",
            "recover d --share s",
            "recover --share s --cluster c",
            "recover --share s --size 2Gi",
            "recover --share s --data b/g/v --start-empty",
            "recover --cluster c --data b/g/v",
            "deletions -o xml",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn what_makes_sense_is_taken() {
        for words in [
            "extend s 10Gi --wait --timeout 5s",
            "unlock --lock l",
            "unlock rule/x",
            "lock shr/x --reason because",
            "lock rule/x --action show",
            "locks -A -o wide",
            "deletions abandon d --yes",
            "deletions -o json",
            "recover d --name n -n x --size 2Gi",
            "recover --share s --data b/g/v --wait",
            "recover --cluster c --start-empty",
            "orphans -o json",
            "differences -o yaml",
            "support-bundle -f - --redact-names",
            "completion zsh",
            "__complete status --names d",
            "ensure backend b --wait",
            "access list",
        ] {
            assert!(parse(words).is_ok(), "{words}");
        }
    }
}
