//! How much memory there is left to take.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes that may still be taken: what the kernel calls available, or what the control group of this process leaves where that
/// is less. `None` where nobody says.
pub fn free() -> Option<u64> {
    free_by(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

fn free_by(proc: &Path, groups: &Path) -> Option<u64> {
    [available(proc), left_by_groups(proc, groups)].into_iter().flatten().min()
}

/// `MemAvailable` of meminfo.
fn available(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least that the limits of the process's control group and of those above it leave, in either version of the hierarchy.
fn left_by_groups(proc: &Path, groups: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("self/cgroup")).ok()?;
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, files) = match controllers {
            "" => (groups.to_owned(), ["memory.max", "memory.current"]),
            some if some.split(',').any(|name| name == "memory") => {
                (groups.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => return None,
        };
        // In a container its own group is often mounted as the root, and has no folder of its name.
        let folders: Vec<PathBuf> = root.join(path).ancestors().map(Path::to_owned).collect();
        folders.iter().take_while(|folder| folder.starts_with(&root)).filter_map(|folder| left(folder, files)).min()
    };
    text.lines().filter_map(group).min()
}

/// What one group leaves: pages of files count as free, since they are given up for others.
fn left(folder: &Path, [limit, usage]: [&str; 2]) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let of_files = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        if matches!(name, "active_file" | "inactive_file") { bytes.trim().parse::<u64>().ok() } else { None }
    };
    let cached: u64 = stat.lines().filter_map(of_files).sum();
    Some(limit.saturating_sub(usage.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_least_of_what_the_machine_and_the_groups_leave_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, groups) = (folder.path().join("proc"), folder.path().join("cgroup"));
        let free = || free_by(&proc, &groups);
        assert_eq!(free(), None);
        write(proc.join("meminfo"), "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(free(), Some(8_192_000));
        write(proc.join("self/cgroup"), "0::/above/own\n");
        assert_eq!(free(), Some(8_192_000), "no limit");
        write(groups.join("above/own/memory.max"), "max\n");
        write(groups.join("above/own/memory.current"), "500\n");
        assert_eq!(free(), Some(8_192_000), "no limit");
        write(groups.join("above/memory.max"), "4000000\n");
        write(groups.join("above/memory.current"), "3000000\n");
        assert_eq!(free(), Some(1_000_000));
        write(groups.join("above/memory.stat"), "anon 1\nactive_file 200000\ninactive_file 300000\n");
        assert_eq!(free(), Some(1_500_000));
        write(groups.join("above/own/memory.max"), "600\n");
        assert_eq!(free(), Some(100));
        // The older hierarchy.
        write(proc.join("self/cgroup"), "5:cpu,memory:/old\n4:pids:/old\n");
        write(groups.join("memory/old/memory.limit_in_bytes"), "7000\n");
        write(groups.join("memory/old/memory.usage_in_bytes"), "9000\n");
        assert_eq!(free(), Some(0));
    }

    #[test]
    fn this_machine_says_something() {
        assert!(free().is_some_and(|bytes| bytes > 1 << 20));
    }
}
