//! The control plane's programs: taken from `KUBEBUILDER_ASSETS`, or built once from pinned Go modules.

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::cache::{self, Artifact};
use super::host;
use super::process::output;
use super::steps::Steps;

/// The Kubernetes releases that the lab can run: the oldest and the newest that Shoal supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KubernetesRelease {
    /// Without MutatingAdmissionPolicy.
    V1_34,
    /// The default.
    #[default]
    V1_37,
}

impl KubernetesRelease {
    /// Major and minor, as on the command line.
    pub const fn minor(self) -> &'static str {
        match self {
            Self::V1_34 => "1.34",
            Self::V1_37 => "1.37",
        }
    }

    /// The exact version that is built.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V1_34 => "1.34.4",
            Self::V1_37 => "1.37.2",
        }
    }
}

impl Display for KubernetesRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.minor())
    }
}

impl FromStr for KubernetesRelease {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        [Self::V1_34, Self::V1_37]
            .into_iter()
            .find(|r| r.minor() == s)
            .with_context(|| format!("Kubernetes {s} is not one of 1.34, 1.37"))
    }
}

/// A Go module of the lab: what `go build` needs, kept in this program.
struct Module {
    go_mod: &'static str,
    go_sum: &'static str,
}

macro_rules! module {
    ($folder:literal) => {
        Module {
            go_mod: include_str!(concat!("../../lab/go/", $folder, "/go.mod")),
            go_sum: include_str!(concat!("../../lab/go/", $folder, "/go.sum")),
        }
    };
}

/// A program that is built from one package of one module.
struct Program {
    name: &'static str,
    version: &'static str,
    package: String,
    module: Module,
    ldflags: String,
    tags: Option<&'static str>,
    takes: &'static str,
}

impl Program {
    fn etcd() -> Self {
        Self {
            name: "etcd",
            version: "3.6.16",
            package: "go.etcd.io/etcd/server/v3".into(),
            module: module!("etcd"),
            ldflags: "-s -w".into(),
            tags: None,
            takes: "about 30 s",
        }
    }

    /// Without what finds targets in clouds, and without its pages.
    fn prometheus(name: &'static str, takes: &'static str) -> Self {
        let module = module!("prometheus");
        let mut tools = module.go_mod.lines().map(str::trim);
        let package = tools.find(|line| line.ends_with(&format!("/cmd/{name}")));
        Self {
            name,
            version: "3.16.0",
            package: package.unwrap_or(name).to_owned(),
            module,
            ldflags: "-s -w".into(),
            tags: Some("remove_all_sd"),
            takes,
        }
    }

    fn helm() -> Self {
        // Without a cluster it renders for the Kubernetes whose client it was built with, if it is told which.
        let set = ["chartutil", "lint/rules"]
            .map(|package| format!("-X helm.sh/helm/v3/pkg/{package}.k8sVersion"))
            .map(|variable| format!("{variable}Major=1 {variable}Minor=37"))
            .join(" ");
        Self {
            name: "helm",
            version: "3.22.0",
            package: "helm.sh/helm/v3/cmd/helm".into(),
            module: module!("helm"),
            ldflags: format!("-s -w {set} -X helm.sh/helm/v3/internal/version.version=v3.22.0"),
            tags: None,
            takes: "about 70 s",
        }
    }

    fn kubernetes(release: KubernetesRelease, name: &'static str, takes: &'static str) -> Self {
        let version = release.version();
        let minor = release.minor().trim_start_matches("1.");
        let set = "-X k8s.io/component-base/version.git";
        Self {
            name,
            version,
            package: format!("k8s.io/kubernetes/cmd/{name}"),
            module: match release {
                KubernetesRelease::V1_34 => module!("kubernetes-1.34"),
                KubernetesRelease::V1_37 => module!("kubernetes-1.37"),
            },
            ldflags: format!("-s -w {set}Version=v{version} {set}Major=1 {set}Minor={minor}"),
            tags: None,
            takes,
        }
    }

    fn artifact(&self) -> Artifact {
        let Self {
            name,
            version,
            package,
            module,
            ldflags,
            tags,
            takes,
        } = self;
        let mut content = vec![package, ldflags.as_str(), module.go_mod, module.go_sum];
        content.extend(tags);
        Artifact {
            kind: "programs",
            name: format!("{name}-{version}"),
            content: content.join("\n"),
            takes,
        }
    }

    /// The path of the program, after building it if need be.
    fn get(&self, steps: &Steps) -> Result<PathBuf> {
        let folder = self.artifact().get(steps, |out| self.build(out))?;
        Ok(folder.join(self.name))
    }

    fn build(&self, out: &Path) -> Result<()> {
        let source = tempfile::tempdir()?;
        fs::write(source.path().join("go.mod"), self.module.go_mod)?;
        fs::write(source.path().join("go.sum"), self.module.go_sum)?;
        let go = cache::root()?.join("go");
        output(
            Command::new(host::go()?)
                .current_dir(source.path())
                .args([
                    "build",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    &self.ldflags,
                    "-tags",
                    self.tags.unwrap_or_default(),
                    "-o",
                ])
                .arg(out.join(self.name))
                .arg(&self.package)
                .env("CGO_ENABLED", "0")
                .env("GOTOOLCHAIN", "local")
                .env("GOWORK", "off")
                .env("GOFLAGS", "-modcacherw -mod=readonly")
                .env("GOMODCACHE", go.join("mod"))
                .env("GOCACHE", go.join("build")),
        )?;
        Ok(())
    }
}

