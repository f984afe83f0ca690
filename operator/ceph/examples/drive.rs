#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]
use std::{sync::Arc, time::{Duration, Instant}};
use shoal_backend::{Backend, Error};
use shoal_ceph::{CephBackend, CephSettings, Connections, NfsService};
use shoal_crds::*;
use shoal_domain::{grant::*, identity::Identity, owner::Owner, volume::*};

fn env(n: &str) -> String { std::env::var(n).unwrap() }
pub fn settings(fs: &str, nfs: bool) -> CephSettings {
    CephSettings {
        mon_host: env("SHOAL_CEPH_MON_HOST"), user_id: std::env::var("USER_ID").unwrap_or("shoal".into()),
        user_key: Key::new(std::env::var("USER_KEY").unwrap_or_else(|_| std::fs::read_to_string(format!("/host{}", env("SHOAL_CEPH_KEY_FILE"))).unwrap().trim().to_owned())),
        filesystem: fs.into(), subvolume_group: "shoal".into(), data_pool: None, namespace_isolated: true,
        nfs: nfs.then(|| NfsService { cluster_id: std::env::var("NFS_ID").unwrap_or(env("SHOAL_NFS_CLUSTER")), endpoints: std::env::var("EP").map(|_| vec![]).unwrap_or(env("SHOAL_NFS_ENDPOINTS").split(',').map(Into::into).collect()) }),
        command_timeout: Duration::from_secs(std::env::var("T").map(|t| t.parse().unwrap()).unwrap_or(5)),
    }
}
fn vol(uid: &str, protocol: Protocol, tenant: &str) -> VolumeRef {
    VolumeRef { owner: Owner { cluster: "c1".into(), namespace: "ns".into(), name: "n".into(), uid: uid.into() }, protocol, tenant: tenant.into() }
}
fn ip(a: &str, level: AccessLevel, squash: Squash) -> Grant { Grant { client: Client::parse(AccessType::IP, a).unwrap(), level, squash } }
fn cx(a: &str, level: AccessLevel) -> Grant { Grant { client: Client::CephX(a.into()), level, squash: Squash::None } }
async fn t<T>(what: &str, f: impl Future<Output = T>) -> T { let s = Instant::now(); let r = f.await; println!("{what}: {:.1} ms", s.elapsed().as_secs_f64() * 1e3); r }
use AccessLevel::*;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let conns = Connections::new();
    let fs = std::env::var("FS").unwrap_or("cephfs".into());
    let b = Arc::new(CephBackend::new(settings(&fs, true), &conns));
    match args.get(1).map(String::as_str) {
        Some("describe") => { println!("{:#?}", t("describe", b.describe()).await); let d = t("describe", b.describe()).await; println!("{:?}", d.is_ok()); }
        Some("all") => all(&b, &conns).await,
        Some("bench") => bench(&b).await,
        Some("watch") => watch(&b, &conns, args[2].parse().unwrap()).await,
        Some("nfs") => { // nfs UID grants... ("-" = none) address/level/squash
            let on = b.describe().await.unwrap().identity; let v = vol(&args[2], Protocol::NFS, "t1");
            b.create(&on, &v, &NewVolume { size_bytes: 100 << 20, root: RootDirectory { uid: 1000, gid: 1000, mode: "0755".into() } }).await.unwrap();
            let mut a: Access = args[3..].iter().map(|g| { let mut p = g.split(','); ip(p.next().unwrap(), if p.next() == Some("ro") { ReadOnly } else { ReadWrite }, match p.next() { Some("root") => Squash::Root, Some("all") => Squash::All, _ => Squash::None }) }).collect();
            sort(&mut a);
            println!("{:?}", t("export", b.export(&on, &v, &a)).await);
        }
        Some("native") => { // native UID TENANT id,level...
            let on = b.describe().await.unwrap().identity; let v = vol(&args[2], Protocol::CephFS, &args[3]);
            let vo = b.create(&on, &v, &NewVolume { size_bytes: 100 << 20, root: RootDirectory { uid: 0, gid: 0, mode: "0777".into() } }).await.unwrap();
            println!("PATH={}", vo.path);
            let a: Access = args[4..].iter().map(|g| { let (i, l) = g.split_once(',').unwrap(); cx(i, if l == "ro" { ReadOnly } else { ReadWrite }) }).collect();
            let r = t("export", b.export(&on, &v, &a)).await;
            println!("{r:?}");
            for g in &a { if let Ok(k) = b.key(&on, &v, g).await { std::fs::write(format!("/tmp/key.{}", g.client), k.reveal()).unwrap(); } }
            println!("{:?}", b.look(&on, &v).await);
        }
        Some("look") => { let on = b.describe().await.unwrap().identity; let p = if args[3] == "nfs" { Protocol::NFS } else { Protocol::CephFS }; println!("{:#?}", t("look", b.look(&on, &vol(&args[2], p, "t1"))).await); }
        Some("drop") => { let on = b.describe().await.unwrap().identity; let p = if args[3] == "nfs" { Protocol::NFS } else { Protocol::CephFS }; let v = vol(&args[2], p, "t1");
            println!("{:?}", t("unexport", b.unexport(&on, &v)).await); println!("{:?}", t("look", b.look(&on, &v)).await); println!("{:?}", t("remove", b.remove(&on, &v)).await); println!("{:?}", b.look(&on, &v).await); }
        _ => panic!(),
    }
}

