//! `cargo xtask demo`: Shoal as a user meets it, from nothing to a share in use, in a lab.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use rustix::process::Signal;
use shoal_e2e::lab::client::{ClientError, Failure, Owner, failure};
use shoal_e2e::lab::process::{Started, tail, wait_until};
use shoal_e2e::lab::{
    self, Ceph, CephFsMount, CephOptions, CephRelease, KubernetesRelease, Lab, LabOptions, NfsClient, Process,
};

use crate::workspace;

/// How long a share, or anything else that the operator does, is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// Said again after this long while something takes its time.
const PROGRESS: Duration = Duration::from_secs(15);
const NAMESPACE: &str = "shoal-system";
/// The address in examples/quickstart/backend.yaml that stands for the NFS service's own.
const NFS_PLACEHOLDER: &str = "nfs.example.org";
/// A client of the network that examples/quickstart/shares.yaml lets in, and one of another.
const LET_IN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 10, 7));
const NOT_LET_IN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 20, 7));
/// Owner of a share's root directory, as examples/quickstart/backend.yaml says.
const OWNER: Owner = Owner { uid: 1000, gid: 1000 };
const TEXT: &[u8] = b"written over NFS\n";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Ceph release: 18 or 20
    #[arg(long, default_value = "18")]
    ceph: CephRelease,
    /// Kubernetes release: 1.34 or 1.37
    #[arg(long, default_value = "1.37")]
    kubernetes: KubernetesRelease,
    /// Without Ceph, and without root: a backend that only pretends, and no clients
    #[arg(long)]
    simulated: bool,
    /// Leave everything running, and say how to use it
    #[arg(long)]
    keep: bool,
    /// With --keep: which lab it becomes
    #[arg(long, default_value = "default", requires = "keep")]
    name: String,
}