/// The programs of one control plane.
#[derive(Clone, Debug)]
pub struct Programs {
    /// kube-apiserver.
    pub api_server: PathBuf,
    /// etcd.
    pub etcd: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
    /// kube-controller-manager, where one is wanted.
    pub controller_manager: Option<PathBuf>,
    /// kube-scheduler, where there is a node.
    pub scheduler: Option<PathBuf>,
    /// The kubelet, where there is a node.
    pub kubelet: Option<PathBuf>,
}

/// Which programs beside the API server's are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// kube-controller-manager.
    pub controller_manager: bool,
    /// What a node takes.
    pub node: bool,
}

/// What a control plane of this release needs.
struct Needed {
    etcd: Program,
    api_server: Program,
    kubectl: Program,
    controller_manager: Option<Program>,
    scheduler: Option<Program>,
    kubelet: Option<Program>,
}

impl Needed {
    fn of(release: KubernetesRelease, beside: Beside) -> Self {
        let program = |wanted: bool, name, takes| wanted.then(|| Program::kubernetes(release, name, takes));
        Self {
            etcd: Program::etcd(),
            api_server: Program::kubernetes(release, "kube-apiserver", "about 5 min"),
            // One kubectl for all releases: it only has to speak to the lab.
            kubectl: Program::kubernetes(KubernetesRelease::V1_37, "kubectl", "about 40 s"),
            controller_manager: program(beside.controller_manager, "kube-controller-manager", "about 90 s"),
            scheduler: program(beside.node, "kube-scheduler", "about 15 s"),
            kubelet: program(beside.node, "kubelet", "about 40 s"),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Program> {
        [&self.etcd, &self.api_server, &self.kubectl]
            .into_iter()
            .chain(&self.controller_manager)
            .chain(&self.scheduler)
            .chain(&self.kubelet)
    }
}

/// The folder `KUBEBUILDER_ASSETS`, where somebody else's programs are.
fn assets() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

fn in_assets(name: &str) -> Option<PathBuf> {
    assets()
        .map(|folder| folder.join(name))
        .filter(|path| path.is_file())
}

/// An error, at once, when programs would have to be built and cannot be.
pub(super) fn check(release: KubernetesRelease, beside: Beside) -> Result<()> {
    if beside.node && release != KubernetesRelease::default() {
        bail!(
            "there is a node for Kubernetes {} only",
            KubernetesRelease::default()
        );
    }
    if let Some(folder) = assets() {
        let absent: Vec<_> = ["kube-apiserver", "etcd", "kubectl"]
            .into_iter()
            .filter(|name| in_assets(name).is_none())
            .collect();
        if !absent.is_empty() {
            bail!(
                "KUBEBUILDER_ASSETS is {}, which has no {}",
                folder.display(),
                absent.join(", no ")
            );
        }
    }
    for program in Needed::of(release, beside).all() {
        if in_assets(program.name).is_none() && !program.artifact().is_ready()? {
            host::go()?;
        }
    }
    Ok(())
}

/// The helm program, after building it if need be.
pub fn helm(steps: &Steps) -> Result<PathBuf> {
    Program::helm().get(steps)
}

/// Prometheus, and what tries its rules.
#[derive(Clone, Debug)]
pub struct PrometheusPrograms {
    /// prometheus.
    pub server: PathBuf,
    /// promtool.
    pub promtool: PathBuf,
}

/// Prometheus' programs, after building them if need be.
pub fn prometheus(steps: &Steps) -> Result<PrometheusPrograms> {
    let promtool = Program::prometheus("promtool", "about 3 min").get(steps)?;
    let server = Program::prometheus("prometheus", "about 90 s").get(steps)?;
    Ok(PrometheusPrograms { server, promtool })
}

impl Programs {
    /// Finds or builds them. From `KUBEBUILDER_ASSETS` where they are there, whatever release that is.
    pub fn get(release: KubernetesRelease, beside: Beside, steps: &Steps) -> Result<Self> {
        if let Some(folder) = assets() {
            steps.say(
                "control plane",
                &format!("programs of {} (KUBEBUILDER_ASSETS)", folder.display()),
            );
        }
        let get = |program: &Program| in_assets(program.name).map_or_else(|| program.get(steps), Ok);
        let optional = |program: &Option<Program>| program.as_ref().map(get).transpose();
        let needed = Needed::of(release, beside);
        Ok(Self {
            etcd: get(&needed.etcd)?,
            api_server: get(&needed.api_server)?,
            kubectl: get(&needed.kubectl)?,
            controller_manager: optional(&needed.controller_manager)?,
            scheduler: optional(&needed.scheduler)?,
            kubelet: optional(&needed.kubelet)?,
        })
    }
}
