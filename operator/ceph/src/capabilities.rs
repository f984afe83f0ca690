//! What the operator's Ceph user has to be allowed, and nothing beyond it.

/// The commands that are sent to ceph-mgr. With `mgr 'allow rw'`, or the modules as a whole, a mistake in what is sent could
/// remove a file system (`fs volume rm`) or stop a manager's module.
pub(crate) const MANAGER_COMMANDS: [&str; 20] = [
    "fs volume ls",
    "fs subvolumegroup create",
    "fs subvolume create",
    "fs subvolume ls",
    "fs subvolume info",
    "fs subvolume resize",
    "fs subvolume rm",
    "fs subvolume snapshot ls",
    "fs subvolume metadata ls",
    "fs subvolume metadata set",
    "fs subvolume metadata rm",
    "fs subvolume authorize",
    "fs subvolume deauthorize",
    "fs subvolume authorized_list",
    "nfs cluster ls",
    "nfs cluster info",
    "nfs export ls",
    "nfs export info",
    "nfs export apply",
    "nfs export rm",
];

/// The least that the operator works with, in Ceph's notation, by kind of daemon. A metadata server lists and evicts sessions
/// for nobody who has less than `allow *`, and with that alone nobody reads a file: there is nothing for `osd`.
pub fn capabilities() -> [(&'static str, String); 3] {
    let commands = MANAGER_COMMANDS.map(|command| format!("allow command \"{command}\""));
    [
        ("mon", "allow r".to_owned()),
        ("mgr", commands.join(", ")),
        ("mds", "allow *".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::capabilities;

    const PAGE: &str = "../../docs/operations/ceph-user.md";

    #[test]
    fn the_page_for_admins_says_the_same() {
        let page = fs::read_to_string(PAGE).unwrap();
        let command = capabilities().map(|(daemon, caps)| format!("  {daemon} '{caps}'"));
        let command = format!(
            "ceph auth get-or-create client.shoal \\\n{}\n",
            command.join(" \\\n")
        );
        assert!(page.contains(&command), "{PAGE} should say:\n{command}");
        for (daemon, caps) in capabilities() {
            let line = format!("    {daemon}: '{caps}'\n");
            assert!(page.contains(&line), "{PAGE} should say:\n{line}");
        }
    }
}