impl Arguments {
    /// The command that handles a lab that is kept.
    fn lab(&self) -> String {
        match self.name.as_str() {
            "default" => "cargo xtask lab".to_owned(),
            name => format!("cargo xtask lab --name {name}"),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    let mut steps = Steps { start, number: 0 };
    let mut stage = steps.take("Start a lab, and build the operator beside it", || {
        Stage::set(arguments)
    })?;
    if let Err(error) = stage.play(&mut steps, arguments) {
        return Err(error.context(stage.last_words(arguments)));
    }
    if arguments.keep {
        stage.say_how_to_use(arguments);
    } else {
        steps.take("The lab ends, and nothing is left of it", || {
            drop(stage);
            Ok(())
        })?;
    }
    let without = if arguments.simulated {
        ", without Ceph and so without clients"
    } else {
        ""
    };
    println!("\ndemo passed in {:.0} s{without}", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Names each step, and says how long it took.
struct Steps {
    start: Instant,
    number: u32,
}

impl Steps {
    fn take<T>(&mut self, title: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        self.number += 1;
        println!("\n[{}] {title}", self.number);
        let begun = Instant::now();
        let done = step().with_context(|| format!("step {} ({title})", self.number))?;
        let (took, all) = (begun.elapsed().as_secs_f64(), self.start.elapsed().as_secs_f64());
        println!("    done in {took:.1} s ({all:.0} s since the start)");
        Ok(done)
    }
}

/// What the demo plays on. Ended with everything in it when dropped, unless it is kept.
struct Stage {
    /// Before the lab, so that it ends first.
    operator: Option<Started>,
    program: PathBuf,
    lab: Lab,
}

impl Stage {
    fn set(arguments: &Arguments) -> Result<Self> {
        let folder = if arguments.keep {
            Some(lab::default_folder(&arguments.name)?)
        } else {
            None
        };
        let build = Build::start()?;
        let lab = Lab::start(&LabOptions {
            ceph: (!arguments.simulated).then(|| CephOptions {
                release: arguments.ceph,
                ..CephOptions::default()
            }),
            kubernetes: Some(arguments.kubernetes),
            detached: arguments.keep,
            folder,
            ..LabOptions::default()
        });
        let lab = match lab {
            Ok(lab) => lab,
            Err(error) => {
                build.abandon()?;
                let remedy = " (`cargo xtask demo --simulated` needs neither Ceph nor root)";
                let remedy = if arguments.simulated { "" } else { remedy };
                return Err(error.context(format!("the lab did not start{remedy}")));
            }
        };
        Ok(Self {
            operator: None,
            program: build.finish()?,
            lab,
        })
    }

    fn play(&mut self, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
        steps.take(
            "Install Shoal's API: CRDs, and when they are served, the policies",
            || self.install_api(),
        )?;
        steps.take(
            "Start the operator, as a ServiceAccount with a role of its own",
            || self.start_operator(),
        )?;
        steps.take("The storage team adds a backend and a type", || {
            self.add_backend()
        })?;
        steps.take("A user asks for two shares, and access to them", || {
            self.add_shares()
        })?;
        steps.take("Where to mount them", || self.show_locations())?;
        if let Ok(ceph) = self.lab.ceph() {
            let mut client = steps.take("A client that the rule lets in uses the NFS share", || {
                self.use_nfs(ceph)
            })?;
            steps.take("A client that no rule lets in does not", || self.refuse_nfs(ceph))?;
            steps.take("The rule becomes read-only, under the client's feet", || {
                self.make_read_only(Some(&mut client))
            })?;
            let mount = steps.take(
                "A client with the key from the Secret uses the CephFS share",
                || self.use_cephfs(ceph),
            )?;
            steps.take("The CephFS share grows", || self.grow(Some(&mount)))?;
        } else {
            steps.take("The rule becomes read-only", || self.make_read_only(None))?;
            steps.take("The CephFS share grows", || self.grow(None))?;
        }
        if arguments.keep {
            return Ok(());
        }
        steps.take("The user deletes all of it", || self.delete_shares())?;
        steps.take("The operator is asked to end", || self.stop_operator())
    }

    fn install_api(&self) -> Result<()> {
        let generated = workspace::root().join("crds/generated");
        let (mut crds, mut policies, mut mutating) = (Vec::new(), Vec::new(), Vec::new());
        for entry in
            fs::read_dir(&generated).with_context(|| format!("cannot read {}", generated.display()))?
        {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match name.as_str() {
                "finalizer-policy.yaml" | "lock-owner-policy.yaml" => &mut mutating,
                name if name.ends_with("-policies.yaml") => &mut policies,
                _ => &mut crds,
            }
            .push(format!("crds/generated/{name}"));
        }
        crds.sort();
        self.show(&with_files(&["apply", "--server-side"], &crds))?;
        self.wait(&with_files(&["wait", "--for=condition=Established"], &crds))?;
        self.show(&with_files(&["apply", "--server-side"], &policies))?;
        let served = [
            "api-resources",
            "--api-group=admissionregistration.k8s.io",
            "--output=name",
        ];
        if self.ask(&served)?.contains("mutatingadmissionpolicies") {
            self.show(&with_files(&["apply", "--server-side"], &mutating))?;
        } else {
            say("This API server has no MutatingAdmissionPolicy; the operator does instead what it would.");
        }
        Ok(())
    }

    fn start_operator(&mut self) -> Result<()> {
        self.show(&[
            "apply",
            "--server-side",
            "-f",
            "operator/role.yaml",
            "-f",
            "crds/roles.yaml",
        ])?;
        // Its token, kept in a file that only its owner reads. A kept lab may be looked at for days.
        let account = [
            "create",
            "token",
            "shoal",
            "--namespace",
            NAMESPACE,
            "--duration=720h",
        ];
        let token = self.ask(&account)?;
        let kubeconfig = self.operator_kubeconfig();
        self.lab
            .control_plane()?
            .write_kubeconfig(&kubeconfig, "shoal", token.trim())?;
        let (program, kubeconfig) = match self.lab.ceph() {
            Ok(ceph) => (ceph.path_inside(&self.program)?, ceph.path_inside(&kubeconfig)?),
            Err(_) => (self.program.clone(), kubeconfig),
        };
        let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
        let program = program.display().to_string();
        let words = [
            "env",
            &kubeconfig,
            &program,
            "run",
            "--listen=127.0.0.1:0",
            "--log-format=human",
        ];
        let command = if let Ok(ceph) = self.lab.ceph() {
            ceph.beside(&words)
        } else {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let log = self.operator_log();
        let mut operator = self
            .lab
            .launcher()
            .start("the operator", &command, &log, Stdio::null())?;
        wait_until("the operator to lead", PATIENCE, || {
            operator.check(&log)?;
            Ok(fs::read_to_string(&log)?.contains("controllers started"))
        })?;
        say(&format!("It leads; its log is {}", log.display()));
        self.operator = Some(operator);
        Ok(())
    }

    fn add_backend(&self) -> Result<()> {
        let Ok(ceph) = self.lab.ceph() else {
            self.show(&["apply", "-f", "examples/quickstart/backend-simulated.yaml"])?;
            self.wait(&[
                "wait",
                "--for=condition=Ready",
                "sharebackend/simulated",
                "sharetype/standard",
            ])?;
            return self.show(&["get", "shbe,shtype"]);
        };
        let mon_host = format!("--from-literal=monHost={}", ceph.mon_host());
        let user = format!("--from-literal=userID={}", ceph.user_id());
        let key = format!(
            "--from-file=userKey={}",
            ceph.folder().join("client.shoal.key").display()
        );
        self.show(&[
            "create",
            "secret",
            "generic",
            "ceph-connection",
            "--namespace",
            NAMESPACE,
            &mon_host,
            &user,
            &key,
        ])?;
        let file = "examples/quickstart/backend.yaml";
        let text = fs::read_to_string(workspace::root().join(file))
            .with_context(|| format!("cannot read {file}"))?;
        ensure!(
            text.contains(NFS_PLACEHOLDER),
            "{file} does not name {NFS_PLACEHOLDER}"
        );
        let endpoints: Vec<_> = ceph.nfs_endpoints().iter().map(|e| format!("\"{e}\"")).collect();
        say(&format!(
            "In {file}, the lab's addresses take the place of {NFS_PLACEHOLDER}:"
        ));
        self.feed(
            &["apply", "-f", "-"],
            &text.replace(NFS_PLACEHOLDER, &endpoints.join(", ")),
        )?;
        self.wait(&[
            "wait",
            "--for=condition=Ready",
            "sharebackend/cephfs",
            "sharetype/standard",
        ])?;
        self.show(&["get", "shbe,shtype"])
    }

    fn add_shares(&self) -> Result<()> {
        // An API server that has a mutating policy on new kinds refuses their objects until it has read their schemas.
        let rehearsal = [
            "apply",
            "--dry-run=server",
            "-f",
            "examples/quickstart/shares.yaml",
        ];
        let mut refusal = None;
        wait_until("the API server to take shares", PATIENCE, || {
            self.check_operator()?;
            refusal = self.ask(&rehearsal).err();
            Ok(refusal.is_none())
        })
        .map_err(|late| match refusal {
            Some(refusal) => refusal.context(late),
            None => late,
        })?;
        self.show(&["apply", "-f", "examples/quickstart/shares.yaml"])?;
        self.wait(&[
            "wait",
            "--for=condition=Ready",
            "-f",
            "examples/quickstart/shares.yaml",
        ])?;
        self.show(&["get", "shr,shacc"])
    }

    fn show_locations(&self) -> Result<()> {
        let paths = r#"jsonpath={range .items[*].status.exportLocations[*]}{.protocol}  {.path}{"\n"}{end}"#;
        self.show(&["get", "shr", "-o", paths])?;
        let metadata = "jsonpath-as-json={.status.exportLocations[0].metadata}";
        self.show(&["get", "shr", "datasets", "-o", metadata])?;
        // Names and lengths, no values.
        self.show(&["describe", "secret", "trainer-cephx"])
    }

    fn use_nfs(&self, ceph: &Ceph) -> Result<NfsClient> {
        let (server, path) = self.nfs_location()?;
        let mut client = NfsClient::mount(ceph, server, &path, LET_IN, OWNER)?;
        client.write("/hello", TEXT)?;
        say(&format!(
            "{LET_IN} has mounted {server}:{path} and written /hello, as user {}",
            OWNER.uid
        ));
        let read = NfsClient::mount(ceph, server, &path, LET_IN, OWNER)?.read("/hello")?;
        ensure!(read == TEXT, "/hello holds {:?}", String::from_utf8_lossy(&read));
        say(&format!(
            "Mounted anew, it reads there: {}",
            String::from_utf8_lossy(&read).trim()
        ));
        Ok(client)
    }

    fn refuse_nfs(&self, ceph: &Ceph) -> Result<()> {
        let (server, path) = self.nfs_location()?;
        let Err(refused) = NfsClient::mount(ceph, server, &path, NOT_LET_IN, OWNER) else {
            bail!("{NOT_LET_IN} has mounted {path}")
        };
        ensure!(
            refused.downcast_ref().is_some_and(ClientError::is_refused),
            "not a refusal: {refused:#}"
        );
        say(&format!("Refused: {refused:#}"));
        Ok(())
    }

    fn make_read_only(&self, client: Option<&mut NfsClient>) -> Result<()> {
        self.show(&[
            "patch",
            "shacc",
            "office",
            "--type=merge",
            "--patch",
            r#"{"spec":{"accessLevel":"ReadOnly"}}"#,
        ])?;
        self.wait(&[
            "wait",
            "--for=jsonpath={.status.appliedLevel}=ReadOnly",
            "shacc/office",
        ])?;
        let Some(client) = client else { return Ok(()) };
        wait_until("a write to be refused", PATIENCE, || {
            match client.write("/hello", b"no more") {
                Ok(()) => Ok(false),
                Err(error) if failure(&error) == Some(Failure::ReadOnly) => {
                    say(&format!("Refused, on the mount of before: {error:#}"));
                    Ok(true)
                }
                Err(error) => Err(error),
            }
        })?;
        let read = client.read("/hello")?;
        say(&format!(
            "It still reads: {}",
            String::from_utf8_lossy(&read).trim()
        ));
        Ok(())
    }

    fn use_cephfs<'a>(&self, ceph: &'a Ceph) -> Result<CephFsMount<'a>> {
        let secret = |key: &str| {
            let template = format!("--output=go-template={{{{.data.{key} | base64decode}}}}");
            self.ask(&["get", "secret", "trainer-cephx", &template])
        };
        let metadata = |field: &str| {
            let path = format!("--output=jsonpath={{.status.exportLocations[0].metadata.{field}}}");
            self.ask(&["get", "shr", "datasets", &path])
        };
        let (user, path) = (secret("userID")?, metadata("subvolumePath")?);
        let mount = CephFsMount::mount(ceph, &user, &secret("userKey")?, &metadata("fsName")?, &path)?;
        let mut alice = mount.user(OWNER)?;
        alice.write("/hello", b"written over CephFS\n")?;
        let read = alice.read("/hello")?;
        say(&format!(
            "client.{user} has mounted {path}, and reads what it wrote: {}",
            String::from_utf8_lossy(&read).trim()
        ));
        Ok(mount)
    }

    fn grow(&self, mount: Option<&CephFsMount>) -> Result<()> {
        let mut client = mount.map(|m| m.user(OWNER)).transpose()?;
        let gib = |bytes: u64| bytes >> 30;
        if let Some(client) = &mut client {
            say(&format!("The client sees {} GiB", gib(client.size()?)));
        }
        self.show(&[
            "patch",
            "shr",
            "datasets",
            "--type=merge",
            "--patch",
            r#"{"spec":{"size":"3Gi"}}"#,
        ])?;
        self.wait(&["wait", "--for=jsonpath={.status.size}=3Gi", "shr/datasets"])?;
        if let Some(client) = &mut client {
            wait_until("the client to see the new size", PATIENCE, || {
                Ok(gib(client.size()?) == 3)
            })?;
            say("The client sees 3 GiB");
        }
        Ok(())
    }

    fn delete_shares(&self) -> Result<()> {
        self.wait(&["delete", "-f", "examples/quickstart/shares.yaml"])?;
        if let Ok(ceph) = self.lab.ceph() {
            let subvolumes = ceph.ceph(&["fs", "subvolume", "ls", "cephfs", "shoal"])?;
            let exports = ceph.ceph(&["nfs", "export", "ls", ceph.nfs_cluster()])?;
            say(&format!(
                "Ceph has these subvolumes left: {subvolumes}, and these NFS exports: {exports}"
            ));
            let none = |list: &serde_json::Value| list.as_array().is_none_or(Vec::is_empty);
            ensure!(none(&subvolumes) && none(&exports), "something is left on Ceph");
        }
        Ok(())
    }

    fn stop_operator(&mut self) -> Result<()> {
        let operator = self.operator.take().context("no operator")?;
        operator.process.signal(Signal::TERM)?;
        wait_until("the operator to end", PATIENCE, || {
            Ok(!operator.process.is_alive())
        })
    }

    /// Server and path of the preferred export location, as published.
    fn nfs_location(&self) -> Result<(SocketAddr, String)> {
        let location = self.ask(&[
            "get",
            "shr",
            "documents",
            "--output=jsonpath={.status.exportLocations[0].path}",
        ])?;
        let (server, path) = location
            .rsplit_once(':')
            .with_context(|| format!("no path in {location}"))?;
        Ok((
            server
                .parse()
                .with_context(|| format!("no address in {location}"))?,
            path.to_owned(),
        ))
    }

    fn operator_kubeconfig(&self) -> PathBuf {
        self.lab.folder().join("kubernetes/shoal.kubeconfig")
    }

    fn operator_log(&self) -> PathBuf {
        self.lab.folder().join("kubernetes/log/shoal.log")
    }

    /// What helps whoever sees the demo fail.
    fn last_words(&mut self, arguments: &Arguments) -> String {
        let log = self.operator_log();
        let end = if log.exists() {
            tail(&log)
        } else {
            "it was not started".to_owned()
        };
        let kept = self.lab.keep_logs();
        let running = if arguments.keep {
            format!("\nThe lab still runs; to end it: {} down", arguments.lab())
        } else {
            String::new()
        };
        format!(
            "the operator's log ends:\n{end}\nAll logs are in {}{running}\nThe demo failed",
            kept.display()
        )
    }

    fn say_how_to_use(&self, arguments: &Arguments) {
        let lab = arguments.lab();
        let folder = self.lab.folder().display();
        println!("\nAll of it stays. To use it:");
        println!("    eval \"$({lab} env)\"         # KUBECONFIG, kubectl and ceph for this shell");
        println!("    kubectl get shr,shacc -o wide");
        println!("    tail -f {}", self.operator_log().display());
        println!("    {lab} status           # what runs, and where; all logs are below {folder}");
        println!("To end it:");
        println!("    {lab} down");
    }

    /// An error once the operator has ended, if it was started.
    fn check_operator(&self) -> Result<()> {
        let ended = self.operator.as_ref().is_some_and(|o| !o.process.is_alive());
        ensure!(!ended, "the operator has ended");
        Ok(())
    }

    /// Shows a kubectl command and what it prints.
    fn show(&self, arguments: &[impl AsRef<str>]) -> Result<()> {
        show_words(arguments);
        print_indented(&self.kubectl(arguments, None, false)?);
        Ok(())
    }

    /// Shows one that reads from its standard input.
    fn feed(&self, arguments: &[impl AsRef<str>], input: &str) -> Result<()> {
        show_words(arguments);
        print_indented(&self.kubectl(arguments, Some(input), false)?);
        Ok(())
    }

    /// Shows one that waits, for as long as patience lasts and the operator runs.
    fn wait(&self, arguments: &[impl AsRef<str>]) -> Result<()> {
        show_words(arguments);
        print_indented(&self.kubectl(arguments, None, true)?);
        Ok(())
    }

    /// What a kubectl command prints, not shown.
    fn ask(&self, arguments: &[impl AsRef<str>]) -> Result<String> {
        self.kubectl(arguments, None, false)
    }

    fn kubectl(&self, arguments: &[impl AsRef<str>], input: Option<&str>, waits: bool) -> Result<String> {
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        let mut command = self.lab.control_plane()?.kubectl();
        command.args(&arguments).current_dir(workspace::root());
        command.arg(if waits {
            "--timeout=60s"
        } else {
            "--request-timeout=30s"
        });
        // What it remembers of an API server is remembered by address, and another lab may have had that.
        command.env("KUBECACHEDIR", self.lab.folder().join("kubernetes/kubectl"));
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes())?;
        }
        let begun = Instant::now();
        let mut said = PROGRESS;
        while child.try_wait()?.is_none() {
            if let Err(ended) = self.check_operator() {
                child.kill()?;
                child.wait()?;
                return Err(ended);
            }
            if begun.elapsed() > said {
                said += PROGRESS;
                say(&format!(
                    "still waiting, for {:.0} s now",
                    begun.elapsed().as_secs_f64()
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!(
                "kubectl {} failed ({}): {}",
                arguments.join(" "),
                output.status,
                why.trim()
            );
        }
        String::from_utf8(output.stdout).context("kubectl prints no text")
    }
}

/// The operator's build, beside everything else.
struct Build {
    cargo: Process,
    program: PathBuf,
    done: JoinHandle<Result<()>>,
}

impl Build {
    fn start() -> Result<Self> {
        let program = workspace::target_folder(&workspace::metadata()?)?.join("lab/shoal");
        let mut command =
            workspace::cargo(["build", "--profile=lab", "--package=shoal-operator", "--locked"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run cargo")?;
        let cargo = Process::find("the operator's build", child.id()).context("cargo ended at once")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let begun = Instant::now();
        let done = thread::spawn(move || {
            let (mut text, mut said) = (String::new(), PROGRESS);
            for line in BufReader::new(stderr).lines() {
                let line = line?;
                if begun.elapsed() > said {
                    said = begun.elapsed() + PROGRESS;
                    eprintln!("{:7.1} s  operator:{line}", begun.elapsed().as_secs_f64());
                }
                text.push_str(&line);
                text.push('\n');
            }
            let status = child.wait()?;
            if !status.success() {
                // At once, and not only when the lab is up.
                eprintln!("{text}");
                bail!("the operator's build failed ({status}); cargo's words are above");
            }
            eprintln!("{:7.1} s  operator: built", begun.elapsed().as_secs_f64());
            Ok(())
        });
        Ok(Self { cargo, program, done })
    }

    /// Waits for its end; the program.
    fn finish(self) -> Result<PathBuf> {
        let begun = Instant::now();
        let mut said = Duration::ZERO;
        while !self.done.is_finished() {
            if begun.elapsed() >= said {
                said += PROGRESS;
                eprintln!("           operator: the lab is up, the build is not done yet");
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.done
            .join()
            .map_err(|_| anyhow!("the thread that follows the operator's build panicked"))??;
        Ok(self.program)
    }

    /// Ends it.
    fn abandon(self) -> Result<()> {
        self.cargo.kill()
    }
}

fn with_files(words: &[&str], files: &[String]) -> Vec<String> {
    let files = files.iter().flat_map(|f| ["-f", f.as_str()]);
    words.iter().copied().chain(files).map(str::to_owned).collect()
}

fn say(what: &str) {
    println!("    {what}");
}

fn show_words(arguments: &[impl AsRef<str>]) {
    let quoted: Vec<String> = arguments
        .iter()
        .map(|word| {
            let word = word.as_ref();
            if word.contains([' ', '{', '[', '*', '$', '"']) {
                format!("'{word}'")
            } else {
                word.to_owned()
            }
        })
        .collect();
    println!("    $ kubectl {}", quoted.join(" "));
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("{}", format!("    {line}").trim_end());
    }
}