async fn all(b: &Arc<CephBackend>, conns: &Arc<Connections>) {
    let d = t("describe", b.describe()).await.unwrap(); let on = d.identity.clone();
    println!("{d:?}");
    let new = NewVolume { size_bytes: 100 << 20, root: RootDirectory { uid: 1000, gid: 1001, mode: "0770".into() } };
    let v = vol("a1", Protocol::NFS, "t1");
    println!("{:?}", t("look absent", b.look(&on, &v)).await);
    println!("{:?}", t("create", b.create(&on, &v, &new)).await);
    println!("{:?}", t("create again", b.create(&on, &v, &NewVolume { size_bytes: 1 << 20, ..new.clone() })).await);
    let a = vec![ip("127.0.0.2", ReadWrite, Squash::Root), ip("fd00::/64", ReadOnly, Squash::All), ip("10.0.0.0/8", ReadOnly, Squash::None)];
    println!("{:?}", t("export none", b.export(&on, &v, &vec![])).await);
    println!("{:?}", t("export", b.export(&on, &v, &a)).await);
    println!("{:?}", t("export same", b.export(&on, &v, &a)).await);
    println!("{:?}", t("look", b.look(&on, &v)).await);
    println!("{:?}", t("resize", b.resize(&on, &v, 200 << 20)).await);
    println!("{:?}", t("resize same", b.resize(&on, &v, 200 << 20)).await);
    let other = VolumeRef { owner: Owner { cluster: "other".into(), ..v.owner.clone() }, ..v.clone() };
    println!("other: create {:?}", b.create(&on, &other, &new).await);
    println!("other: resize {:?}", b.resize(&on, &other, 1 << 20).await);
    println!("other: export {:?}", b.export(&on, &other, &a).await);
    println!("other: unexport {:?}", b.unexport(&on, &other).await);
    println!("other: remove {:?}", b.remove(&on, &other).await);
    println!("other: look {:?}", b.look(&on, &other).await);
    println!("wrong fsid: {:?}", b.look(&Identity { fsid: "x".into(), ..on.clone() }, &v).await);
    println!("wrong fsid: {:?}", b.look(&Identity { fs_id: 77, ..on.clone() }, &v).await);
    println!("no fs: {:?}", CephBackend::new(settings("nope", false), conns).describe().await);
    let second = CephBackend::new(settings("second", false), conns);
    println!("second: {:?}", t("describe second", second.describe()).await.map(|d| d.identity));
    println!("{:?}", t("unexport", b.unexport(&on, &v)).await);
    println!("{:?}", t("unexport again", b.unexport(&on, &v)).await);
    println!("{:?}", t("remove", b.remove(&on, &v)).await);
    println!("{:?}", t("remove again", b.remove(&on, &v)).await);
    // native
    let v = vol("b1", Protocol::CephFS, "t1");
    println!("{:?}", t("create", b.create(&on, &v, &new)).await);
    let r = t("export", b.export(&on, &v, &vec![cx("alice", ReadWrite), cx("admin", ReadOnly), cx("bob", ReadOnly)])).await.unwrap();
    println!("{r:?}");
    let key = match &r[0].outcome { Ok(Some(k)) => k.clone(), _ => panic!() };
    println!("key same: {:?}", t("key", b.key(&on, &v, &cx("alice", ReadWrite))).await.map(|k| k == key));
    println!("key wrong level: {:?}", b.key(&on, &v, &cx("alice", ReadOnly)).await);
    println!("{:?}", t("export same", b.export(&on, &v, &vec![cx("alice", ReadWrite), cx("bob", ReadOnly)])).await);
    println!("{:?}", t("export lower", b.export(&on, &v, &vec![cx("alice", ReadOnly)])).await);
    println!("{:?}", t("look", b.look(&on, &v)).await);
    let w = vol("b2", Protocol::CephFS, "t2");
    b.create(&on, &w, &new).await.unwrap();
    println!("other tenant: {:?}", b.export(&on, &w, &vec![cx("alice", ReadWrite), cx("carol", ReadWrite)]).await);
    let on2 = second.describe().await.unwrap().identity;
    second.create(&on2, &v, &new).await.unwrap();
    println!("other fs: {:?}", second.export(&on2, &v, &vec![cx("alice", ReadWrite)]).await);
    for (bb, oo, vv) in [(b.as_ref(), &on, &v), (b.as_ref(), &on, &w), (&second, &on2, &v)] {
        println!("{:?}", t("unexport", bb.unexport(oo, vv)).await);
        println!("{:?}", t("look", bb.look(oo, vv)).await);
        println!("{:?}", t("remove", bb.remove(oo, vv)).await);
    }
}

