//! Processes as /proc shows them: who is whose child, who is alive.

use std::collections::BTreeSet;
use std::fs;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: u32,
    /// It has ended, and its parent has not asked how.
    pub(super) is_zombie: bool,
    /// CPU ticks of all its threads, ended ones included.
    pub(super) own_ticks: u64,
    /// The same of children that have ended and were asked how.
    pub(super) waited_ticks: u64,
}

/// What the kernel says about a process; `None`: it is no more.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in brackets, which may contain anything; the others are words (proc_pid_stat(5)).
fn parse(text: &str) -> Option<Stat> {
    let words: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // the third field is the first word
    let number = |field: usize| words.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        is_zombie: matches!(*words.first()?, "Z" | "X"),
        own_ticks: number(14)? + number(15)?,
        waited_ticks: number(16)? + number(17)?,
    })
}

/// The process and all who descend from it, itself first, zombies included; empty when it is no more.
pub(super) fn tree(pid: u32) -> Vec<u32> {
    if stat(pid).is_none() {
        return Vec::new();
    }
    let (mut found, mut known) = (vec![pid], BTreeSet::from([pid]));
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        for child in children(*parent) {
            // a number may come again while one looks
            if known.insert(child) {
                found.push(child);
            }
        }
        at += 1;
    }
    found
}

/// Those who descend from the process and are alive.
pub(crate) fn living_descendants(pid: u32) -> Vec<u32> {
    let is_alive = |pid: &u32| stat(*pid).is_some_and(|stat| !stat.is_zombie);
    tree(pid).into_iter().skip(1).filter(is_alive).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let lists: Option<Vec<String>> = threads(pid)
        .iter()
        .map(|thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok())
        .collect();
    match lists {
        Some(lists) => {
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|c| c.parse().ok()).collect()
        }
        // a thread has just ended, or the kernel has no such lists
        None => numbers("/proc").filter(|other| stat(*other).is_some_and(|stat| stat.parent == pid)).collect(),
    }
}

/// A process's threads, those that the kernel runs for its io_uring included.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task")).collect()
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let text = "12 (a) b) S 7 12 12 0 -1 4194560 91 5 0 0 30 12 4 2 20 0 1 0 5 0 0\n";
        let wanted = Stat { parent: 7, is_zombie: false, own_ticks: 42, waited_ticks: 6 };
        assert_eq!(parse(text), Some(wanted));
        assert_eq!(parse("12 (a"), None);
    }

    #[test]
    fn a_child_is_found_and_a_zombie_is_not_alive() {
        let me = std::process::id();
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        assert!(tree(me).contains(&child.id()) && living_descendants(me).contains(&child.id()));
        child.kill().expect("it is ours");
        let is_zombie = || stat(child.id()).is_some_and(|stat| stat.is_zombie).then_some(());
        assert!(crate::clock::wait_for(std::time::Duration::from_secs(20), is_zombie).is_some());
        assert!(tree(me).contains(&child.id()) && !living_descendants(me).contains(&child.id()));
        child.wait().expect("it has ended");
        assert!(!tree(me).contains(&child.id()) && stat(child.id()).is_none() && tree(child.id()).is_empty());
    }
}
