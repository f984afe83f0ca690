//! Named points at which a test can kill the process, as `kill -9` would. Nothing in a build without the feature.

/// Ends the process here if the environment says so: `FAILPOINTS="<name>=<how often>*return"`.
pub fn hit(name: &str) {
    fail::fail_point!(name, |_| {
        // No destructor runs, nothing is flushed: as good as a kill.
        std::process::abort();
    });
    let _ = name;
}