async fn bench(b: &CephBackend) {
    let on = b.describe().await.unwrap().identity;
    let new = NewVolume { size_bytes: 100 << 20, root: RootDirectory { uid: 1000, gid: 1001, mode: "0770".into() } };
    let mut times: std::collections::BTreeMap<&str, Vec<f64>> = Default::default();
    macro_rules! m { ($n:literal, $e:expr) => {{ let s = Instant::now(); let r = $e.await; times.entry($n).or_default().push(s.elapsed().as_secs_f64() * 1e3); r.unwrap() }} }
    for i in 0..50 {
        let v = vol(&format!("bench{i}"), Protocol::NFS, "t1");
        let a = vec![ip("10.0.0.0/8", ReadOnly, Squash::None)];
        m!("1 look absent", b.look(&on, &v)); m!("2 create", b.create(&on, &v, &new)); m!("3 export first", b.export(&on, &v, &a));
        m!("4 export same", b.export(&on, &v, &a)); m!("5 export change", b.export(&on, &v, &vec![])); m!("6 look", b.look(&on, &v));
        m!("7 resize", b.resize(&on, &v, 1 << 30)); m!("8 unexport", b.unexport(&on, &v)); m!("9 remove", b.remove(&on, &v)); m!("0 describe", b.describe());
    }
    for (k, mut v) in times { v.sort_by(f64::total_cmp); println!("{k}: p50 {:.1} ms p95 {:.1} ms", v[25], v[47]); }
}

fn mem() -> String { let s = std::fs::read_to_string("/proc/self/status").unwrap(); s.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("Threads")).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(" ") }
async fn watch(b: &Arc<CephBackend>, conns: &Arc<Connections>, secs: u64) {
    let on = CephBackend::new(settings("cephfs", false), conns).describe().await.unwrap().identity;
    let end = Instant::now() + Duration::from_secs(secs);
    let started = Instant::now();
    let mut last: Vec<String> = vec![];
    while Instant::now() < end {
        let mut js = vec![];
        for i in 0..6 { let (b, on) = (b.clone(), on.clone()); js.push(tokio::spawn(async move { let v = vol(&format!("w{i}"), Protocol::NFS, "t1"); let s = Instant::now(); let r = b.look(&on, &v).await; (r.map(|_| ()), s.elapsed()) })); }
        let mut out = vec![]; let mut max = Duration::ZERO;
        for j in js { let (r, e) = j.await.unwrap(); max = max.max(e); let o = match r { Ok(()) => "ok".to_string(), Err(e) => format!("{e:?}") }; if !out.contains(&o) { out.push(o); } }
        out.sort();
        if out != last { println!("{:6.2}s {:?} (slowest {:.2}s) {}", started.elapsed().as_secs_f64(), out, max.as_secs_f64(), mem()); last = out; }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("end {}", mem());
    let _ = Error::NotFound;
}
